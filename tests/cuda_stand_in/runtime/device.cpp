// The device, which says of itself what an H100 says, and what errors are called.

#include <cuda.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "state.h"

namespace {

constexpr int VERSION = 13000;

CUresult missing() { return CUDA_ERROR_NOT_SUPPORTED; }

}  // namespace

int device_attribute(int which) {
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return 1024;
    case cudaDevAttrMaxBlockDimZ:
      return 64;
    case cudaDevAttrMaxGridDimX:
      return 2147483647;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return 48 << 10;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return 227 << 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return 228 << 10;
    case cudaDevAttrWarpSize:
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return 32;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return 65536;
    case cudaDevAttrMultiProcessorCount:
      return 132;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return 2048;
    case cudaDevAttrL2CacheSize:
      return 50 << 20;
    case cudaDevAttrComputeCapabilityMajor:
      return 9;
    case cudaDevAttrComputeCapabilityMinor:
      return 0;
    case cudaDevAttrClockRate:
      return 1980000;  // kHz
    case cudaDevAttrMemoryClockRate:
      return 2619000;  // kHz
    case cudaDevAttrGlobalMemoryBusWidth:
      return 5120;  // bits
    default:
      return 1;  // the rest are things that a device can or cannot do
  }
}

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  cudaDeviceProp& device = *properties = {};
  strcpy(device.name, "stand-in for an H100");
  device.totalGlobalMem = size_t{80} << 30;
  device.major = device_attribute(cudaDevAttrComputeCapabilityMajor);
  device.minor = device_attribute(cudaDevAttrComputeCapabilityMinor);
  device.multiProcessorCount = device_attribute(cudaDevAttrMultiProcessorCount);
  device.warpSize = device_attribute(cudaDevAttrWarpSize);
  device.maxThreadsPerBlock = device_attribute(cudaDevAttrMaxThreadsPerBlock);
  device.maxThreadsPerMultiProcessor = device_attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  device.maxBlocksPerMultiProcessor = device_attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
  device.sharedMemPerBlock = device_attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  device.sharedMemPerBlockOptin = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  device.sharedMemPerMultiprocessor = device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  device.regsPerBlock = device_attribute(cudaDevAttrMaxRegistersPerBlock);
  device.regsPerMultiprocessor = device_attribute(cudaDevAttrMaxRegistersPerMultiprocessor);
  device.l2CacheSize = device_attribute(cudaDevAttrL2CacheSize);
  device.totalConstMem = 64 << 10;
  device.textureAlignment = 512;
  device.unifiedAddressing = device.concurrentKernels = device.cooperativeLaunch = 1;
  for (int i = 0; i < 3; i++) {
    device.maxThreadsDim[i] = device_attribute(cudaDevAttrMaxBlockDimX + i);
    device.maxGridSize[i] = device_attribute(cudaDevAttrMaxGridDimX + i);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = device_attribute(which);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int) {
  snprintf(id, length, "0000:01:00.0");
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = VERSION;
  return cudaSuccess;
}

// PyTorch gets all of the driver in this way when it starts, and needs little of it.
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  void* found = dlsym(RTLD_DEFAULT, name);
  *function = found ? found : reinterpret_cast<void*>(missing);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnmatched:
      return "capture was not initiated in this stream";
    case cudaErrorStreamCaptureUnjoined:
      return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation:
      return "dependency created on uncaptured work in another stream";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorCapturedEvent:
      return "operation not permitted on an event last recorded in a capturing stream";
    default:
      return "an error that the stand-in has no words for";
  }
}

const char* cudaGetErrorName(cudaError_t error) {
  thread_local char name[32];
  snprintf(name, sizeof name, "cudaError %d", error);
  return name;
}

}  // extern "C"
