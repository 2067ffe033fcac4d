/* What follows a convolution: a max pooling of 2 x 2, a ReLU. Maps are (h, w, c) in memory, and c
   is a multiple of 16. */

enum { WINDOW = 4, NONE = WINDOW };
typedef uint8_t choices __attribute__((vector_size(LANES), aligned(1)));

/* What a ReLU lets pass: x where its output y is positive, or no number. */
INLINE vector pass(vector x, vector y) { return (vector)((bits)x & ~(bits)(y <= 0)); }

/* Maps that lie in memory as elements, or as floats if that is the size of their values. */
INLINE vector get(size bytes, const void *map, size at) {
  return bytes == sizeof(float) ? load((const float *)map + at) : read((const element *)map + at);
}
INLINE void put(size bytes, void *map, size at, vector x) {
  if (bytes == sizeof(float)) store((float *)map + at, x);
  else write((element *)map + at, x);
}

/* A row of y (w / 2, c) from two rows of x (w, c), whose values have so many bytes; and which pixel of
   its window each value is: the first of equals, NONE if the ReLU stops it. */
INLINE void pool_row(size w, size c, size relu, size bytes, const void *x, element *y,
                     uint8_t *choice) {
  for (size column = 0; column < w / 2; column++)
    for (size channel = 0; channel < c; channel += LANES) {
      size corner = column * 2 * c + channel;
      vector best = get(bytes, x, corner);
      bits index = {0};
      UNROLL for (int i = 1; i < WINDOW; i++) {
        vector next = get(bytes, x, corner + (i / 2 * w + i % 2) * c);
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
                       size bytes, void *grad_x) {
  for (size column = 0; column < w / 2; column++)
    for (size channel = 0; channel < c; channel += LANES) {
      bits grad = (bits)read(grad_y + column * c + channel);
      bits index = __builtin_convertvector(*(const choices *)(choice + column * c + channel), bits);
      for (int side = 0; side < 2; side++)
        put(bytes, grad_x, (column * 2 + side) * c + channel,
            (vector)(grad & (index == (uint32_t)(row * 2 + side))));
    }
  if (w % 2) memset((char *)grad_x + (w - 1) * c * bytes, 0, c * bytes); /* in no window */
}

/* What follows the convolution of one image, whose sums x are floats and still in the cache. */
typedef struct { size h, w, c, pool, relu; } epilogue;

static size epilogue_size(epilogue e) {
  return (e.pool ? (e.h / 2) * (e.w / 2) : e.h * e.w) * e.c;
}

/* y from x, and the choice of a pooling, (h / 2, w / 2, c). */
static void finish(epilogue e, const float *x, element *y, uint8_t *choice) {
  size row_x = e.w * e.c, row_y = e.w / 2 * e.c;
  if (e.pool)
    for (size row = 0; row < e.h / 2; row++)
      pool_row(e.w, e.c, e.relu, sizeof *x, x + row * 2 * row_x, y + row * row_y,
               choice + row * row_y);
  else
    for (size i = 0; i < e.h * row_x; i += LANES) {
      vector value = load(x + i);
      write(y + i, e.relu ? pass(value, value) : value);
    }
}

/* The gradient of x from that of y; y itself is asked by a ReLU without a pooling. */
static void unfinish(epilogue e, const element *grad_y, const element *y, const uint8_t *choice,
                     float *grad_x) {
  size row_x = e.w * e.c, row_y = e.w / 2 * e.c;
  if (e.pool)
    for (size row = 0; row < e.h; row++) {
      size at = row / 2 * row_y;
      if (row / 2 == e.h / 2) memset(grad_x + row * row_x, 0, row_x * sizeof *grad_x);
      else
        unpool_row(e.w, e.c, row % 2, grad_y + at, choice + at, sizeof *grad_x,
                   grad_x + row * row_x);
    }
  else
    for (size i = 0; i < e.h * row_x; i += LANES) {
      vector grad = read(grad_y + i);
      store(grad_x + i, e.relu ? pass(grad, read(y + i)) : grad);
    }
}
