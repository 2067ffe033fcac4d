// Memory of the device, which keeps nothing, pinned memory, and copies between them.
//
// What no kernel has computed cannot be read: what comes back from the device is zeros, always, and
// not what happened to lie there. So nothing needs to be sent there either, and its memory is
// addresses alone, which the host must not touch, as on a real one.

#include <sys/mman.h>

#include <cstring>
#include <map>

#include "state.h"

namespace {

constexpr size_t GIB = size_t{1} << 30;
constexpr size_t TOTAL = 80 * GIB, FREE = 78 * GIB;

using Blocks = std::map<const char*, size_t>;  // sizes by address

struct Memory {
  Blocks device, pinned;
  size_t used = 0;  // of the device
};

// Never destroyed: PyTorch calls until the process has ended.
Memory& kept() {
  static Memory* memory = new Memory;
  return *memory;
}

size_t whole_pages(size_t size) {
  size_t pages = (size + 4095) & ~size_t{4095};
  return pages ? pages : 4096;
}

void* take(Blocks& blocks, size_t size, int protection) {
  void* address = mmap(nullptr, whole_pages(size), protection,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  blocks[static_cast<const char*>(address)] = size;
  return address;
}

// The size of what was given back; 0 if it was not from here.
size_t give_back(Blocks& blocks, void* address) {
  auto found = blocks.find(static_cast<const char*>(address));
  if (found == blocks.end()) return 0;
  size_t size = found->second;
  munmap(address, whole_pages(size));
  blocks.erase(found);
  return size;
}

bool within(const Blocks& blocks, const void* pointer) {
  const char* address = static_cast<const char*>(pointer);
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) return false;
  auto [start, size] = *std::prev(after);
  return address < start + size;
}

const char* place(const void* pointer) {
  if (within(kept().device, pointer)) return "device";
  return within(kept().pinned, pointer) ? "pinned host" : "host";
}

bool on_device(const void* pointer) { return within(kept().device, pointer); }

// A capture should hold no copy from or to the host, whose memory may be another's at a replay.
cudaError_t enqueue_copy(cudaStream_t stream, const void* to, const void* from, size_t bytes) {
  std::string name =
      std::string(place(from)) + " to " + place(to) + ", " + std::to_string(bytes) + " bytes";
  if (!runs_now(stream) && !(on_device(to) && on_device(from))) forbidden("a copy, " + name);
  return enqueue(stream, "copy", name);
}

void copy(void* to, const void* from, size_t bytes) {
  if (on_device(to)) return;
  if (on_device(from)) {
    memset(to, 0, bytes);
  } else {
    memmove(to, from, bytes);
  }
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** address, size_t size) {
  Locked locked;
  record_outside("allocation", std::to_string(size) + " bytes");
  if (cudaError_t error = unsafe_in_capture("cudaMalloc")) return error;
  bool fits = kept().used + size <= FREE;
  *address = fits ? take(kept().device, size, PROT_NONE) : nullptr;
  if (!*address) return failed(cudaErrorMemoryAllocation);
  kept().used += size;
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** address, size_t size, cudaStream_t) {
  return cudaMalloc(address, size);
}

cudaError_t cudaMallocManaged(void** address, size_t size, unsigned) {
  return cudaMalloc(address, size);
}

cudaError_t cudaFree(void* address) {
  Locked locked;
  if (!address) return cudaSuccess;
  if (cudaError_t error = unsafe_in_capture("cudaFree")) return error;
  kept().used -= give_back(kept().device, address);
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t) { return cudaFree(address); }

cudaError_t cudaHostAlloc(void** address, size_t size, unsigned) {
  Locked locked;
  if (cudaError_t error = unsafe_in_capture("cudaHostAlloc")) return error;
  *address = take(kept().pinned, size, PROT_READ | PROT_WRITE);
  return *address ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void** address, size_t size) { return cudaHostAlloc(address, size, 0); }

cudaError_t cudaFreeHost(void* address) {
  Locked locked;
  if (cudaError_t error = unsafe_in_capture("cudaFreeHost")) return error;
  give_back(kept().pinned, address);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Locked locked;
  *free = FREE - kept().used;
  *total = TOTAL;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  Locked locked;
  void* address = const_cast<void*>(pointer);
  *attributes = {};
  if (within(kept().device, pointer)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->devicePointer = address;
  } else {
    bool pinned = within(kept().pinned, pointer);
    attributes->type = pinned ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    attributes->hostPointer = address;
    attributes->devicePointer = pinned ? address : nullptr;
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  Locked locked;
  cudaError_t error = enqueue_copy(stream, to, from, bytes);
  if (runs_now(stream)) copy(to, from, bytes);
  return error;
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t stream) {
  Locked locked;
  cudaError_t error = enqueue_copy(stream, to, from, width * height);
  for (size_t row = 0; runs_now(stream) && row < height; row++) {
    copy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch,
         width);
  }
  return error;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  Locked locked;
  record_outside("wait", "cudaMemcpy");
  if (cudaError_t error = unsafe_in_capture("cudaMemcpy")) return error;
  copy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void*, int, size_t bytes, cudaStream_t stream) {
  Locked locked;
  return enqueue(stream, "memset", std::to_string(bytes) + " bytes");
}

cudaError_t cudaMemset(void* address, int value, size_t bytes) {
  Locked locked;
  if (cudaError_t error = unsafe_in_capture("cudaMemset")) return error;
  return cudaMemsetAsync(address, value, bytes, nullptr);
}

// Variables of kernels: one piece of memory for all, as no kernel reads it.

cudaError_t cudaGetSymbolAddress(void** address, const void*) {
  static char memory[1 << 16];
  *address = memory;
  return cudaSuccess;
}

cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, cudaMemcpyKind) {
  return cudaSuccess;
}

}  // extern "C"
