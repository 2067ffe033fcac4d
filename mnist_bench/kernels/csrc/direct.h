/* What the two ways of computing images of one channel share: see direct.py, which writes a line before
   this: the sizes KERNEL, STRIDE and PIXELS, outputs of a row that are computed together. */

enum { TAPS = KERNEL * KERNEL };

/* An image between zeros, on the right so many that its outputs are a multiple of PIXELS. Its pixels
   have so many bytes. */
static size padded_width(shape s) { return (s.q + PIXELS - 1) / PIXELS * PIXELS * STRIDE + KERNEL; }
static size padded_area(shape s) { return (s.p * STRIDE + KERNEL) * padded_width(s); }
static void fill_padded(shape s, size bytes, const void *x, void *padded) {
  memset(padded, 0, padded_area(s) * bytes);
  for (size row = 0; row < s.h; row++) {
    size to = (row + s.padding) * padded_width(s) + s.padding;
    memcpy((char *)padded + to * bytes, (const char *)x + row * s.w * bytes, s.w * bytes);
  }
}

/* Kernels (k, TAPS) and biases as a matrix, a row for each tap and one for the biases. */
static float *by_tap(size k, const float *weight, const float *bias) {
  float *rows = allocate((TAPS + 1) * k * sizeof *rows);
  for (size i = 0; i < k; i++)
    for (size tap = 0; tap <= TAPS; tap++)
      rows[tap * k + i] = tap < TAPS ? weight[i * TAPS + tap] : bias[i];
  return rows;
}

/* The sum of several such matrices, of gradients, in the order of kernels. */
static void from_taps(size parts, size k, const float *rows, float *weight, float *bias) {
  for (size i = 0; i < k; i++)
    for (size tap = 0; tap <= TAPS; tap++) {
      float sum = 0;
      for (size part = 0; part < parts; part++) sum += rows[(part * (TAPS + 1) + tap) * k + i];
      *(tap < TAPS ? weight + i * TAPS + tap : bias + i) = sum;
    }
}
