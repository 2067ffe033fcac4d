/* Convolutions of stride 1 by the matrix unit AMX, in bfloat16: see amx.py.

   A row of a tile is an image, 16 of which make a block, so that any map, kernel and padding fill the
   tiles. Channels are multiples of 32. */

enum { CACHE = 1 << 20 }; /* bytes of maps that stay in a core's cache while all kernels pass */
enum { PIXELS = 4 }; /* whose sums stay in the nearest cache until they are finished */

/* A shape's padding is the same on either side, and less than a kernel has rows. */
static size side_of(shape s) { return s.h + 2 * s.padding - s.p + 1; }
static size taps_of(shape s) { return side_of(s) * side_of(s); }

/* The shape of the convolution of the output's gradient that gives the input's. */
static shape turned(shape s) {
  return (shape){s.n, s.p, s.q, s.k, s.h, s.w, s.c, side_of(s) - 1 - s.padding, 0, 0};
}

static size length(range r) { return r.end - r.begin; }

/* Whole blocks for each thread. */
static range images_of(shape s, size thread, size threads) {
  range blocks = share((s.n + IMAGES - 1) / IMAGES, thread, threads);
  return (range){blocks.begin * IMAGES, smaller(blocks.end * IMAGES, s.n)};
}

/* What is computed at once, as much as the cache holds of its input: some rows of the output of one
   block, or all of several blocks. */
typedef struct { size images, rows; } portion;
static portion portion_of(shape s) {
  size fit = CACHE / (s.w * s.c * IMAGES * (size)sizeof(element)), rows = s.pool ? 2 : 1;
  if (fit >= s.h) return (portion){fit / s.h * IMAGES, s.p};
  return (portion){IMAGES, larger((fit - side_of(s) + 1) / rows, 1) * rows};
}

/* The rows of the input that rows of the output come from. */
static range source_of(shape s, range rows) {
  return (range){larger(rows.begin - s.padding, 0),
                 smaller(rows.end - 1 + side_of(s) - s.padding, s.h)};
}

/* ---- Rows of maps in blocks: for CHANNELS of them and each pixel, a tile (IMAGES, CHANNELS) ------- */

static size block_size(shape s, size rows) { return rows * s.w * s.c * IMAGES; }

/* Rows of images x (n, h, w, c). Where a block has fewer, what comes of the others is not asked. */
static void fill_block(shape s, size images, range rows, const element *x, element *block) {
  size pixels = length(rows) * s.w;
  for (size image = 0; image < images; image++) {
    const element *from = x + (image * s.h + rows.begin) * s.w * s.c;
    for (size pixel = 0; pixel < pixels; pixel++)
      for (size d = 0; d < s.c / CHANNELS; d++, from += CHANNELS)
        memcpy(block + (d * pixels + pixel) * TILE + image * CHANNELS, from,
               CHANNELS * sizeof *from);
  }
}

/* ---- Convolutions ------------------------------------------------------------------------------- */

/* Sums of CHANNELS outputs at some pixels, in two tiles (IMAGES, HALF) for each. The block has rows
   `has` of the maps. */
static void sum_pixels(shape s, range has, const element *block, const element *kernels,
                       const float *bias, range rows, range columns, float *sums) {
  size side = side_of(s);
  settle();
  for (size row = rows.begin; row < rows.end; row++)
    for (size column = columns.begin; column < columns.end; column += 2, sums += 4 * SUMS) {
      load_biases(bias);
      range seen = source_of(s, (range){row, row + 1});
      size x = column - s.padding, outside = larger(-1 - x, 0), end = smaller(x + side, s.w);
      size steps = 0;
      for (size d = 0; d < s.c / CHANNELS; d++)
        for (size y = seen.begin; y < seen.end; y++) {
          size tap = (d * side + y - row + s.padding) * side + outside;
          const element *a = block + ((d * length(has) + y - has.begin) * s.w + x + outside) * TILE;
          slide(end - x - outside, a, TILE, kernels + tap * 2 * TILE, x < 0, end == s.w);
          steps = keep_storing(steps, sums) + side;
        }
      store_sums(sums, sums + 2 * SUMS);
    }
}

/* Rows of y, from `begin` on, and the choice of what follows, from blocks that have the `source` of
   these rows. */
static void convolve(shape s, size images, range rows, range source, const element *blocks,
                     const element *kernels, const float *bias, int past_caches, element *y,
                     uint8_t *choice, size begin) {
  size step = s.pool ? 2 : 1, width = s.q / step * step, block = block_size(s, length(source));
  size output = epilogue_size(epilogue_of(s));
  float sums[(PIXELS + 1) * 2 * SUMS] __attribute__((aligned(64)));
  for (size k = 0; k < s.k; k += CHANNELS)
    for (size first = 0; first < images; first += IMAGES)
      for (size row = rows.begin; row + step <= rows.end; row += step)
        for (size column = 0; column < width; column += PIXELS / step) {
          range window = {row, row + step};
          range columns = {column, smaller(column + PIXELS / step, width)};
          sum_pixels(s, source, blocks + first / IMAGES * block, kernels + k * taps_of(s) * s.c,
                     bias + k, window, columns, sums);
          epilogue part = {step, length(columns), CHANNELS, 2 * SUMS, SUMS, s.k, s.pool, s.relu,
                           past_caches};
          size at = begin + first * output + (row / step * (s.q / step) + column / step) * s.k + k;
          for (size image = 0; image < smaller(images - first, IMAGES); image++, at += output)
            finish(part, sums + image * HALF, y, choice, at);
        }
}

void forward(size threads, shape s, const element *x, const element *kernels, const float *bias,
             element *y, uint8_t *choice) {
  size output = epilogue_size(epilogue_of(s)), map = s.h * s.w * s.c;
  portion part = portion_of(s);
#pragma omp parallel for num_threads(threads)
  for (size me = 0; me < threads; me++) {
    configure();
    range mine = images_of(s, me, threads);
    element *blocks = scratch(part.images / IMAGES * block_size(s, s.h) * sizeof *blocks);
    for (size first = mine.begin; first < mine.end; first += part.images)
      for (size row = 0; row < s.p; row += part.rows) {
        size images = smaller(mine.end - first, part.images);
        range rows = {row, smaller(row + part.rows, s.p)}, source = source_of(s, rows);
        for (size i = 0; i < images; i += IMAGES)
          fill_block(s, smaller(images - i, IMAGES), source, x + (first + i) * map,
                     blocks + i / IMAGES * block_size(s, length(source)));
        convolve(s, images, rows, source, blocks, kernels, bias, 0, y, choice, first * output);
      }
    _tile_release();
  }
}

/* ---- Gradients of kernels ----------------------------------------------------------------------- */

/* Rows of maps x turned for the products over images: for CHANNELS, each row and two columns, two
   tiles (HALF, 2, IMAGES), with zeros around the columns. Twice, as kernels begin at any column: first
   with columns 0 and 1, 2 and 3, ..., then 1 and 2, 3 and 4, ... */
static size turned_columns(shape s) { return (s.w + 2 * s.padding + 3) / 2; }
static size turned_size(shape s, size rows) { return rows * turned_columns(s) * s.c * 2 * IMAGES; }
static pixels pixels_at(shape s, size images, const element *x, size row, size column) {
  if (column < 0 || column >= s.w) return (pixels){0};
  return (pixels){x + (row * s.w + column) * s.c, images, s.h * s.w * s.c};
}
static void turn_maps(shape s, size images, range rows, const element *x, element *out) {
  size all = turned_size(s, length(rows));
  for (size row = rows.begin; row < rows.end; row++)
    for (size i = 0; i < turned_columns(s); i++) {
      pixels left = pixels_at(s, images, x, row, i * 2 - s.padding);
      pixels right = pixels_at(s, images, x, row, i * 2 + 1 - s.padding);
      for (size d = 0; d < s.c / CHANNELS; d++, left.first += CHANNELS, right.first += CHANNELS) {
        bits pairs[CHANNELS];
        fill_pairs(left, right, pairs);
        transpose(pairs), transpose(pairs + IMAGES);
        size line = (d * length(rows) + row - rows.begin) * turned_columns(s) + i;
        element *to = out + line * 2 * TILE, *shifted = to + all;
        memcpy(to, pairs, sizeof pairs);
        for (int i = 0; i < CHANNELS; i++, to += 2 * IMAGES, shifted += 2 * IMAGES) {
          memcpy(shifted, to + IMAGES, IMAGES * sizeof *to);
          if (line) memcpy(shifted - 2 * TILE + IMAGES, to, IMAGES * sizeof *to);
        }
      }
    }
}

/* Rows of the gradient of CHANNELS outputs in pairs of images and of columns, and what they add to the
   gradient of their biases. */
static size pairs_size(shape s, size rows) { return rows * ((s.q + 1) / 2) * 2 * IMAGES; }
static void pair_rows(shape s, size rows, const element *grad, bits *pairs, float *bias) {
  vector sums[2] = {load(bias), load(bias + HALF)};
  for (size row = 0; row < rows; row++)
    for (size column = 0; column < s.q; column += 2, pairs += 2 * IMAGES) {
      pixels left = {grad + (row * s.q + column) * TILE, IMAGES, CHANNELS};
      pixels right = {left.first + TILE, IMAGES, CHANNELS};
      fill_pairs(left, column + 1 < s.q ? right : (pixels){0}, pairs);
      for (int i = 0; i < 2 * IMAGES; i++)
        sums[i / IMAGES] += (vector)(pairs[i] << 16) + (vector)(pairs[i] & 0xffff0000);
    }
  store(bias, sums[0]), store(bias + HALF, sums[1]);
}

/* To the sums of CHANNELS inputs and outputs, (2, 2) tiles for each tap, which begin here or go on,
   what `rows` of the output of some blocks add. `turned` begins at the first of these inputs and has
   the `source` of the rows. At once come both tiles of a tap's inputs, or one of them for two taps:
   these lie two columns apart, so that the second's tile is the first's next. */
static void add_gradients(shape s, size blocks, range rows, range source, const element *turned,
                          const bits *pairs, int begins, float *sums) {
  size side = side_of(s), all = turned_size(s, length(source)), columns = (s.q + 1) / 2, steps = 0;
  settle();
  for (size i = 0; i < side; i++)
    for (size j = 0; j < side; j++) {
      if (j % 4 > 1) continue; /* it has come with the one two columns before */
      int two = j + 2 < side;
      const element *first = turned + j % 2 * all + j / 2 * 2 * TILE;
      for (int half = 0; half <= two; half++, first += TILE) {
        float *here = sums + ((i * side + j) * 4 + half * 2) * SUMS;
        float *there = here + (two ? 2 * 4 : 2) * SUMS;
        take_sums(begins, here, there);
        for (size block = 0; block < blocks; block++)
          for (size row = rows.begin; row < rows.end; row++) {
            size y = row + i - s.padding;
            if (y < 0 || y >= s.h) continue;
            size line = (y - source.begin) * turned_columns(s);
            const element *a = first + block * 2 * all + line * 2 * TILE;
            const bits *b = pairs + pairs_size(s, block * length(rows) + row - rows.begin);
            if (two) slide(columns, a, 2 * TILE, (const element *)b, 0, 0);
            else multiply(columns, a, TILE, 2 * TILE, (const element *)b);
            steps = keep_storing(steps, here) + columns;
          }
        store_sums(here, there);
      }
    }
}

/* Rows of the gradient of sums, in a block, from that of y, from `begin` on. */
static void fill_gradients(shape s, size images, range rows, const element *grad_y,
                           const uint8_t *choice, size begin, element *block) {
  size step = s.pool ? 2 : 1, pixels = length(rows) * s.q;
  epilogue part = {length(rows), s.q, CHANNELS, TILE, LANES, s.k, s.pool, s.relu, 0};
  if (images < IMAGES) memset(block, 0, pixels * s.k * IMAGES * sizeof *block);
  for (size image = 0; image < images; image++)
    for (size d = 0; d < s.k / CHANNELS; d++) {
      size y_row = image * (s.p / step) + rows.begin / step;
      size at = begin + y_row * (s.q / step) * s.k + d * CHANNELS;
      unfinish(part, grad_y, choice, at, sizeof *block,
               block + d * pixels * TILE + image * CHANNELS);
    }
}

/* From the gradient of y those of x (unless grad_x is NULL) and of biases, and for each thread that of
   kernels, a stack (k / CHANNELS, c / CHANNELS, taps, 2, 2) of tiles. There are at least as many blocks
   as threads. */
void backward(size threads, shape s, const element *x, const element *grad_y, const uint8_t *choice,
              const element *kernels, element *grad_x, float *grad_kernels, float *grad_bias) {
  shape t = turned(s);
  portion part = portion_of(t);
  size output = epilogue_size(epilogue_of(s)), map = s.h * s.w * s.c, blocks = part.images / IMAGES;
  size gradients_size = blocks * block_size(t, s.p), inputs_size = blocks * 2 * turned_size(s, s.h);
  size kernels_size = taps_of(s) * s.c * s.k, pairs_bytes = blocks * pairs_size(s, s.p) * sizeof(bits);
  float *zeros = calloc(s.c, sizeof *zeros), *biases = calloc(threads * s.k, sizeof *biases);
#pragma omp parallel for num_threads(threads)
  for (size me = 0; me < threads; me++) {
    configure();
    range mine = images_of(s, me, threads);
    element *gradients = scratch((gradients_size + inputs_size) * sizeof *x + pairs_bytes);
    element *inputs = gradients + gradients_size;
    bits *pairs = (bits *)(inputs + inputs_size);
    for (size first = mine.begin; first < mine.end; first += part.images) {
      size images = smaller(mine.end - first, part.images), count = (images + IMAGES - 1) / IMAGES;
      range added = {0, 0}; /* rows of sums whose gradient the kernels' has: here, and before */
      for (size row = 0; row < s.h; row += part.rows) {
        range rows = {row, smaller(row + part.rows, s.h)}, behind = source_of(t, rows);
        if (s.pool) behind.begin -= behind.begin % 2, behind.end += behind.end % 2; /* windows */
        behind.end = smaller(behind.end, s.p);
        added = (range){added.end, behind.end};
        range source = source_of(s, added);
        size block = block_size(t, length(behind)), turned = 2 * turned_size(s, length(source));
        for (size b = 0; b < count; b++) {
          size i = first + b * IMAGES, here = smaller(mine.end - i, IMAGES);
          fill_gradients(s, here, behind, grad_y, choice, i * output, gradients + b * block);
          turn_maps(s, here, source, x + i * map, inputs + b * turned);
        }
        if (grad_x)
          convolve(t, images, rows, behind, gradients, kernels, zeros, 1, grad_x, NULL, first * map);
        for (size k = 0; k < s.k; k += CHANNELS) {
          size new = k / CHANNELS * length(behind) + added.begin - behind.begin;
          for (size b = 0; b < count; b++)
            pair_rows(s, length(added), gradients + b * block + new * s.q * TILE,
                      pairs + b * pairs_size(s, length(added)), biases + me * s.k + k);
          for (size c = 0; c < s.c; c += CHANNELS)
            add_gradients(s, count, added, source, inputs + turned / 2 / s.c * c, pairs,
                          first == mine.begin && row == 0,
                          grad_kernels + me * kernels_size + (k * s.c + c * CHANNELS) * taps_of(s));
        }
      }
    }
    _tile_release();
  }
  add_up(threads, s.k, biases, grad_bias);
  free(zeros), free(biases);
}

/* ---- Kernels ------------------------------------------------------------------------------------ */

/* Kernels (k, taps, c) as matrices of pairs of rows, rounded: for CHANNELS columns, CHANNELS rows and
   each tap, two tiles. Where these begin, for matrices of so many rows: */
static bits *kernel_tiles(bits *tiles, size rows, size column, size row, size taps) {
  return tiles + (column * rows + row * CHANNELS) * taps / TILE * IMAGES;
}

/* Of k columns and c rows. */
void kernels_to_tiles(size k, size c, size taps, const float *weight, bits *tiles) {
#pragma omp parallel for collapse(2)
  for (size column = 0; column < k; column += CHANNELS)
    for (size row = 0; row < c; row += CHANNELS)
      for (size tap = 0; tap < taps; tap++) {
        bits *to = kernel_tiles(tiles, c, column, row, taps) + tap * 2 * IMAGES;
        pair_inputs(weight + (column * taps + tap) * c + row, taps * c, to);
      }
}

/* Of c columns and k rows, the taps in reverse. */
void turned_kernels_to_tiles(size k, size c, size taps, const float *weight, bits *tiles) {
#pragma omp parallel for collapse(2)
  for (size column = 0; column < c; column += CHANNELS)
    for (size row = 0; row < k; row += CHANNELS)
      for (size tap = 0; tap < taps; tap++) {
        bits *to = kernel_tiles(tiles, k, column, row, taps) + tap * 2 * IMAGES;
        pair_outputs(weight + (row * taps + taps - 1 - tap) * c + column, taps * c, to);
      }
}

/* The sum of `parts` stacks of gradients. */
void kernels_from_tiles(size parts, size k, size c, size taps, const float *tiles, float *weight) {
#pragma omp parallel for collapse(2)
  for (size column = 0; column < k; column += CHANNELS)
    for (size row = 0; row < c; row += CHANNELS)
      for (size tap = 0; tap < taps; tap++)
        for (int tile = 0; tile < 4; tile++) {
          const float *from = tiles + (column * c + row * CHANNELS) * taps + (tap * 4 + tile) * SUMS;
          float *to = weight + ((column + tile % 2 * HALF) * taps + tap) * c + row + tile / 2 * HALF;
          bits sums[HALF];
          for (int i = 0; i < HALF; i++, from += HALF) {
            vector sum = {0};
            for (size part = 0; part < parts; part++) sum += load(from + part * k * c * taps);
            sums[i] = (bits)sum;
          }
          transpose(sums);
          for (int i = 0; i < HALF; i++) store(to + i * taps * c, (vector)sums[i]);
        }
}
