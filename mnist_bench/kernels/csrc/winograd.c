/* Winograd's convolution for AVX-512: see winograd.py, which compiles this and says what it computes.

   winograd.py writes a few lines before these: the sizes KERNEL, TILE, POINTS = TILE + KERNEL - 1 and
   BLOCK, tiles that are computed together, NOISE, and the matrices MAP (POINTS x POINTS), GRADIENT (POINTS
   x TILE) and WEIGHT (POINTS x KERNEL). Each has a row for every point: pairs of a and -a first, then
   0 if POINTS is even, and infinity last.

   Maps are channels_last, (N, H, W, C) in memory; their channels are multiples of 32. Everything is
   computed in float. A block of tiles goes all the way through while it is in the processor's cache:
   to the points, one product of matrices for each of POINTS x POINTS, and back. */

#include <omp.h>

enum { AREA = POINTS * POINTS, PAIRS = (POINTS - 1) / 2, ROWS = 6, PANEL = 64, PAD = 16 };

/* ---- Polynomials at points: a matrix or its transpose, along one axis ---------------------------- */

/* The even powers at a and -a are equal, the odd ones opposite. */
INLINE void to_points(const float *matrix, int length, const vector *in, vector *out, int step) {
  UNROLL for (int i = 0; i < POINTS; i++) {
    if (i < 2 * PAIRS && i % 2 == 1) continue;
    vector even = {0}, odd = {0};
    UNROLL for (int j = 0; j < length; j++) {
      float m = matrix[i * length + j];
      if (m != 0 && j % 2 == 0) even += m * in[j];
      if (m != 0 && j % 2 == 1) odd += m * in[j];
    }
    out[i * step] = even + odd;
    if (i < 2 * PAIRS) out[(i + 1) * step] = even - odd;
  }
}

INLINE void from_points(const float *matrix, int length, const vector *in, vector *out, int step) {
  UNROLL for (int j = 0; j < length; j++) {
    vector sum = {0};
    UNROLL for (int i = 0; i < POINTS; i++) {
      float m = matrix[i * length + j];
      if (m == 0 || (i < 2 * PAIRS && i % 2 == 1)) continue;
      if (i >= 2 * PAIRS) sum += m * in[i];
      else if (j % 2 == 0) sum += m * (in[i] + in[i + 1]);
      else sum += m * (in[i] - in[i + 1]);
    }
    out[j * step] = sum;
  }
}

/* Along both axes: what is read goes column by column to `half`, whose rows have POINTS vectors, and
   row by row on to where it is written. So only half the way is kept in memory. */

/* ---- Products of matrices, ROWS x 64 or 32 of the result in registers -------------------------- */

/* A matrix of kernels is stored in panels of PANEL columns, the last of which may be half as wide, as
   that is how it is read. This is where a row of a panel begins. */
static size panel_at(size rows, size columns, size row, size column) {
  size first = column / PANEL * PANEL, width = columns - first < PANEL ? columns - first : PANEL;
  return first * rows + row * width + column - first;
}

/* out (r, v * LANES) = left (r, depth) @ right (depth, v * LANES), or out += left.T @ right. The
   number after each says how far its rows lie apart. */
INLINE void product(int transposed, int r, int v, size depth, const float *left, size left_row,
                    const float *right, size right_row, float *out, size out_row) {
  vector sum[ROWS][PANEL / LANES];
  UNROLL for (int i = 0; i < r; i++)
    UNROLL for (int j = 0; j < v; j++) sum[i][j] = (vector){0};
  for (size d = 0; d < depth; d++) {
    vector b[PANEL / LANES];
    UNROLL for (int j = 0; j < v; j++) b[j] = load(right + d * right_row + j * LANES);
    UNROLL for (int i = 0; i < r; i++) {
      float a = transposed ? left[d * left_row + i] : left[i * left_row + d];
      UNROLL for (int j = 0; j < v; j++) sum[i][j] += a * b[j];
    }
  }
  UNROLL for (int i = 0; i < r; i++)
    UNROLL for (int j = 0; j < v; j++) {
      float *to = out + i * out_row + j * LANES;
      store(to, transposed ? load(to) + sum[i][j] : sum[i][j]);
    }
}

/* out (rows, columns) = left (rows, depth) @ right (depth, columns), which is in panels. Up to
   ROWS - 1 rows too many are read and written. */
static void multiply(size rows, size depth, size columns, const float *left, const float *right,
                     float *out) {
  for (size column = 0; column < columns; column += PANEL)
    for (size row = 0; row < rows; row += ROWS) {
      const float *a = left + row * depth, *b = right + panel_at(depth, columns, 0, column);
      float *c = out + row * columns + column;
      if (columns - column >= PANEL) product(0, ROWS, 4, depth, a, depth, b, PANEL, c, columns);
      else product(0, ROWS, 2, depth, a, depth, b, PANEL / 2, c, columns);
    }
}

/* out (rows, columns), which is in panels, += left.T (rows, depth) @ right (depth, columns). */
static void multiply_transposed(size rows, size depth, size columns, const float *left,
                                const float *right, float *out) {
  for (size column = 0; column < columns; column += PANEL)
    for (size row = 0; row < rows; row += 4) {
      const float *a = left + row, *b = right + column;
      float *c = out + panel_at(rows, columns, row, column);
      if (columns - column >= PANEL) product(1, 4, 4, depth, a, rows, b, columns, c, PANEL);
      else product(1, 4, 2, depth, a, rows, b, columns, c, PANEL / 2);
    }
}

/* ---- Tiles of maps ------------------------------------------------------------------------------ */

static size tiles_across(size length) { return (length + TILE - 1) / TILE; }
static size tiles_per_image(shape s) { return tiles_across(s.p) * tiles_across(s.q); }

/* Tiles of some images at the points: for each of AREA, a matrix (tiles, channels), and some padding
   that keeps these matrices from meeting in one set of the cache. */
typedef struct { float *values; size channels, matrix; } block;

static size block_floats(size tiles, size channels) { return AREA * (tiles * channels + PAD); }
static block block_at(float *values, size tiles, size channels) {
  return (block){values, channels, tiles * channels + PAD};
}
static float *matrix_of(block b, size point) { return b.values + point * b.matrix; }
INLINE float *value_at(block b, int point, size tile, size channel) {
  return matrix_of(b, point) + tile * b.channels + channel;
}

/* The second half of the way to the points. */
INLINE void store_points(const float *matrix, int length, const vector *half, block out, size tile,
                         size channel) {
  UNROLL for (int i = 0; i < POINTS; i++) {
    vector row[POINTS];
    to_points(matrix, length, half + i * POINTS, row, 1);
    UNROLL for (int j = 0; j < POINTS; j++)
      store(value_at(out, i * POINTS + j, tile, channel), row[j]);
  }
}

/* The first half of the way back, and the largest magnitude at a point. */
INLINE vector load_points(const float *matrix, int length, block in, size tile, size channel,
                          vector *half) {
  vector largest = {0};
  UNROLL for (int j = 0; j < POINTS; j++) {
    vector column[POINTS];
    UNROLL for (int i = 0; i < POINTS; i++) {
      column[i] = load(value_at(in, i * POINTS + j, tile, channel));
      vector absolute = magnitude(column[i]);
      largest = (vector)choose(absolute > largest, (bits)absolute, (bits)largest);
    }
    from_points(matrix, length, column, half + j, POINTS);
  }
  return largest;
}

/* Addresses of length x length pixels of a map, of `outside` where there are none. A pixel has so
   many bytes. */
static void find_pixels(void *map, size height, size width, size bytes, size top, size left,
                        int length, void *outside, void **pixels) {
  for (int i = 0; i < length; i++)
    for (int j = 0; j < length; j++) {
      size row = top + i, column = left + j;
      int inside = row >= 0 && row < height && column >= 0 && column < width;
      pixels[i * POINTS + j] = inside ? (char *)map + (row * width + column) * bytes : outside;
    }
}

static void input_to_points(shape s, element *x, void *zeros, size tile, block out) {
  for (size row = 0; row < s.p; row += TILE)
    for (size column = 0; column < s.q; column += TILE, tile++) {
      void *pixels[AREA];
      find_pixels(x, s.h, s.w, s.c * sizeof *x, row - s.padding, column - s.padding, POINTS, zeros,
                  pixels);
      for (size c = 0; c < s.c; c += LANES) {
        vector half[AREA];
        UNROLL for (int j = 0; j < POINTS; j++) {
          vector column[POINTS];
          UNROLL for (int i = 0; i < POINTS; i++)
            column[i] = read((element *)pixels[i * POINTS + j] + c);
          to_points(*MAP, POINTS, column, half + j, POINTS);
        }
        store_points(*MAP, POINTS, half, out, tile, c);
      }
    }
}

/* The gradient of the output at the points; `bias` gets its sum. */
static void gradient_to_points(shape s, float *grad, float *zeros, size tile, block out,
                               float *bias) {
  for (size row = 0; row < s.p; row += TILE)
    for (size column = 0; column < s.q; column += TILE, tile++) {
      void *pixels[AREA];
      find_pixels(grad, s.p, s.q, s.k * sizeof *grad, row, column, TILE, zeros, pixels);
      for (size k = 0; k < s.k; k += LANES) {
        vector half[AREA], sum = load(bias + k);
        UNROLL for (int j = 0; j < TILE; j++) {
          vector column[TILE];
          UNROLL for (int i = 0; i < TILE; i++)
            sum += column[i] = load((float *)pixels[i * POINTS + j] + k);
          to_points(*GRADIENT, TILE, column, half + j, POINTS);
        }
        store(bias + k, sum);
        store_points(*GRADIENT, TILE, half, out, tile, k);
      }
    }
}

/* What is smaller than its rounding error becomes zero: sums of zeros, over a background, are zeros
   for whoever adds directly, and noise of either sign would tip the ReLU behind. */
static void output_from_points(shape s, block in, size tile, const float *bias, float *y) {
  for (size row = 0; row < s.p; row += TILE)
    for (size column = 0; column < s.q; column += TILE, tile++) {
      void *pixels[AREA];
      find_pixels(y, s.p, s.q, s.k * sizeof *y, row, column, TILE, NULL, pixels);
      for (size k = 0; k < s.k; k += LANES) {
        vector half[AREA], constant = load(bias + k);
        vector noise = NOISE * load_points(*GRADIENT, TILE, in, tile, k, half);
        UNROLL for (int i = 0; i < TILE; i++) {
          vector row[TILE];
          from_points(*GRADIENT, TILE, half + i * POINTS, row, 1);
          UNROLL for (int j = 0; j < TILE; j++) {
            vector clean = (vector)((bits)row[j] & ~(bits)(magnitude(row[j]) < noise));
            float *to = pixels[i * POINTS + j];
            if (to) store(to + k, clean + constant);
          }
        }
      }
    }
}

/* Tiles of the input overlap: they are added up, as floats, in `sums` (h, w, c). */
static void input_gradient_from_points(shape s, block in, size tile, float *sums, element *grad) {
  memset(sums, 0, s.h * s.w * s.c * sizeof(float));
  for (size row = -s.padding; row < s.p - s.padding; row += TILE)
    for (size column = -s.padding; column < s.q - s.padding; column += TILE, tile++)
      for (size c = 0; c < s.c; c += LANES) {
        vector half[AREA];
        load_points(*MAP, POINTS, in, tile, c, half);
        UNROLL for (int i = 0; i < POINTS; i++) {
          vector out[POINTS];
          from_points(*MAP, POINTS, half + i * POINTS, out, 1);
          UNROLL for (int j = 0; j < POINTS; j++) {
            if (row + i < 0 || row + i >= s.h || column + j < 0 || column + j >= s.w) continue;
            float *to = sums + ((row + i) * s.w + column + j) * s.c + c;
            store(to, load(to) + out[j]);
          }
        }
      }
  for (size i = 0; i < s.h * s.w * s.c; i += LANES) write(grad + i, load(sums + i));
}

/* ---- Kernels ------------------------------------------------------------------------------------ */

/* The elements (row, column, pixel) of kernels lie row * step[0] + column * step[1] + pixel * step[2]
   from the first on. */

/* Kernels at the points: for each of AREA, a matrix (rows, columns). */
void kernels_to_points(size rows, size columns, const float *weight, const size *step, float *out) {
#pragma omp parallel for
  for (size first = 0; first < rows; first += LANES) /* 16 x 16 kernels share lines of the cache */
    for (size column = 0; column < columns; column += LANES)
      for (size row = first; row < first + LANES; row++) {
        size at = panel_at(rows, columns, row, column);
        vector half[AREA];
        for (int j = 0; j < KERNEL; j++) {
          vector taps[KERNEL];
          for (int i = 0; i < KERNEL; i++)
            for (int lane = 0; lane < LANES; lane++)
              taps[i][lane] =
                  weight[row * step[0] + (column + lane) * step[1] + (i * KERNEL + j) * step[2]];
          to_points(*WEIGHT, KERNEL, taps, half + j, POINTS);
        }
        store_points(*WEIGHT, KERNEL, half, (block){out, 0, rows * columns}, 0, at);
      }
}

/* The way back, of the sum of `parts` such stacks of matrices. */
void kernels_from_points(size parts, size rows, size columns, const float *in, const size *step,
                         float *weight) {
#pragma omp parallel for
  for (size first = 0; first < rows; first += LANES)
    for (size column = 0; column < columns; column += LANES)
      for (size row = first; row < first + LANES; row++) {
        size at = panel_at(rows, columns, row, column);
        vector half[AREA];
        for (int j = 0; j < POINTS; j++) {
          vector sums[POINTS] = {0};
          for (int i = 0; i < POINTS; i++)
            for (size part = 0; part < parts; part++)
              sums[i] += load(in + (part * AREA + i * POINTS + j) * rows * columns + at);
          from_points(*WEIGHT, KERNEL, sums, half + j, POINTS);
        }
        for (int i = 0; i < KERNEL; i++) {
          vector taps[KERNEL];
          from_points(*WEIGHT, KERNEL, half + i * POINTS, taps, 1);
          for (int j = 0; j < KERNEL; j++)
            for (int lane = 0; lane < LANES; lane++)
              weight[row * step[0] + (column + lane) * step[1] + (i * KERNEL + j) * step[2]] =
                  taps[j][lane];
        }
      }
}

/* ---- The convolution ---------------------------------------------------------------------------- */

/* Small stacks of kernels: each thread takes blocks of images of its own, and for the gradient of the
   kernels a stack of its own, to be added up later. Large ones (`together`) would not stay in the
   cache: all threads take the same block, each some of its images and then some of the points. */
static size images_per_block(shape s, int together) {
  size images = (together ? LARGE_BLOCK : BLOCK) / tiles_per_image(s);
  return images < 1 ? 1 : images < s.n ? images : s.n;
}

/* For each thread the map of an image, or its gradient. */
static float *allocate_maps(size threads, shape s) {
  return allocate(threads * s.p * s.q * s.k * sizeof(float));
}

#define FOR(i, range) for (size i = (range).begin; i < (range).end; i++)
#define MEET if (together) { _Pragma("omp barrier") }

/* From x, kernels (AREA, c, k) and biases, y and the choice of what follows. */
void forward(size threads, size together, shape s, element *x, const float *kernels,
             const float *bias, element *y, uint8_t *choice) {
  epilogue e = epilogue_of(s);
  size per_image = tiles_per_image(s), images = images_per_block(s, together);
  size tiles = images * per_image + ROWS, blocks = together ? 1 : threads;
  float *inputs = allocate(blocks * block_floats(tiles, s.c) * sizeof(float));
  float *outputs = allocate(blocks * block_floats(tiles, s.k) * sizeof(float));
  element *zeros = calloc(s.c, sizeof(element));
  float *maps = allocate_maps(threads, s);
#pragma omp parallel num_threads(threads)
  {
    size me = omp_get_thread_num(), all = omp_get_num_threads();
    size own = together ? 0 : me, part = together ? me : 0, parts = together ? all : 1;
    float *map = maps + me * s.p * s.q * s.k;
    block input = block_at(inputs + own * block_floats(tiles, s.c), tiles, s.c);
    block output = block_at(outputs + own * block_floats(tiles, s.k), tiles, s.k);
    range batch = together ? (range){0, s.n} : share(s.n, me, all), points = share(AREA, part, parts);
    for (size first = batch.begin; first < batch.end; first += images) {
      size count = batch.end - first < images ? batch.end - first : images;
      range mine = share(count, part, parts);
      FOR(i, mine)
        input_to_points(s, x + (first + i) * s.h * s.w * s.c, zeros, i * per_image, input);
      MEET
      FOR(i, points)
        multiply(count * per_image, s.c, s.k, matrix_of(input, i), kernels + i * s.c * s.k,
                 matrix_of(output, i));
      MEET
      FOR(i, mine) {
        output_from_points(s, output, i * per_image, bias, map);
        finish(e, map, y, choice, (first + i) * epilogue_size(e));
      }
    }
  }
  free(inputs), free(outputs), free(zeros), free(maps);
}

/* From the gradient of y, that of x (unless grad_x is NULL), of the bias and of the kernels at the
   points, zeros before: (AREA, c, k), or a stack of these for each thread unless `together`. kernels
   are (AREA, k, c). */
void backward(size threads, size together, shape s, element *x, const element *grad_y,
              const uint8_t *choice, const float *kernels, element *grad_x, float *grad_kernels,
              float *grad_bias) {
  epilogue e = epilogue_of(s);
  size per_image = tiles_per_image(s), images = images_per_block(s, together);
  size tiles = images * per_image + ROWS, blocks = together ? 1 : threads, map = s.h * s.w * s.c;
  float *inputs = allocate(blocks * block_floats(tiles, s.c) * sizeof(float));
  float *gradients = allocate(blocks * block_floats(tiles, s.k) * sizeof(float));
  float *sums = allocate(threads * map * sizeof(float));
  float *zeros = calloc(s.c + s.k, sizeof(float)), *biases = calloc(threads * s.k, sizeof(float));
  float *maps = allocate_maps(threads, s);
#pragma omp parallel num_threads(threads)
  {
    size me = omp_get_thread_num(), all = omp_get_num_threads();
    size own = together ? 0 : me, part = together ? me : 0, parts = together ? all : 1;
    float *grad = maps + me * s.p * s.q * s.k;
    block input = block_at(inputs + own * block_floats(tiles, s.c), tiles, s.c);
    block gradient = block_at(gradients + own * block_floats(tiles, s.k), tiles, s.k);
    float *own_kernels = grad_kernels + own * AREA * s.c * s.k;
    range batch = together ? (range){0, s.n} : share(s.n, me, all), points = share(AREA, part, parts);
    for (size first = batch.begin; first < batch.end; first += images) {
      size count = batch.end - first < images ? batch.end - first : images;
      range mine = share(count, part, parts);
      FOR(i, mine) {
        input_to_points(s, x + (first + i) * map, zeros, i * per_image, input);
        unfinish(e, grad_y, choice, (first + i) * epilogue_size(e), sizeof *grad, grad);
        gradient_to_points(s, grad, zeros, i * per_image, gradient, biases + me * s.k);
      }
      MEET
      FOR(i, points) {
        multiply_transposed(s.c, count * per_image, s.k, matrix_of(input, i), matrix_of(gradient, i),
                            own_kernels + i * s.c * s.k);
        if (grad_x)
          multiply(count * per_image, s.k, s.c, matrix_of(gradient, i), kernels + i * s.c * s.k,
                   matrix_of(input, i));
      }
      MEET
      if (grad_x)
        FOR(i, mine)
          input_gradient_from_points(s, input, i * per_image, sums + me * map,
                                     grad_x + (first + i) * map);
      MEET
    }
  }
  add_up(threads, s.k, biases, grad_bias);
  free(inputs), free(gradients), free(sums), free(zeros), free(biases), free(maps);
}
