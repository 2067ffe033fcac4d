/* Dropout: see dropout.py. Random numbers are those of xoshiro128++ (Blackman and Vigna 2021), 16
   generators side by side for each piece of PIECE elements, seeded by splitmix64 as they advise. So
   they depend on the seed alone, and not on who draws them. */

enum { PIECE = 256 * LANES };
typedef struct { uint64_t seed; uint32_t threshold; float scale; } coins;
typedef struct { bits s[4]; } generator;

static generator seeded(uint64_t seed, size piece) {
  generator g;
  for (int lane = 0; lane < LANES; lane++)
    for (int half = 0; half < 2; half++) {
      uint64_t number = (piece * LANES + lane) * 2 + half + 1;
      uint64_t z = seed + number * 0x9e3779b97f4a7c15;
      z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
      z = (z ^ z >> 27) * 0x94d049bb133111eb;
      z ^= z >> 31;
      g.s[2 * half][lane] = z, g.s[2 * half + 1][lane] = z >> 32;
    }
  return g;
}

INLINE bits rotate(bits x, int by) { return x << by | x >> (32 - by); }
INLINE bits draw(generator *g) {
  bits *s = g->s, drawn = rotate(s[0] + s[3], 7) + s[0], shifted = s[1] << 9;
  s[2] ^= s[0], s[3] ^= s[1], s[1] ^= s[2], s[0] ^= s[3], s[2] ^= shifted, s[3] = rotate(s[3], 11);
  return drawn;
}

/* y = x * scale where the number drawn is at least the threshold, else 0. */
void drop(size threads, size n, coins c, const element *x, element *y) {
#pragma omp parallel for num_threads(threads)
  for (size piece = 0; piece < (n + PIECE - 1) / PIECE; piece++) {
    generator g = seeded(c.seed, piece);
    size end = (piece + 1) * PIECE < n ? (piece + 1) * PIECE : n;
    for (size i = piece * PIECE; i < end; i += LANES) {
      bits kept = draw(&g) >= c.threshold;
      element part[LANES] = {0}; /* where less than a vector is left */
      int whole = end - i >= LANES;
      if (!whole) memcpy(part, x + i, (end - i) * sizeof(element));
      vector value = read(whole ? x + i : part) * c.scale;
      write(whole ? y + i : part, (vector)((bits)value & kept));
      if (!whole) memcpy(y + i, part, (end - i) * sizeof(element));
    }
  }
}
