/* What follows a convolution: a max pooling of 2 x 2, a ReLU. */

enum { WINDOW = 4, NONE = WINDOW };
typedef uint8_t choices __attribute__((vector_size(LANES), aligned(1)));

/* From a map x (h, w, c) to y, of a multiple of 16 channels; without a pooling of 32, which may be
   written past the caches. A pixel of them lies x_step or y_step values from the next, as they may be
   some of all channels; in x, 16 of them x_next from the next 16. */
typedef struct { size h, w, c, x_step, x_next, y_step, pool, relu, past_caches; } epilogue;

/* A convolution of n maps (h, w, c) into (p, q, k), with so many zeros above and to the left, and what
   follows: a pooling, a ReLU. */
typedef struct { size n, h, w, c, p, q, k, padding, pool, relu; } shape;
static epilogue epilogue_of(shape s) {
  return (epilogue){s.p, s.q, s.k, s.k, LANES, s.k, s.pool, s.relu, 0};
}

/* A ReLU: x where it is positive, or no number. */
INLINE vector pass(vector x) { return (vector)((bits)x & ~(bits)(x <= 0)); }

/* Maps that lie in memory as elements, or as floats if that is the size of their values. */
INLINE vector get(size bytes, const void *map, size at) {
  return bytes == sizeof(float) ? load((const float *)map + at) : read((const element *)map + at);
}
/* Elements as they are in memory: from a float's upper half, if that is what they are, and zeros. */
INLINE void put(size bytes, void *map, size at, raw x) {
  if (bytes == sizeof(element)) *(raw *)((element *)map + at) = x;
  else store((float *)map + at, widened(x));
}
INLINE void clear(epilogue e, size pixels, size bytes, char *map) {
  for (size pixel = 0; pixel < pixels; pixel++)
    memset(map + pixel * e.x_step * bytes, 0, e.c * bytes);
}

/* A row of y from two rows of x, whose values have so many bytes; and which pixel of its window each
   value is: the first of equals, NONE if the ReLU stops it. */
INLINE void pool_row(epilogue e, size bytes, const void *x, element *y, uint8_t *choice) {
  for (size column = 0; column < e.w / 2; column++)
    for (size channel = 0; channel < e.c; channel += LANES) {
      size corner = column * 2 * e.x_step + channel / LANES * e.x_next, at = column * e.y_step + channel;
      vector best = get(bytes, x, corner);
      bits index = {0};
      UNROLL for (int i = 1; i < WINDOW; i++) {
        vector next = get(bytes, x, corner + (i / 2 * e.w + i % 2) * e.x_step);
        bits better = (next > best) | (next != next); /* NaN is, as it is for PyTorch */
        best = (vector)choose(better, (bits)next, (bits)best);
        index = choose(better, (bits){0} + i, index);
      }
      if (e.relu) index = choose(best <= 0, (bits){0} + NONE, index), best = pass(best);
      write(y + at, best);
      *(choices *)(choice + at) = __builtin_convertvector(index, choices);
    }
}

/* The gradient of two rows of x from that of y: zeros but for the chosen pixels. */
INLINE void unpool_rows(epilogue e, const element *grad_y, const uint8_t *choice, size bytes,
                        char *grad_x) {
  for (size column = 0; column < e.w / 2; column++)
    for (size channel = 0; channel < e.c; channel += LANES) {
      size at = column * e.y_step + channel;
      raw grad = *(const raw *)(grad_y + at);
      choices chosen = *(const choices *)(choice + at);
      UNROLL for (int i = 0; i < WINDOW; i++) {
        size pixel = i / 2 * e.w + column * 2 + i % 2;
        raw here = __builtin_convertvector(chosen == (uint8_t)i, raw);
        put(bytes, grad_x, pixel * e.x_step + channel / LANES * e.x_next, grad & here);
      }
    }
  for (size row = 0; row < 2; row++)
    if (e.w % 2) clear(e, 1, bytes, grad_x + (row * e.w + e.w - 1) * e.x_step * bytes);
}

static size epilogue_size(epilogue e) {
  return (e.pool ? (e.h / 2) * (e.w / 2) : e.h * e.w) * e.y_step;
}

/* 16 channels of a pixel, behind a ReLU, and bits for those that it lets pass. */
INLINE vector pass_some(epilogue e, const float *x, uint8_t *choice) {
  vector value = load(x);
  if (!e.relu) return value;
  uint16_t passing = _mm512_cmp_ps_mask((__m512)value, _mm512_setzero_ps(), _CMP_NLE_UQ);
  memcpy(choice, &passing, sizeof passing);
  return pass(value);
}

/* y, from `at` on, from x, which are floats still in the cache; and the choice: of a pooling a byte, of
   a ReLU without one a bit for each value of y. */
static void finish(epilogue e, const float *x, element *y, uint8_t *choice, size at) {
  size row_x = e.w * e.x_step, row_y = e.w / 2 * e.y_step;
  y += at;
  if (e.pool) {
    choice += at;
    for (size row = 0; row < e.h / 2; row++)
      pool_row(e, sizeof *x, x + row * 2 * row_x, y + row * row_y, choice + row * row_y);
  } else {
    choice += at / 8;
    for (size pixel = 0; pixel < e.h * e.w; pixel++)
      for (size channel = 0; channel < e.c; channel += 2 * LANES) {
        const float *from = x + pixel * e.x_step + channel / LANES * e.x_next;
        size to = pixel * e.y_step + channel;
        vector value = pass_some(e, from, choice + to / 8);
        vector next = pass_some(e, from + e.x_next, choice + (to + LANES) / 8);
        if (e.past_caches) stream(y + to, value, next);
        else write(y + to, value), write(y + to + LANES, next);
      }
  }
}

/* The gradient of x, whose values have so many bytes, from that of y, from `at` on, and the choice. */
INLINE void unfinish(epilogue e, const element *grad_y, const uint8_t *choice, size at, size bytes,
                     void *grad_x) {
  size row_x = e.w * e.x_step, row_y = e.w / 2 * e.y_step;
  if (e.pool) {
    for (size row = 0; row < e.h / 2; row++, at += row_y)
      unpool_rows(e, grad_y + at, choice + at, bytes, (char *)grad_x + row * 2 * row_x * bytes);
    if (e.h % 2) clear(e, e.w, bytes, (char *)grad_x + (e.h - 1) * row_x * bytes); /* in no window */
  } else
    for (size pixel = 0; pixel < e.h * e.w; pixel++, at += e.y_step)
      for (size channel = 0; channel < e.c; channel += LANES) {
        raw grad = *(const raw *)(grad_y + at + channel);
        uint16_t passing;
        if (e.relu) {
          memcpy(&passing, choice + (at + channel) / 8, sizeof passing);
          grad = keep(passing, grad);
        }
        put(bytes, grad_x, pixel * e.x_step + channel / LANES * e.x_next, grad);
      }
}
