/* Max pooling of 2 x 2: see pooling.py. Maps are channels_last, (n, h, w, c) in memory, and c is a
   multiple of 16. */

#include <string.h>

enum { PIXELS = 4 };
typedef uint8_t choices __attribute__((vector_size(LANES), aligned(1)));

/* y (n, h / 2, w / 2, c), and which of its four pixels each value is: the first of equals. */
void forward(size threads, size n, size h, size w, size c, const element *x, element *y,
             uint8_t *choice) {
#pragma omp parallel for num_threads(threads)
  for (size row = 0; row < n * (h / 2); row++)
    for (size column = 0; column < w / 2; column++)
      for (size channel = 0; channel < c; channel += LANES) {
        size image = row / (h / 2), top = row % (h / 2) * 2;
        const element *corner = x + ((image * h + top) * w + column * 2) * c + channel;
        vector best = read(corner);
        bits index = {0};
        UNROLL for (int pixel = 1; pixel < PIXELS; pixel++) {
          vector next = read(corner + (pixel / 2 * w + pixel % 2) * c);
          bits better = (next > best) | (next != next); /* NaN is, as it is for PyTorch */
          best = (vector)choose(better, (bits)next, (bits)best);
          index = choose(better, (bits){0} + pixel, index);
        }
        size at = (row * (w / 2) + column) * c + channel;
        write(y + at, best);
        *(choices *)(choice + at) = __builtin_convertvector(index, choices);
      }
}

/* The gradient of x from that of y: zeros but for the chosen pixels. */
void backward(size threads, size n, size h, size w, size c, const element *grad_y,
              const uint8_t *choice, element *grad_x) {
#pragma omp parallel for num_threads(threads)
  for (size row = 0; row < n * h; row++) {
    element *to = grad_x + row * w * c;
    size image = row / h, pooled = row % h / 2;
    if (pooled == h / 2 || w % 2) memset(to, 0, w * c * sizeof(element)); /* what no window has */
    if (pooled == h / 2) continue;
    for (size column = 0; column < w / 2; column++)
      for (size channel = 0; channel < c; channel += LANES) {
        size at = ((image * (h / 2) + pooled) * (w / 2) + column) * c + channel;
        raw grad = *(const raw *)(grad_y + at);
        raw index = __builtin_convertvector(*(const choices *)(choice + at), raw);
        for (int side = 0; side < 2; side++)
          *(raw *)(to + (column * 2 + side) * c + channel) =
              grad & (raw)(index == (element_bits)(row % h % 2 * 2 + side));
      }
  }
}
