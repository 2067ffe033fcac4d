// cuBLAS and cuDNN: what PyTorch calls of them for this project's networks. Convolutions are not
// here: inside/convolutions.py replaces them, as cuDNN's graph interface takes more to stand in
// for.
//
// Of a function's arguments only those are declared that it reads, and those before them: by
// x86-64's calling convention the caller may pass more.

#include <cstdlib>
#include <cstring>

#include "state.h"

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
};

// What descriptors are, which nobody reads: larger than any of them.
void* description() { return calloc(1, 4096); }

int launch(Handle* handle, const char* function, long m, long n, long k) {
  Locked locked;
  std::string sizes = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
  enqueue(handle->stream, "kernel", std::string(function) + " " + sizes);
  return 0;
}

int launch(cudaStream_t stream, const char* function) {
  Locked locked;
  enqueue(stream, "kernel", function);
  return 0;
}

}  // namespace

extern "C" {

// cuBLAS

int cublasCreate_v2(Handle** handle) {
  *handle = new Handle;
  return 0;
}
int cublasDestroy_v2(Handle* handle) {
  delete handle;
  return 0;
}
int cublasSetStream_v2(Handle* handle, cudaStream_t stream) {
  handle->stream = stream;
  return 0;
}
int cublasGetMathMode(Handle*, int* mode) { return *mode = 0; }
int cublasSetMathMode() { return 0; }
int cublasGetPointerMode_v2(Handle*, int* mode) { return *mode = 0; }
int cublasSetPointerMode_v2() { return 0; }
int cublasSetWorkspace_v2() { return 0; }
int cublasSetSmCountTarget() { return 0; }

#define MATRIX_PRODUCT(function)                                \
  int function(Handle* handle, int, int, int m, int n, int k) { \
    return launch(handle, #function, m, n, k);                  \
  }
MATRIX_PRODUCT(cublasSgemm_v2)
MATRIX_PRODUCT(cublasDgemm_v2)
MATRIX_PRODUCT(cublasSgemmEx)
MATRIX_PRODUCT(cublasGemmEx)
MATRIX_PRODUCT(cublasSgemmStridedBatched)
MATRIX_PRODUCT(cublasDgemmStridedBatched)
MATRIX_PRODUCT(cublasGemmStridedBatchedEx)

#define MATRIX_VECTOR_PRODUCT(function) \
  int function(Handle* handle, int, int m, int n) { return launch(handle, #function, m, 1, n); }
MATRIX_VECTOR_PRODUCT(cublasSgemv_v2)
MATRIX_VECTOR_PRODUCT(cublasDgemv_v2)

#define SCALAR_PRODUCT(function) \
  int function(Handle* handle, int n) { return launch(handle, #function, 1, 1, n); }
SCALAR_PRODUCT(cublasSdot_v2)
SCALAR_PRODUCT(cublasDdot_v2)
SCALAR_PRODUCT(cublasDotEx)

// cuBLASLt

size_t cublasLtGetVersion() { return 130100; }

#define DESCRIBE(create, ...) \
  int create(void** made) {   \
    *made = description();    \
    return 0;                 \
  }
#define NOTHING(function) \
  int function() { return 0; }

DESCRIBE(cublasLtCreate)
DESCRIBE(cublasLtMatmulDescCreate)
DESCRIBE(cublasLtMatmulPreferenceCreate)
DESCRIBE(cublasLtMatrixLayoutCreate)
NOTHING(cublasLtMatmulDescSetAttribute)
NOTHING(cublasLtMatmulPreferenceSetAttribute)
NOTHING(cublasLtMatrixLayoutSetAttribute)
NOTHING(cublasLtMatmulDescDestroy)
NOTHING(cublasLtMatmulPreferenceDestroy)
NOTHING(cublasLtMatrixLayoutDestroy)

// One algorithm is found: zeros say that it needs no workspace and that it serves.
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int wanted,
                                   void* found, int* count) {
  constexpr size_t HEURISTIC_RESULT = 64 + 8 + 4 + 4 + 4 * 4;
  if (wanted > 0) memset(found, 0, HEURISTIC_RESULT);
  *count = wanted > 0;
  return 0;
}

int cublasLtMatmul(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*,
                   void*, void*, void*, size_t, cudaStream_t stream) {
  return launch(stream, "cublasLtMatmul");
}

// cuDNN

int cudnnCreate(Handle** handle) { return cublasCreate_v2(handle); }
int cudnnDestroy(Handle* handle) { return cublasDestroy_v2(handle); }
int cudnnSetStream(Handle* handle, cudaStream_t stream) {
  return cublasSetStream_v2(handle, stream);
}
int cudnnGetStream(Handle* handle, cudaStream_t* stream) {
  *stream = handle->stream;
  return 0;
}

DESCRIBE(cudnnCreateTensorDescriptor)
DESCRIBE(cudnnCreateFilterDescriptor)
DESCRIBE(cudnnCreateConvolutionDescriptor)
DESCRIBE(cudnnCreateActivationDescriptor)
DESCRIBE(cudnnCreateDropoutDescriptor)
NOTHING(cudnnSetTensorNdDescriptor)
NOTHING(cudnnSetFilterNdDescriptor)
NOTHING(cudnnSetActivationDescriptor)
NOTHING(cudnnDestroyTensorDescriptor)
NOTHING(cudnnDestroyFilterDescriptor)
NOTHING(cudnnDestroyConvolutionDescriptor)
NOTHING(cudnnDestroyActivationDescriptor)

int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void*, int, int, void*, void*, void*,
                                                             void*, void*, size_t* bytes) {
  *bytes = 0;
  return 0;
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void*, int, int, void*, void*, void*, void*,
                                                      void*, void*, void*, size_t* bytes) {
  *bytes = 0;
  return 0;
}
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void*, int, int, void*, void*,
                                                         size_t* bytes) {
  *bytes = 0;
  return 0;
}

#define NORMALIZATION(function) \
  int function(Handle* handle) { return launch(handle->stream, #function); }
NORMALIZATION(cudnnBatchNormalizationForwardTrainingEx)
NORMALIZATION(cudnnBatchNormalizationForwardInference)
NORMALIZATION(cudnnBatchNormalizationBackwardEx)

}  // extern "C"
