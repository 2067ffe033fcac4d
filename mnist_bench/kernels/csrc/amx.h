/* Tiles of the matrix unit AMX, in bfloat16.

   It multiplies matrices of 16 rows of 64 bytes: to 16 x 16 floats it adds the product of (16, 32)
   and (32, 16) bfloat16, of which the second lies in pairs of rows, (16, 16, 2). Eight registers hold
   such tiles: here 0 to 3 hold sums, the others what is multiplied. */

#include <omp.h>
#include <sys/mman.h>

enum { IMAGES = 16, CHANNELS = 32, HALF = CHANNELS / 2 };
enum { TILE = IMAGES * CHANNELS, SUMS = IMAGES * HALF }; /* elements and floats of a tile */

static size smaller(size x, size y) { return x < y ? x : y; }
static size larger(size x, size y) { return x > y ? x : y; }

/* All eight tiles are whole. */
static void configure(void) {
  static const struct { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; }
      tiles = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  _tile_loadconfig(&tiles);
}

/* Compilers do not know that tiles are loaded from memory: what they are to find is written before. */
INLINE void settle(void) { __asm__ volatile("" ::: "memory"); }

/* Memory of the calling thread, kept for its next layer: in huge pages, as small ones, which lie
   anywhere, come in each other's way in the cache. */
static void *scratch(size bytes) {
  enum { PAGE = 2 << 20 };
  static _Thread_local char *memory;
  static _Thread_local size room;
  if (room < bytes) {
    free(memory);
    room = (bytes + PAGE - 1) / PAGE * PAGE;
    memory = aligned_alloc(PAGE, room);
    if (!memory) abort();
    madvise(memory, room, MADV_HUGEPAGE);
  }
  return memory;
}

/* Rows become columns of 16 x 16 numbers: squares of 1, 2, 4 and 8 change sides with one another. */
INLINE void transpose(bits *rows) {
  const bits lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  UNROLL for (int side = 1; side < LANES; side *= 2) {
    bits even = lanes + ((bits)((lanes & side) != 0) & (LANES - side)), odd = even + side;
    UNROLL for (int row = 0; row < LANES; row++) {
      if (row & side) continue;
      __m512i a = (__m512i)rows[row], b = (__m512i)rows[row + side];
      rows[row] = (bits)_mm512_permutex2var_epi32(a, (__m512i)even, b);
      rows[row + side] = (bits)_mm512_permutex2var_epi32(a, (__m512i)odd, b);
    }
  }
}

INLINE bits in_pairs(raw even, raw odd) {
  return __builtin_convertvector(even, bits) | __builtin_convertvector(odd, bits) << 16;
}

/* CHANNELS of a pixel of some images, which lie so many elements apart. */
typedef struct { const element *first; size images, apart; } pixels;

/* Two tiles (8 pairs of images, HALF, 2) of either pixel, one below the other. */
static void fill_pairs(pixels upper, pixels lower, bits *tiles) {
  static const element zeros[CHANNELS];
  for (int row = 0; row < IMAGES; row++) {
    pixels from = row < IMAGES / 2 ? upper : lower;
    size image = row % (IMAGES / 2) * 2;
    const element *even = image < from.images ? from.first + image * from.apart : zeros;
    const element *odd = image + 1 < from.images ? from.first + (image + 1) * from.apart : zeros;
    for (int half = 0; half < 2; half++)
      tiles[half * IMAGES + row] =
          in_pairs(*(const raw *)(even + half * HALF), *(const raw *)(odd + half * HALF));
  }
}

/* Four tiles of sums, two here and two there. */
static void load_sums(const float *here, const float *there) {
  _tile_loadd(0, here, 64);
  _tile_loadd(1, here + SUMS, 64);
  _tile_loadd(2, there, 64);
  _tile_loadd(3, there + SUMS, 64);
}
static void clear_sums(void) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
/* Those that begin with biases, of HALF and HALF outputs. */
static void load_biases(const float *bias) {
  _tile_loadd(0, bias, 0);
  _tile_loadd(1, bias + HALF, 0);
  _tile_loadd(2, bias, 0);
  _tile_loadd(3, bias + HALF, 0);
}
/* Those that begin here, or go on. */
static void take_sums(int begins, const float *here, const float *there) {
  if (begins) clear_sums();
  else load_sums(here, there);
}
static void store_sums(float *here, float *there) {
  _tile_stored(0, here, 64);
  _tile_stored(1, here + SUMS, 64);
  _tile_stored(2, there, 64);
  _tile_stored(3, there + SUMS, 64);
}

/* To the four sums: the products of tiles LEFT and RIGHT with the next two of b. */
#define ADD_PRODUCTS(LEFT, RIGHT, GET_RIGHT) \
  do {                                       \
    _tile_loadd(6, b, 64);                   \
    GET_RIGHT;                               \
    _tile_loadd(7, b + TILE, 64);            \
    b += 2 * TILE;                           \
    _tile_dpbf16ps(0, LEFT, 6);              \
    _tile_dpbf16ps(1, LEFT, 7);              \
    _tile_dpbf16ps(2, RIGHT, 6);             \
    _tile_dpbf16ps(3, RIGHT, 7);             \
  } while (0)

/* So many times: of a and of what lies `apart` from it, and then of what lies `step` further. */
INLINE void multiply(size count, const element *a, size apart, size step, const element *b) {
  for (; count > 0; count--, a += step) {
    _tile_loadd(4, a, 64);
    ADD_PRODUCTS(4, 5, _tile_loadd(5, a + apart, 64));
  }
}

/* Where they lie as far apart as the steps are: what is right is left the next time, and loaded once.
   The first or the last may be outside, which is zeros. */
INLINE void slide(size count, const element *a, size step, const element *b, int begins_outside,
                  int ends_outside) {
  if (begins_outside) _tile_zero(4);
  else _tile_loadd(4, a, 64);
  a += step, count -= ends_outside;
  for (; count >= 2; count -= 2, a += 2 * step) {
    ADD_PRODUCTS(4, 5, _tile_loadd(5, a, 64));
    ADD_PRODUCTS(5, 4, _tile_loadd(4, a + step, 64));
  }
  if (count > 0) {
    ADD_PRODUCTS(4, 5, _tile_loadd(5, a, 64));
    if (ends_outside) ADD_PRODUCTS(5, 4, _tile_zero(4));
  } else if (ends_outside) ADD_PRODUCTS(4, 5, _tile_zero(5));
}

/* A store takes 0.3 us longer if there was none for 0.7 us, which are 34 steps of four products. So
   there is one of no use after some steps, to where sums are stored later. */
INLINE size keep_storing(size steps, float *sums) {
  if (steps < 12) return steps;
  _tile_stored(7, sums, 64);
  return 0;
}

/* Weights of CHANNELS outputs (rows, so many floats apart) and inputs, rounded, as two tiles of pairs:
   of inputs, for the products that give outputs, or of outputs, for those that give the gradient of
   inputs. What comes next in a row is asked of the memory meanwhile. */
enum { AHEAD = 2 * CHANNELS };
INLINE raw rounded_at(const float *weight) {
  __builtin_prefetch(weight + AHEAD);
  return rounded(load(weight));
}
INLINE void pair_inputs(const float *weight, size apart, bits *tiles) {
  for (int half = 0; half < 2; half++, tiles += IMAGES) {
    UNROLL for (int row = 0; row < IMAGES; row++, weight += apart)
      tiles[row] = side_by_side(rounded_at(weight), rounded_at(weight + HALF));
    transpose(tiles);
  }
}
INLINE void pair_outputs(const float *weight, size apart, bits *tiles) {
  for (int pair = 0; pair < IMAGES; pair++, weight += 2 * apart)
    for (int half = 0; half < 2; half++)
      tiles[half * IMAGES + pair] =
          in_pairs(rounded_at(weight + half * HALF), rounded_at(weight + apart + half * HALF));
}
