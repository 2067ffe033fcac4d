// Kernels that were compiled into PyTorch: known by name, and launched without doing anything.

#include <cxxabi.h>

#include <cstdlib>
#include <unordered_map>

#include "state.h"

namespace {

// Names by the address of the function on the host that stands for a kernel.
std::unordered_map<const void*, std::string>& names() {
  static auto* map = new std::unordered_map<const void*, std::string>;
  return *map;
}

// Of the <<<...>>> that this thread is carrying out.
struct LaunchSize {
  dim3 grid, block;
  size_t shared_bytes;
  void* stream;
};
thread_local LaunchSize pushed;

std::string demangled(const char* name) {
  int status;
  char* readable = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = readable ? readable : name;
  free(readable);
  return result;
}

std::string kernel_name(const void* function) {
  auto found = names().find(function);
  return found == names().end() ? "unknown kernel" : found->second;
}

cudaError_t launch(const void* function, dim3 grid, cudaStream_t stream) {
  Locked locked;
  if (!grid.x || !grid.y || !grid.z) return failed(cudaErrorInvalidConfiguration);
  return enqueue(stream, "kernel", kernel_name(function));
}

}  // namespace

extern "C" {

// What nvcc's code calls when a library is loaded, and in <<<...>>>. No header declares it.

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 0; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  Locked locked;
  names()[function] = demangled(name);
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void* stream) {
  pushed = {grid, block, shared_bytes, stream};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes,
                                       void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared_bytes = pushed.shared_bytes;
  *static_cast<void**>(stream) = pushed.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3, void**, size_t,
                               cudaStream_t stream) {
  return launch(kernel, grid, stream);
}

// The public functions

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3, void**, size_t,
                             cudaStream_t stream) {
  return launch(function, grid, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* launched, const void* function, void**) {
  return launch(function, launched->gridDim, launched->stream);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->binaryVersion = attributes->ptxVersion = 90;
  attributes->maxDynamicSharedSizeBytes = 48 << 10;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads,
                                                          size_t) {
  *blocks = 2048 / (threads ? threads : 1);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                   const void* function,
                                                                   int threads, size_t shared_bytes,
                                                                   unsigned) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared_bytes);
}

}  // extern "C"
