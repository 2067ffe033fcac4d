// The record of all that was asked of the device, in order, and how Python reads it.

#include <execinfo.h>

#include <cstdio>
#include <cstdlib>
#include <set>

#include "state.h"

namespace {

struct Record {
  int capture;  // 0: outside captures
  int stream;
  const char* kind;
  const std::string* name;  // kept once, as names repeat at every step
};

struct Records {
  std::vector<Record> records;
  std::set<std::string> names;
  std::set<std::string> kinds;  // of the Python half
  cudaError_t last_error = cudaSuccess;
};

// Never destroyed: PyTorch calls until the process has ended.
Records& kept() {
  static Records* records = new Records;
  return *records;
}

void add(int capture, int stream, const char* kind, const std::string& name) {
  Locked locked;
  kept().records.push_back({capture, stream, kind, &*kept().names.insert(name).first});
}

void print_stack() {
  void* addresses[40];
  int depth = backtrace(addresses, 40);
  backtrace_symbols_fd(addresses + 2, depth - 2, fileno(stderr));
}

}  // namespace

std::recursive_mutex& mutex() {
  static std::recursive_mutex* one = new std::recursive_mutex;
  return *one;
}

void record(const Stream& stream, const char* kind, const std::string& name) {
  add(stream.capture ? stream.capture->number : 0, stream.number, kind, name);
}

void record_outside(const char* kind, const std::string& name) { add(0, 0, kind, name); }

void forbidden(const std::string& what) {
  Capture* capture = capture_under_way();
  add(capture ? capture->number : 0, 0, "forbidden", what);
  if (getenv("CUDA_STAND_IN_STACKS")) {
    fprintf(stderr, "forbidden in a capture: %s\n", what.c_str());
    print_stack();
  }
}

cudaError_t failed(cudaError_t error) {
  Locked locked;
  return kept().last_error = error;
}

extern "C" {

cudaError_t cudaPeekAtLastError() {
  Locked locked;
  return kept().last_error;
}

cudaError_t cudaGetLastError() {
  Locked locked;
  cudaError_t error = kept().last_error;
  kept().last_error = cudaSuccess;
  return error;
}

// For Python, see inside/stand_in.py.

long stand_in_count() {
  Locked locked;
  return static_cast<long>(kept().records.size());
}

void stand_in_read(long at, int* capture, int* stream, const char** kind, const char** name) {
  Locked locked;
  const Record& one = kept().records.at(at);
  *capture = one.capture;
  *stream = one.stream;
  *kind = one.kind;
  *name = one.name->c_str();
}

void stand_in_clear() {
  Locked locked;
  kept().records.clear();
}

// Work that the Python half does in a library's place.
void stand_in_enqueue(cudaStream_t stream, const char* kind, const char* name) {
  Locked locked;
  enqueue(stream, kept().kinds.insert(kind).first->c_str(), name);
}

int stand_in_capture() {
  Locked locked;
  Capture* capture = capture_under_way();
  return capture ? capture->number : 0;
}

}  // extern "C"
