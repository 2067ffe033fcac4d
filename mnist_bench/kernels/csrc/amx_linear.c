/* Dense layers by the matrix unit AMX, in bfloat16: see amx_linear.py.

   Weights (outs, ins) are floats, which are rounded for a product and not before, some columns at a
   time: a layer's time is that of reading them. Inputs and outputs come in multiples of 32. */

enum { INS = 1024, OUTS = 256 }; /* whose tiles stay in a core's cache */
enum { CACHE = 1 << 19 }; /* bytes of sums that do */

/* Blocks of images come in couples, CHANNELS images, the last of which may be filled up. */
static size couples_of(size n) { return (n + CHANNELS - 1) / CHANNELS; }

/* Which of the four tiles of a couple of blocks and CHANNELS columns has this one. */
static size tile_of(size image, size column) { return image / IMAGES % 2 * 2 + column / HALF % 2; }

/* The columns of the weights that a thread computes with. */
static range columns_of(size ins, size thread, size threads) {
  range tiles = share(ins / CHANNELS, thread, threads);
  return (range){tiles.begin * CHANNELS, tiles.end * CHANNELS};
}

/* Rows of a matrix, one for each image, as tiles (IMAGES, CHANNELS): for each block those of some
   columns. What comes of images that there are not is not asked. */
static void fill_rows(size n, const element *x, size apart, size columns, element *tiles) {
  for (size image = 0; image < n; image++)
    for (size d = 0; d < columns / CHANNELS; d++)
      memcpy(tiles + (image / IMAGES * (columns / CHANNELS) + d) * TILE + image % IMAGES * CHANNELS,
             x + image * apart + d * CHANNELS, CHANNELS * sizeof *x);
}

/* Two tiles of CHANNELS columns of a couple of blocks, in pairs of images. */
static void pair_images(size n, const element *x, size apart, bits *tiles) {
  pixels upper = {x, n, apart}, lower = {x + IMAGES * apart, larger(n - IMAGES, 0), apart};
  fill_pairs(upper, lower, tiles);
}

/* What some inputs give all outputs. Sums: for CHANNELS outputs and each couple of blocks four tiles. */
static void sum_over_inputs(size n, size ins, size outs, range mine, const element *x,
                            const float *weight, float *sums) {
  size couples = couples_of(n);
  element *rows = scratch((couples + 1) * CHANNELS * INS * sizeof *rows);
  bits *pairs = (bits *)(rows + couples * CHANNELS * INS);
  for (size begin = mine.begin; begin < mine.end; begin += INS) {
    size width = smaller(mine.end - begin, INS);
    float *to = sums;
    fill_rows(n, x + begin, ins, width, rows);
    for (size out = 0; out < outs; out += CHANNELS) {
      for (size in = 0; in < width; in += CHANNELS)
        pair_inputs(weight + out * ins + begin + in, ins, pairs + in);
      settle();
      for (size couple = 0; couple < couples; couple++, to += 4 * SUMS) {
        take_sums(begin == mine.begin, to, to + 2 * SUMS);
        multiply(width / CHANNELS, rows + couple * CHANNELS * width, IMAGES * width, TILE,
                 (element *)pairs);
        store_sums(to, to + 2 * SUMS);
      }
    }
  }
}

/* y (n, outs) from x (n, ins). In between: for each thread its sums. */
void forward(size threads, size n, size ins, size outs, const element *x, const float *weight,
             const float *bias, float *sums, element *y) {
  size couples = couples_of(n), all = couples * CHANNELS * outs;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (size me = 0; me < threads; me++) {
      configure();
      sum_over_inputs(n, ins, outs, columns_of(ins, me, threads), x, weight, sums + me * all);
      _tile_release();
    }
#pragma omp for schedule(static)
    for (size image = 0; image < n; image++)
      for (size out = 0; out < outs; out += HALF) {
        size tile = (out / CHANNELS * couples + image / CHANNELS) * 4 + tile_of(image, out);
        vector sum = load(bias + out);
        for (size part = 0; part < threads; part++)
          sum += load(sums + part * all + tile * SUMS + image % IMAGES * HALF);
        write(y + image * outs + out, sum);
      }
  }
}

/* The gradient of some weights, CHANNELS outputs by CHANNELS inputs at a time, from tiles of outputs
   and pairs of inputs. */
static void sum_over_images(size couples, size ins, size outs, size width, const element *columns,
                            const bits *pairs, float *grad_weight) {
  float sums[4 * SUMS] __attribute__((aligned(64)));
  settle();
  for (size out = 0; out < outs; out += CHANNELS, columns += couples * 2 * TILE)
    for (size in = 0; in < width; in += CHANNELS) {
      float *to = grad_weight + out * ins + in;
      clear_sums();
      multiply(couples, columns, TILE, 2 * TILE, (element *)(pairs + in * couples));
      store_sums(sums, sums + 2 * SUMS);
      for (int row = 0; row < 2 * IMAGES; row++, to += ins)
        for (int half = 0; half < 2; half++) {
          const float *from = sums + (row / IMAGES * 2 + half) * SUMS + row % IMAGES * HALF;
          _mm512_stream_ps(to + half * HALF, (__m512)load(from));
        }
    }
}

/* The gradient of some inputs, `width` of all. Sums: for each couple and CHANNELS of them four tiles. */
static void sum_over_outputs(size n, size ins, size outs, size width, const element *rows,
                             const float *weight, bits *pairs, float *sums, element *grad_x) {
  size tiles = outs / CHANNELS;
  for (size begin = 0; begin < outs; begin += OUTS) {
    size some = smaller(outs - begin, OUTS);
    for (size out = 0; out < some; out += CHANNELS)
      for (size in = 0; in < width; in += CHANNELS)
        pair_outputs(weight + (begin + out) * ins + in, ins, pairs + in / CHANNELS * some + out);
    settle();
    float *to = sums;
    for (size couple = 0; couple < couples_of(n); couple++)
      for (size in = 0; in < width; in += CHANNELS, to += 4 * SUMS) {
        take_sums(begin == 0, to, to + 2 * SUMS);
        multiply(some / CHANNELS, rows + (couple * 2 * tiles + begin / CHANNELS) * TILE, tiles * TILE,
                 TILE, (element *)(pairs + in / CHANNELS * some));
        store_sums(to, to + 2 * SUMS);
      }
  }
  for (size image = 0; image < n; image++)
    for (size in = 0; in < width; in += CHANNELS) {
      size tile = (image / CHANNELS * width + in) / CHANNELS * 4 + tile_of(image, in);
      const float *from = sums + tile * SUMS + image % IMAGES * HALF;
      write(grad_x + image * ins + in, load(from));
      write(grad_x + image * ins + in + HALF, load(from + SUMS));
    }
}

/* Both for the inputs of a thread, from the gradient of y in both forms. */
static void sum_gradients(size n, size ins, size outs, range mine, const element *x,
                          const float *weight, const element *rows, const element *columns,
                          element *grad_x, float *grad_weight) {
  size images = couples_of(n) * CHANNELS, fit = CACHE / (images * (size)sizeof(float));
  size at_once = larger(smaller(fit, INS) / CHANNELS, 4) * CHANNELS;
  float *sums = scratch(images * at_once * sizeof *sums + larger(OUTS, images) * at_once * sizeof *x);
  bits *pairs = (bits *)(sums + images * at_once);
  for (size begin = mine.begin; begin < mine.end; begin += at_once) {
    size width = smaller(mine.end - begin, at_once);
    for (size first = 0; first < n; first += CHANNELS)
      for (size in = 0; in < width; in += CHANNELS)
        pair_images(smaller(n - first, CHANNELS), x + first * ins + begin + in, ins,
                    pairs + in / CHANNELS * images + first);
    sum_over_images(images / CHANNELS, ins, outs, width, columns, pairs, grad_weight + begin);
    if (grad_x)
      sum_over_outputs(n, ins, outs, width, rows, weight + begin, pairs, sums, grad_x + begin);
  }
}

/* From the gradient of y those of weights, biases and, unless it is NULL, of x. In between: the gradient of y
   as tiles (IMAGES, CHANNELS) and as tiles (CHANNELS, 2 IMAGES). */
void backward(size threads, size n, size ins, size outs, const element *x, const element *grad_y,
              const float *weight, element *rows, element *columns, element *grad_x,
              float *grad_weight, float *grad_bias) {
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (size first = 0; first < n; first += CHANNELS) {
      const element *grad = grad_y + first * outs;
      size images = smaller(n - first, CHANNELS);
      fill_rows(images, grad, outs, outs, rows + first * outs);
      for (size out = 0; out < outs; out += CHANNELS) {
        bits *to = (bits *)columns + out * couples_of(n) + first;
        pair_images(images, grad + out, outs, to);
        transpose(to), transpose(to + IMAGES);
      }
    }
#pragma omp for schedule(static)
    for (size me = 0; me < threads; me++) {
      configure();
      sum_gradients(n, ins, outs, columns_of(ins, me, threads), x, weight, rows, columns, grad_x,
                    grad_weight);
      _tile_release();
    }
#pragma omp for schedule(static)
    for (size out = 0; out < outs; out += LANES) {
      vector sum = {0};
      for (size image = 0; image < n; image++) sum += read(grad_y + image * outs + out);
      store(grad_bias + out, sum);
    }
  }
}
