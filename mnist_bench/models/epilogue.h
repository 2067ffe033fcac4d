/* What follows a convolution: a max pooling of 2 x 2, a ReLU. Maps are (h, w, c) in memory, and c is a
   multiple of 16. */

#include <string.h>

enum { WINDOW = 4, NONE = WINDOW };
typedef uint8_t choices __attribute__((vector_size(LANES), aligned(1)));

/* What a ReLU lets pass: x where its output y is positive, or no number. */
INLINE vector pass(vector x, vector y) { return (vector)((bits)x & ~(bits)(y <= 0)); }

/* A row of y (w / 2, c) from two rows of x (w, c); and which pixel of its window each value is: the
   first of equals, NONE if the ReLU stops it. */
INLINE void pool_row(size w, size c, size relu, const element *x, element *y, uint8_t *choice) {
  for (size column = 0; column < w / 2; column++)
    for (size channel = 0; channel < c; channel += LANES) {
      const element *corner = x + column * 2 * c + channel;
      vector best = read(corner);
      bits index = {0};
      UNROLL for (int i = 1; i < WINDOW; i++) {
        vector next = read(corner + (i / 2 * w + i % 2) * c);
        bits better = (next > best) | (next != next); /* NaN is, as it is for PyTorch */
        best = (vector)choose(better, (bits)next, (bits)best);
        index = choose(better, (bits){0} + i, index);
      }
      if (relu) index = choose(best <= 0, (bits){0} + NONE, index), best = pass(best, best);
      write(y + column * c + channel, best);
      *(choices *)(choice + column * c + channel) = __builtin_convertvector(index, choices);
    }
}

/* The gradient of row 0 or 1 of x from that of y: zeros but for the chosen pixels. */
INLINE void unpool_row(size w, size c, size row, const element *grad_y, const uint8_t *choice,
                       element *grad_x) {
  for (size column = 0; column < w / 2; column++)
    for (size channel = 0; channel < c; channel += LANES) {
      raw grad = *(const raw *)(grad_y + column * c + channel);
      raw index = __builtin_convertvector(*(const choices *)(choice + column * c + channel), raw);
      for (int side = 0; side < 2; side++)
        *(raw *)(grad_x + (column * 2 + side) * c + channel) =
            grad & (raw)(index == (element_bits)(row * 2 + side));
    }
  if (w % 2) memset(grad_x + (w - 1) * c, 0, c * sizeof(element)); /* in no window */
}

/* What follows the convolution of one map, done while that is in the cache. */
typedef struct { size h, w, c, pool, relu; } epilogue;

static size epilogue_size(epilogue e) {
  return (e.pool ? (e.h / 2) * (e.w / 2) : e.h * e.w) * e.c;
}

/* y from x, and the choice of a pooling, (h / 2, w / 2, c). */
static void finish(epilogue e, const element *x, element *y, uint8_t *choice) {
  size row_x = e.w * e.c, row_y = e.w / 2 * e.c;
  if (e.pool)
    for (size row = 0; row < e.h / 2; row++)
      pool_row(e.w, e.c, e.relu, x + row * 2 * row_x, y + row * row_y, choice + row * row_y);
  else
    for (size i = 0; i < e.h * row_x; i += LANES) {
      vector value = read(x + i);
      write(y + i, e.relu ? pass(value, value) : value);
    }
}

/* The gradient of x from that of y; y itself is asked by a ReLU without a pooling. */
static void unfinish(epilogue e, const element *grad_y, const element *y, const uint8_t *choice,
                     element *grad_x) {
  size row_x = e.w * e.c, row_y = e.w / 2 * e.c;
  if (e.pool)
    for (size row = 0; row < e.h; row++) {
      size at = row / 2 * row_y;
      if (row / 2 == e.h / 2) memset(grad_x + row * row_x, 0, row_x * sizeof(element));
      else unpool_row(e.w, e.c, row % 2, grad_y + at, choice + at, grad_x + row * row_x);
    }
  else
    for (size i = 0; i < e.h * row_x; i += LANES) {
      vector grad = read(grad_y + i);
      write(grad_x + i, e.relu ? pass(grad, read(y + i)) : grad);
    }
}
