/* Max pooling of 2 x 2: see pooling.py. Maps are (n, h, w, c) in memory, y (n, h / 2, w / 2, c). */

void forward(size threads, size n, size h, size w, size c, const element *x, element *y,
             uint8_t *choice) {
#pragma omp parallel for num_threads(threads)
  for (size row = 0; row < n * (h / 2); row++) {
    size image = row / (h / 2), top = row % (h / 2) * 2, at = row * (w / 2) * c;
    pool_row(w, c, 0, sizeof *x, x + (image * h + top) * w * c, y + at, choice + at);
  }
}

void backward(size threads, size n, size h, size w, size c, const element *grad_y,
              const uint8_t *choice, element *grad_x) {
#pragma omp parallel for num_threads(threads)
  for (size row = 0; row < n * h; row++) {
    size image = row / h, pooled = row % h / 2, at = (image * (h / 2) + pooled) * (w / 2) * c;
    element *to = grad_x + row * w * c;
    if (pooled < h / 2) unpool_row(w, c, row % h % 2, grad_y + at, choice + at, sizeof *to, to);
    else memset(to, 0, w * c * sizeof(element)); /* in no window */
  }
}
