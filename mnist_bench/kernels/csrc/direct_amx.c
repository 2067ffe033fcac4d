/* What direct.c computes, in bfloat16 by the matrix unit AMX: images and kernels are rounded, sums are
   floats. PIXELS are CHANNELS.

   To a tile of 16 pixels and 16 outputs come the products of the taps, which may be one step of the
   unit: what surrounds these counts here. */

enum { GROUPS = TAPS / CHANNELS + 1 }; /* of CHANNELS taps, and the bias */

/* PIXELS of a row are a run. */
static size runs(shape s) { return (s.q + PIXELS - 1) / PIXELS; }
/* Rows that a pooling leaves over are not computed. */
static size rows_of(shape s) { return s.pool ? s.p / 2 * 2 : s.p; }

/* The rows that a row of outputs sees, column by column, so that what a pixel sees is one piece. */
enum { APART = STRIDE * KERNEL }; /* of one pixel's from the next's */
static size columns_size(shape s) { return runs(s) * PIXELS * APART + GROUPS * CHANNELS; }
static void fill_columns(shape s, const element *padded, element *columns) {
  for (size column = 0; column < (s.q - 1) * STRIDE + KERNEL; column++)
    for (int row = 0; row < KERNEL; row++)
      columns[column * KERNEL + row] = padded[row * padded_width(s) + column];
}

/* CHANNELS outputs: for each group of taps, which are in the order of `columns`, two tiles of pairs. */
static void fill_kernels(shape s, const float *kernels, bits *tiles) {
  for (int tap = 0; tap < GROUPS * CHANNELS; tap += 2)
    for (int half = 0; half < 2; half++) {
      raw pair[2] = {{0}, {0}};
      for (int i = tap; i < tap + 2 && i < TAPS; i++) {
        size row = i % KERNEL, column = i / KERNEL;
        pair[i - tap] = rounded(load(kernels + (row * KERNEL + column) * s.k + half * HALF));
      }
      tiles[tap / CHANNELS * 2 * IMAGES + half * IMAGES + tap % CHANNELS / 2] =
          in_pairs(pair[0], pair[1]);
    }
}

/* A row of CHANNELS outputs: HALF of them for each pixel, and the others so many floats after. Whole
   runs are written, of which what is beyond the row is of no use. */
static void sum_row(shape s, const element *columns, const element *kernels, const float *bias,
                    float *sums, size next) {
  settle();
  for (size run = 0; run < runs(s); run++, sums += PIXELS * HALF) {
    const element *a = columns + run * PIXELS * APART, *b = kernels;
    load_biases(bias);
    for (int group = 0; group < GROUPS; group++, a += CHANNELS) {
      _tile_loadd(4, a, APART * sizeof *a);
      ADD_PRODUCTS(4, 5, _tile_loadd(5, a + IMAGES * APART, APART * sizeof *a));
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + next, 64);
    _tile_stored(2, sums + SUMS, 64);
    _tile_stored(3, sums + next + SUMS, 64);
  }
}

/* y, and the choice of what follows. */
void forward(size threads, shape s, const element *x, const float *weight, const float *bias,
             element *y, uint8_t *choice) {
  size step = s.pool ? 2 : 1, output = epilogue_size(epilogue_of(s));
  size kernels_size = s.k * GROUPS * CHANNELS, maps_size = padded_area(s) + step * columns_size(s);
  size next = (step * s.q + PIXELS) * HALF;
  float *kernels = by_tap(s.k, weight, bias);
#pragma omp parallel for num_threads(threads)
  for (size me = 0; me < threads; me++) {
    configure();
    range mine = share(s.n, me, threads);
    float *sums = scratch(2 * next * sizeof *sums + (kernels_size + maps_size) * sizeof *x);
    element *tiles = (element *)(sums + 2 * next), *padded = tiles + kernels_size;
    element *columns = padded + padded_area(s);
    memset(columns, 0, step * columns_size(s) * sizeof *columns);
    for (size k = 0; k < s.k; k += CHANNELS)
      fill_kernels(s, kernels + k, (bits *)(tiles + k * GROUPS * CHANNELS));
    for (size n = mine.begin; n < mine.end; n++) {
      fill_padded(s, sizeof *x, x + n * s.h * s.w, padded);
      for (size row = 0; row < rows_of(s); row += step) {
        for (size i = 0; i < step; i++)
          fill_columns(s, padded + (row + i) * STRIDE * padded_width(s), columns + i * columns_size(s));
        for (size k = 0; k < s.k; k += CHANNELS) {
          for (size i = 0; i < step; i++)
            sum_row(s, columns + i * columns_size(s), tiles + k * GROUPS * CHANNELS, bias + k,
                    sums + i * s.q * HALF, next);
          epilogue part = {step, s.q, CHANNELS, HALF, next, s.k, s.pool, s.relu, 0};
          size at = n * output + row / step * (s.q / step) * s.k + k;
          finish(part, sums, y, choice, at);
        }
      }
    }
    _tile_release();
  }
  free(kernels);
}

/* What the taps see of a run of pixels, CHANNELS taps in two tiles (IMAGES, PIXELS) of each run, and ones
   for the bias. */
static size taps_size(shape s) { return rows_of(s) * runs(s) * 2 * TILE; }
static void fill_taps(shape s, const element *padded, element *taps) {
  const element one = 0x3f80;
  for (int tap = 0; tap <= TAPS; tap++) {
    element *to = taps + tap / CHANNELS * taps_size(s) + tap % CHANNELS * PIXELS;
    const element *from = padded + tap / KERNEL * padded_width(s) + tap % KERNEL;
    for (size row = 0; row < rows_of(s); row++, from += STRIDE * padded_width(s))
      for (size run = 0; run < runs(s); run++, to += 2 * TILE)
        for (int i = 0; i < PIXELS; i++) to[i] = tap < TAPS ? from[(run * PIXELS + i) * STRIDE] : one;
  }
}

/* The gradient of CHANNELS outputs of a row, in pairs of pixels: two tiles for each run. */
static void pair_row(shape s, const element *grad, bits *pairs) {
  for (size first = 0; first < s.q; first += PIXELS, grad += PIXELS * s.k, pairs += 2 * IMAGES) {
    pixels upper = {grad, s.q - first, s.k};
    pixels lower = {grad + IMAGES * s.k, larger(s.q - first - IMAGES, 0), s.k};
    fill_pairs(upper, lower, pairs);
  }
}

/* From the gradient of y those of kernels and biases. */
void backward(size threads, shape s, const element *x, const element *grad_y, const uint8_t *choice,
              float *grad_weight, float *grad_bias) {
  size step = s.pool ? 2 : 1, output = epilogue_size(epilogue_of(s)), row_size = s.q * s.k;
  size sums_size = GROUPS * CHANNELS * s.k, all_taps = GROUPS * taps_size(s);
  size all_pairs = rows_of(s) * runs(s) * s.k;
  epilogue part = {step, s.q, s.k, s.k, LANES, s.k, s.pool, s.relu, 0};
  float *grads = allocate(threads * (TAPS + 1) * s.k * sizeof *grads);
#pragma omp parallel for num_threads(threads)
  for (size me = 0; me < threads; me++) {
    configure();
    range mine = share(s.n, me, threads);
    size maps_size = all_taps + padded_area(s) + step * row_size;
    float *sums = scratch(sums_size * sizeof *sums + all_pairs * sizeof(bits) + maps_size * sizeof *x);
    bits *pairs = (bits *)(sums + sums_size);
    element *taps = (element *)(pairs + all_pairs), *padded = taps + all_taps;
    element *grad = padded + padded_area(s);
    memset(sums, 0, sums_size * sizeof *sums);
    memset(taps, 0, all_taps * sizeof *taps);
    for (size n = mine.begin; n < mine.end; n++) {
      fill_padded(s, sizeof *x, x + n * s.h * s.w, padded);
      fill_taps(s, padded, taps);
      for (size row = 0; row < rows_of(s); row += step) {
        size at = n * output + row / step * (s.q / step) * s.k;
        unfinish(part, grad_y, choice, at, sizeof *grad, grad);
        for (size k = 0; k < s.k; k += CHANNELS)
          for (size i = 0; i < step; i++)
            pair_row(s, grad + i * row_size + k,
                     pairs + ((k / CHANNELS * rows_of(s) + row + i) * runs(s)) * 2 * IMAGES);
      }
      settle();
      for (size k = 0; k < s.k; k += CHANNELS)
        for (size group = 0; group < GROUPS; group++) {
          float *here = sums + (k * GROUPS + group * CHANNELS) * CHANNELS;
          load_sums(here, here + 2 * SUMS);
          multiply(rows_of(s) * runs(s), taps + group * taps_size(s), TILE, 2 * TILE,
                   (element *)(pairs + k * rows_of(s) * runs(s)));
          store_sums(here, here + 2 * SUMS);
        }
    }
    float *to = grads + me * (TAPS + 1) * s.k;
    for (int tap = 0; tap <= TAPS; tap++)
      for (size k = 0; k < s.k; k += HALF, to += HALF) {
        size group = k / CHANNELS * GROUPS + tap / CHANNELS;
        size tile = group * 4 + tap % CHANNELS / IMAGES * 2 + k % CHANNELS / HALF;
        store(to, load(sums + tile * SUMS + tap % IMAGES * HALF));
      }
    _tile_release();
  }
  from_taps(threads, s.k, grads, grad_weight, grad_bias);
  free(grads);
}
