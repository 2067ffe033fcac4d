// Streams, events and captures: what a capture holds, what it forbids, and whether its branches are
// joined, as the CUDA programming guide tells it under "Creating a Graph Using Stream Capture".
// There is one capture at a time.

#include <set>
#include <unordered_map>

#include "state.h"

namespace {

struct Streams {
  Stream standard{0};
  std::unordered_map<cudaStream_t, Stream*> streams;
  int created = 0;
  Capture* capture = nullptr;
  int captures = 0;
};

// Never destroyed: PyTorch calls until the process has ended.
Streams& kept() {
  static Streams* streams = new Streams;
  return *streams;
}

// How this thread wants to be guarded: PyTorch relaxes it where it allocates during a capture.
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

// See the documentation of cudaThreadExchangeStreamCaptureMode.
bool concerns_this_thread(const Capture& capture) {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return false;
  if (capture.thread == std::this_thread::get_id()) {
    return capture.mode != cudaStreamCaptureModeRelaxed;
  }
  return thread_mode == cudaStreamCaptureModeGlobal && capture.mode == cudaStreamCaptureModeGlobal;
}

cudaError_t end_by(cudaError_t error, const std::string& what) {
  forbidden(what);
  if (kept().capture) kept().capture->invalid = true;
  return failed(error);
}

bool captured(const Event& event) {
  return kept().capture && event.capture == kept().capture->number;
}

void join(std::vector<int>& ends, const std::vector<int>& others) {
  std::set<int> all(ends.begin(), ends.end());
  all.insert(others.begin(), others.end());
  ends.assign(all.begin(), all.end());
}

// Nodes that nothing on the capture's first stream comes after.
size_t count_unjoined(const Capture& capture) {
  std::set<int> joined;
  std::vector<int> todo = capture.origin->ends;
  while (!todo.empty()) {
    int node = todo.back();
    todo.pop_back();
    if (!joined.insert(node).second) continue;
    const std::vector<int>& before = capture.nodes[node];
    todo.insert(todo.end(), before.begin(), before.end());
  }
  return capture.nodes.size() - joined.size();
}

void leave_capture(Stream& stream) {
  stream.capture = nullptr;
  stream.ends.clear();
}

Event* as_event(cudaEvent_t handle) { return reinterpret_cast<Event*>(handle); }

}  // namespace

Capture* capture_under_way() { return kept().capture; }

Stream& find_stream(cudaStream_t handle) {
  auto found = kept().streams.find(handle);
  return found == kept().streams.end() ? kept().standard : *found->second;
}

bool runs_now(cudaStream_t handle) { return !find_stream(handle).capture; }

cudaError_t enqueue(cudaStream_t handle, const char* kind, const std::string& name) {
  Stream& stream = find_stream(handle);
  record(stream, kind, name);
  Capture* capture = stream.capture;
  if (!capture) {
    if (kept().capture) {
      forbidden("escapes, on stream " + std::to_string(stream.number) + ": " + name);
    }
    return cudaSuccess;
  }
  capture->nodes.push_back(stream.ends);
  stream.ends = {static_cast<int>(capture->nodes.size()) - 1};
  return capture->invalid ? failed(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}

cudaError_t unsafe_in_capture(const char* call) {
  if (!kept().capture || !concerns_this_thread(*kept().capture)) return cudaSuccess;
  return end_by(cudaErrorStreamCaptureUnsupported, call);
}

extern "C" {

// Streams

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned, int) {
  Locked locked;
  Stream* stream = new Stream{++kept().created};
  *handle = reinterpret_cast<cudaStream_t>(stream);
  kept().streams[*handle] = stream;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  return cudaStreamCreateWithPriority(handle, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t* handle) {
  return cudaStreamCreateWithPriority(handle, 0, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  Locked locked;
  auto found = kept().streams.find(handle);
  if (found == kept().streams.end()) return failed(cudaErrorInvalidResourceHandle);
  delete found->second;
  kept().streams.erase(found);
  return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Locked locked;
  if (find_stream(handle).capture) {
    return end_by(cudaErrorStreamCaptureUnsupported, "cudaStreamQuery of a captured stream");
  }
  return unsafe_in_capture("cudaStreamQuery");
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Locked locked;
  record_outside("wait", "cudaStreamSynchronize");
  if (find_stream(handle).capture) {
    return end_by(cudaErrorStreamCaptureUnsupported, "cudaStreamSynchronize of a captured stream");
  }
  return unsafe_in_capture("cudaStreamSynchronize");
}

cudaError_t cudaDeviceSynchronize() {
  Locked locked;
  record_outside("wait", "cudaDeviceSynchronize");
  return unsafe_in_capture("cudaDeviceSynchronize");
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  Locked locked;
  cudaError_t error = enqueue(handle, "host function", "cudaLaunchHostFunc");
  if (runs_now(handle)) function(data);
  return error;
}

// Events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
  *handle = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* handle) { return cudaEventCreateWithFlags(handle, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  delete as_event(handle);
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream_handle, unsigned) {
  Locked locked;
  Event& event = *as_event(handle);
  const Stream& stream = find_stream(stream_handle);
  event.recorded = true;
  event.capture = stream.capture ? stream.capture->number : 0;
  event.ends = stream.ends;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  return cudaEventRecordWithFlags(handle, stream, 0);
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  Locked locked;
  if (captured(*as_event(handle))) {
    return end_by(cudaErrorCapturedEvent, "cudaEventQuery of a captured event");
  }
  return unsafe_in_capture("cudaEventQuery");
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  Locked locked;
  record_outside("wait", "cudaEventSynchronize");
  if (captured(*as_event(handle))) {
    return end_by(cudaErrorCapturedEvent, "cudaEventSynchronize of a captured event");
  }
  return unsafe_in_capture("cudaEventSynchronize");
}

// What autotuning compares: all takes as long.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}

// By waiting for a captured event a stream becomes part of the capture.
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
  Locked locked;
  const Event& event = *as_event(event_handle);
  Stream& stream = find_stream(handle);
  if (!event.recorded) return cudaSuccess;
  if (!captured(event)) {
    if (!stream.capture) return cudaSuccess;
    return end_by(cudaErrorStreamCaptureIsolation, "a captured stream waits for work outside");
  }
  if (&stream == &kept().standard) {
    return end_by(cudaErrorStreamCaptureImplicit, "the default stream waits for captured work");
  }
  stream.capture = kept().capture;
  join(stream.ends, event.ends);
  return cudaSuccess;
}

// Captures

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(thread_mode, *mode);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  Locked locked;
  Stream& stream = find_stream(handle);
  if (&stream == &kept().standard) return failed(cudaErrorStreamCaptureUnsupported);
  if (kept().capture) {
    forbidden("a second capture begins");
    return failed(cudaErrorIllegalState);
  }
  kept().capture =
      new Capture{++kept().captures, mode, std::this_thread::get_id(), &stream, false, {}};
  stream.capture = kept().capture;
  stream.ends.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  Locked locked;
  Capture* capture = find_stream(handle).capture;
  *status = !capture           ? cudaStreamCaptureStatusNone
            : capture->invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  if (id && capture) *id = capture->number;
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(capture);
  if (dependencies) *dependencies = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return cudaStreamGetCaptureInfo(handle, status, nullptr, nullptr, nullptr, nullptr, nullptr);
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  Locked locked;
  *graph = nullptr;
  Capture* capture = find_stream(handle).capture;
  if (!capture) return failed(cudaErrorIllegalState);
  if (capture->origin != &find_stream(handle)) {
    return end_by(cudaErrorStreamCaptureUnmatched, "the capture ends on another stream");
  }
  size_t unjoined = count_unjoined(*capture);
  if (unjoined) forbidden("unjoined: " + std::to_string(unjoined) + " nodes");
  bool invalid = capture->invalid;
  if (!invalid && !unjoined) {
    *graph = reinterpret_cast<cudaGraph_t>(new Graph{capture->number, capture->nodes.size()});
  }
  for (auto& [_, stream] : kept().streams) leave_capture(*stream);
  kept().capture = nullptr;
  delete capture;
  if (invalid) return failed(cudaErrorStreamCaptureInvalidated);
  return unjoined ? failed(cudaErrorStreamCaptureUnjoined) : cudaSuccess;
}

// Graphs

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* instance, cudaGraph_t graph,
                                          unsigned long long) {
  *instance = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph,
                                 unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(instance, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
  Locked locked;
  return enqueue(stream, "graph", std::to_string(reinterpret_cast<Graph*>(instance)->capture));
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = reinterpret_cast<Graph*>(graph)->nodes;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
  Locked locked;
  if (cudaError_t error = unsafe_in_capture("cudaGraphExecDestroy")) return error;
  delete reinterpret_cast<Graph*>(instance);
  return cudaSuccess;
}

}  // extern "C"
