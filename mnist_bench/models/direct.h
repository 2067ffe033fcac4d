/* Kernels of images of one channel: KERNEL is the size of one. */

enum { TAPS = KERNEL * KERNEL };

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
