// What the stand-in keeps of its one device, and what its files say to each other.
//
// Kernels do nothing, memory keeps nothing (see memory.cpp), and what else is asked of a stream is
// done at once. During a capture it becomes a node of a graph instead, and is not done.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

struct Capture;

struct Stream {
  int number;                  // 0: the default one
  Capture* capture = nullptr;  // that it is part of
  std::vector<int> ends = {};  // nodes that the stream's next node comes after
};

struct Event {
  bool recorded = false;
  int capture = 0;        // the number of the capture that it was recorded in; 0: in none
  std::vector<int> ends;  // the stream's, when it was recorded
};

struct Capture {
  int number;  // from 1
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  Stream* origin;
  bool invalid;                         // by a call that captures forbid
  std::vector<std::vector<int>> nodes;  // of each node, those that it comes after
};

// What was captured; what is instantiated from it is a copy.
struct Graph {
  int capture;  // its number
  size_t nodes;
};

// Guards all that is kept: PyTorch calls from autograd's threads too. Recursive, because functions
// of the runtime are made of each other.
std::recursive_mutex& mutex();
struct Locked {
  std::lock_guard<std::recursive_mutex> guard{mutex()};
};

// record.cpp

// Kinds of records: "kernel", "copy", "memset", "host function", "graph" (a launch), "wait" (for
// the device), "allocation", "forbidden" (what a capture forbids), and what the Python half adds.
void record(const Stream& stream, const char* kind, const std::string& name);
void record_outside(const char* kind, const std::string& name);
void forbidden(const std::string& what);
// The error, kept for `cudaGetLastError`.
cudaError_t failed(cudaError_t error);

// capture.cpp

Capture* capture_under_way();
Stream& find_stream(cudaStream_t handle);
// Records the work, and makes it a node if the stream is captured. Success does not tell the caller
// to do it: see `runs_now`.
cudaError_t enqueue(cudaStream_t handle, const char* kind, const std::string& name);
bool runs_now(cudaStream_t handle);
// For calls that a capture forbids: an error, which ends the capture, if there is one that concerns
// this thread.
cudaError_t unsafe_in_capture(const char* call);

// device.cpp

// The runtime's and the driver's attributes, which count alike.
int device_attribute(int which);
