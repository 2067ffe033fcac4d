/* Vectors of 16 floats, and maps of `element`s that are read and written as such: build.py defines
   FLOAT32 or BFLOAT16. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES), aligned(4)));
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

/* Of so many items, those of one of several threads. */
typedef struct { size begin, end; } range;
static range share(size items, size part, size parts) {
  return (range){items * part / parts, items * (part + 1) / parts};
}

/* The sum of some rows. */
static void add_up(size rows, size columns, const float *from, float *to) {
  memcpy(to, from, columns * sizeof *to);
  for (size row = 1; row < rows; row++)
    for (size i = 0; i < columns; i++) to[i] += from[row * columns + i];
}

#ifdef FLOAT32
typedef float element;
typedef bits raw; /* elements as bits, of which some lanes may be kept and the others cleared */
INLINE raw keep(uint16_t lanes, raw x) { return (raw)_mm512_maskz_mov_epi32(lanes, (__m512i)x); }
INLINE vector widened(raw x) { return (vector)x; }
INLINE vector read(const element *from) { return load(from); }
INLINE void write(element *to, vector x) { store(to, x); }
INLINE void stream(element *to, vector x, vector next) {
  _mm512_stream_ps(to, (__m512)x), _mm512_stream_ps(to + LANES, (__m512)next);
}
#endif

#ifdef BFLOAT16
typedef uint16_t element; /* the upper half of a float */
typedef uint16_t raw __attribute__((vector_size(2 * LANES), aligned(2)));
INLINE raw keep(uint16_t lanes, raw x) { return (raw)_mm256_maskz_mov_epi16(lanes, (__m256i)x); }
INLINE vector widened(raw x) { return (vector)(__builtin_convertvector(x, bits) << 16); }
INLINE vector read(const element *from) { return widened(*(const raw *)from); }
#ifdef __AVX512BF16__
INLINE raw rounded(vector x) { return (raw)_mm512_cvtneps_pbh((__m512)x); }
#else
INLINE raw rounded(vector x) { /* to the nearest, ties to even; NaN stays NaN */
  bits b = (bits)x, nearest = (b + 0x7fff + (b >> 16 & 1)) >> 16;
  return __builtin_convertvector(choose(x != x, (bits){0} + 0x7fc0, nearest), raw);
}
#endif
INLINE void write(element *to, vector x) { *(raw *)to = rounded(x); }
INLINE bits side_by_side(raw left, raw right) {
  return (bits)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)left), (__m256i)right, 1);
}
/* Two vectors, past the caches, which would read first what is written: to a multiple of 64 bytes. */
INLINE void stream(element *to, vector x, vector next) {
  _mm512_stream_si512((__m512i *)to, (__m512i)side_by_side(rounded(x), rounded(next)));
}
#endif
