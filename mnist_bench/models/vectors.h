/* Vectors of 16 floats, and maps of `element`s that are read and written as such: native.py defines
   FLOAT32 or BFLOAT16. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef int64_t size;

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector x) { *(vector *)to = x; }
/* `yes` where the bits of the mask are set. */
INLINE bits choose(bits mask, bits yes, bits no) { return (mask & yes) | (~mask & no); }
INLINE vector magnitude(vector x) { return (vector)((bits)x & 0x7fffffff); }

static inline void *allocate(size bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory) abort();
  return memory;
}

#ifdef FLOAT32
typedef float element;
INLINE vector read(const element *from) { return load(from); }
INLINE void write(element *to, vector x) { store(to, x); }
#endif

#ifdef BFLOAT16
typedef uint16_t element; /* the upper half of a float */
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
INLINE vector read(const element *from) {
  return (vector)(__builtin_convertvector(*(const halves *)from, bits) << 16);
}
INLINE void write(element *to, vector x) { /* the nearest, ties to even; NaN stays NaN */
  bits b = (bits)x, rounded = (b + 0x7fff + (b >> 16 & 1)) >> 16;
  *(halves *)to = __builtin_convertvector(choose(x != x, (bits){0} + 0x7fc0, rounded), halves);
}
#endif
