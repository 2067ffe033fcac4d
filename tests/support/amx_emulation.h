/* What amx.c asks of the matrix unit, in plain C: as Intel's manual describes its instructions, but
   that the unit adds in another order. For processors that have none, and to test against. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef union { uint8_t bytes[16][64]; float floats[16][16]; uint16_t halves[16][32]; } tile;
static _Thread_local tile tiles[8];

static void multiply_tiles(tile *sum, const tile *a, const tile *b) {
  for (int row = 0; row < 16; row++)
    for (int pair = 0; pair < 16; pair++)
      for (int column = 0; column < 16; column++)
        for (int i = 0; i < 2; i++) {
          uint32_t x = (uint32_t)a->halves[row][2 * pair + i] << 16;
          uint32_t y = (uint32_t)b->halves[pair][2 * column + i] << 16;
          float left, right;
          memcpy(&left, &x, 4), memcpy(&right, &y, 4);
          sum->floats[row][column] += left * right;
        }
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig(configuration) ((void)(configuration))
#define _tile_release()
#define _tile_zero(t) memset(tiles + t, 0, sizeof(tile))
#define _tile_loadd(t, from, stride) \
  do \
    for (int row = 0; row < 16; row++) \
      memcpy(tiles[t].bytes[row], (const char *)(from) + row * (stride), 64); \
  while (0)
#define _tile_stored(t, to, stride) \
  do \
    for (int row = 0; row < 16; row++) \
      memcpy((char *)(to) + row * (stride), tiles[t].bytes[row], 64); \
  while (0)
#define _tile_dpbf16ps(sum, a, b) multiply_tiles(tiles + sum, tiles + a, tiles + b)
