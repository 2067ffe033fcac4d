/* The direct sum for images of one channel: see direct.py. Outputs are a multiple of 32. */

#include <omp.h>

enum { VECTORS = 2, CHANNELS = VECTORS * LANES };

/* PIXELS outputs of a row, CHANNELS of each; `count` of them are written. */
INLINE void convolve(shape s, const float *x, const float *kernels, size count, float *y) {
  vector sum[PIXELS][VECTORS];
  UNROLL for (int i = 0; i < PIXELS; i++)
    UNROLL for (int v = 0; v < VECTORS; v++) sum[i][v] = load(kernels + TAPS * s.k + v * LANES);
  for (int row = 0; row < KERNEL; row++, x += padded_width(s))
    for (int column = 0; column < KERNEL; column++, kernels += s.k) {
      vector weights[VECTORS];
      UNROLL for (int v = 0; v < VECTORS; v++) weights[v] = load(kernels + v * LANES);
      UNROLL for (int i = 0; i < PIXELS; i++)
        UNROLL for (int v = 0; v < VECTORS; v++) sum[i][v] += x[column + i * STRIDE] * weights[v];
    }
  UNROLL for (int i = 0; i < PIXELS; i++)
    UNROLL for (int v = 0; v < VECTORS; v++)
      if (i < count) store(y + i * s.k + v * LANES, sum[i][v]);
}

/* y, and the choice of what follows. */
void forward(size threads, shape s, const float *x, const float *weight, const float *bias, element *y,
             uint8_t *choice) {
  epilogue e = epilogue_of(s);
  float *kernels = by_tap(s.k, weight, bias);
  float *images = allocate(threads * padded_area(s) * sizeof(float));
  float *maps = allocate(threads * s.p * s.q * s.k * sizeof(float));
#pragma omp parallel num_threads(threads)
  {
    float *image = images + omp_get_thread_num() * padded_area(s);
    float *map = maps + omp_get_thread_num() * s.p * s.q * s.k;
#pragma omp for schedule(static)
    for (size n = 0; n < s.n; n++) {
      fill_padded(s, sizeof *x, x + n * s.h * s.w, image);
      for (size row = 0; row < s.p; row++)
        for (size column = 0; column < s.q; column += PIXELS)
          for (size k = 0; k < s.k; k += CHANNELS)
            convolve(s, image + (row * padded_width(s) + column) * STRIDE, kernels + k,
                     s.q - column, map + (row * s.q + column) * s.k + k);
      finish(e, map, y, choice, n * epilogue_size(e));
    }
  }
  free(kernels), free(images), free(maps);
}

/* To the gradient of kernels and biases, what a row of outputs adds, CHANNELS of each. */
INLINE void add_gradient(shape s, const float *x, const float *grad, float *sums) {
  vector bias[VECTORS] = {0};
  for (size i = 0; i < s.q; i++)
    UNROLL for (int v = 0; v < VECTORS; v++) bias[v] += load(grad + i * s.k + v * LANES);
  UNROLL for (int v = 0; v < VECTORS; v++) {
    float *to = sums + TAPS * s.k + v * LANES;
    store(to, load(to) + bias[v]);
  }
  for (int row = 0; row < KERNEL; row++, x += padded_width(s)) {
    vector sum[KERNEL][VECTORS];
    UNROLL for (int tap = 0; tap < KERNEL; tap++)
      UNROLL for (int v = 0; v < VECTORS; v++) sum[tap][v] = (vector){0};
    for (size i = 0; i < s.q; i++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        vector g = load(grad + i * s.k + v * LANES);
        UNROLL for (int tap = 0; tap < KERNEL; tap++) sum[tap][v] += x[i * STRIDE + tap] * g;
      }
    UNROLL for (int tap = 0; tap < KERNEL; tap++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        float *to = sums + (row * KERNEL + tap) * s.k + v * LANES;
        store(to, load(to) + sum[tap][v]);
      }
  }
}

/* From the gradient of y those of kernels and biases. */
void backward(size threads, shape s, const float *x, const element *grad_y, const uint8_t *choice,
              float *grad_weight, float *grad_bias) {
  epilogue e = epilogue_of(s);
  size all = (TAPS + 1) * s.k;
  float *grads = calloc(threads * all, sizeof(float));
  float *images = allocate(threads * padded_area(s) * sizeof(float));
  float *sums_of_image = allocate(threads * all * sizeof(float)); /* which rounds less */
  float *maps = allocate(threads * s.p * s.q * s.k * sizeof(float));
#pragma omp parallel num_threads(threads)
  {
    size me = omp_get_thread_num();
    float *image = images + me * padded_area(s), *sums = sums_of_image + me * all;
    float *grad = maps + me * s.p * s.q * s.k;
#pragma omp for schedule(static)
    for (size n = 0; n < s.n; n++) {
      fill_padded(s, sizeof *x, x + n * s.h * s.w, image);
      unfinish(e, grad_y, choice, n * epilogue_size(e), sizeof *grad, grad);
      memset(sums, 0, all * sizeof(float));
      for (size row = 0; row < s.p; row++)
        for (size k = 0; k < s.k; k += CHANNELS)
          add_gradient(s, image + row * STRIDE * padded_width(s), grad + row * s.q * s.k + k, sums + k);
      for (size i = 0; i < all; i += LANES)
        store(grads + me * all + i, load(grads + me * all + i) + load(sums + i));
    }
  }
  from_taps(threads, s.k, grads, grad_weight, grad_bias);
  free(grads), free(images), free(sums_of_image), free(maps);
}
