/* Max pooling of 2 x 2: see pooling.py. Maps are (n, h, w, c) in memory, y (n, h / 2, w / 2, c). */

void forward(size threads, size n, size h, size w, size c, const element *x, element *y,
             uint8_t *choice) {
  epilogue e = {2, w, c, c, LANES, c, 1, 0, 0};
#pragma omp parallel for num_threads(threads)
  for (size row = 0; row < n * (h / 2); row++) {
    size image = row / (h / 2), top = row % (h / 2) * 2, at = row * (w / 2) * c;
    pool_row(e, sizeof *x, x + (image * h + top) * w * c, y + at, choice + at);
  }
}

void backward(size threads, size n, size h, size w, size c, const element *grad_y,
              const uint8_t *choice, element *grad_x) {
  size parts = (h + 1) / 2; /* the last row of an odd number is in no window */
#pragma omp parallel for num_threads(threads)
  for (size part = 0; part < n * parts; part++) {
    size image = part / parts, top = part % parts * 2;
    epilogue e = {top + 1 < h ? 2 : 1, w, c, c, LANES, c, 1, 0, 0};
    size at = (image * (h / 2) + top / 2) * (w / 2) * c;
    unfinish(e, grad_y, choice, at, sizeof *grad_x, grad_x + (image * h + top) * w * c);
  }
}
