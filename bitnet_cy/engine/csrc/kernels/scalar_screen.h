/* The screen of the output head in plain C: its sums, and how a row is encoded. */
#ifndef BN_KERNELS_SCALAR_SCREEN_H
#define BN_KERNELS_SCALAR_SCREEN_H

#include <math.h>
#include <string.h>

#include "../half.h"
#include "../kernels.h"

enum { BN_SCREEN_BLOCK = 32, BN_SCREEN_BLOCKS = BN_SCREEN_GROUP / BN_SCREEN_BLOCK };

/* Calls ROWS(of) with a constant that says of what the codes are made. */
#define BN_SCREEN_CHOOSE(nibbles, n_planes, ROWS)                                              \
    do {                                                                                       \
        if (!(nibbles)) ROWS(BN_SCREEN_PLANE);                                                 \
        else if ((n_planes) == 0) ROWS(BN_SCREEN_NIBBLES);                                     \
        else if ((n_planes) == 1) ROWS(BN_SCREEN_NIBBLES | BN_SCREEN_PLANE);                   \
        else ROWS(BN_SCREEN_NIBBLES | BN_SCREEN_PLANE | BN_SCREEN_SECOND);                     \
    } while (0)

static inline int bn_nibble_of(const uint8_t *codes, int column) {
    return codes[64 * (column / 128) + column % 64] >> (column & 64 ? 4 : 0) & 15;
}

BN_INLINE int bn_screen_planes(int of) {
    return of & BN_SCREEN_SECOND ? 2 : of & BN_SCREEN_PLANE ? 1 : 0;
}

static inline int bn_bit_of(const uint8_t *codes, int column) {
    return codes[column % 32] >> (column / 32) & 1;
}

static void bn_screen_sums_scalar(const uint8_t *nibbles, const uint8_t *const *planes,
                                  int n_planes, const uint8_t *steps, int rows, ptrdiff_t groups,
                                  const bn_screen_query *x, int64_t (*sums)[2]) {
    for (int r = 0; r < rows; r++) {
        sums[r][0] = sums[r][1] = 0;
        for (ptrdiff_t i = 0; i < groups * BN_SCREEN_GROUP; i++) {
            const ptrdiff_t group = r * groups + i / BN_SCREEN_GROUP;
            const int column = (int)(i % BN_SCREEN_GROUP);
            int64_t product = (int64_t)steps[(r * groups * BN_SCREEN_GROUP + i) / BN_SCREEN_BLOCK] *
                              (128 * x->high[i] + x->low[i]);
            int code = nibbles ? bn_nibble_of(nibbles + group * BN_SCREEN_GROUP / 2, column) : 0;
            for (int p = 0; p < n_planes; p++)
                code = 2 * code + bn_bit_of(planes[p] + group * BN_SCREEN_GROUP / 8, column);
            sums[r][0] += code * product;
            sums[r][1] += product;
        }
    }
}

/* The largest magnitude as its bits, in which a NaN is above infinity. */
BN_INLINE int32_t bn_block_magnitude(const float *w) {
    int32_t largest = 0;
    for (int j = 0; j < BN_SCREEN_BLOCK; j++) {
        int32_t bits;
        memcpy(&bits, w + j, sizeof bits);
        bits &= 0x7FFFFFFF;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* Codes of a block, of 4 + BN_SCREEN_PLANES bits, for cells `step` wide from -8 steps up; and the
 * squared rests, in eight lanes, of what their upper 4, 5, ... bits say: the middle of the cell. */
BN_INLINE void bn_encode_block(const float *w, float step, uint8_t *q,
                               float rest[BN_SCREEN_PLANES + 1][8]) {
    enum { CODES = 16 << BN_SCREEN_PLANES };
    const float inverse = step > 0 ? (1 << BN_SCREEN_PLANES) / step : 0;
    int32_t code[BN_SCREEN_BLOCK];
    for (int j = 0; j < BN_SCREEN_BLOCK; j++) {
        int32_t c = (int32_t)(w[j] * inverse + CODES / 2);
        c = c < 0 ? 0 : c;
        code[j] = c >= CODES ? CODES - 1 : c;
        q[j] = (uint8_t)code[j];
    }
    for (int level = 0; level <= BN_SCREEN_PLANES; level++) {
        const float cell = step / (float)(1 << level), middle = 0.5f - (float)(8 << level);
        for (int j = 0; j < BN_SCREEN_BLOCK; j += 8)
            for (int l = 0; l < 8; l++) {
                float r = w[j + l] - ((float)(code[j + l] >> (BN_SCREEN_PLANES - level)) + middle) * cell;
                rest[level][l] += r * r;
            }
    }
}

BN_INLINE void bn_pack_group(const uint8_t *q, const bn_screen_row *row, ptrdiff_t g) {
    uint8_t *nibbles = row->nibbles + g * BN_SCREEN_GROUP / 2;
    for (int i = 0; i < 2; i++)
        for (int p = 0; p < 64; p++)
            nibbles[64 * i + p] = (uint8_t)(q[128 * i + p] >> BN_SCREEN_PLANES |
                                             q[128 * i + 64 + p] >> BN_SCREEN_PLANES << 4);
    for (int plane = 0; plane < BN_SCREEN_PLANES; plane++)
        for (int p = 0; p < 32; p++) {
            unsigned bits = 0;
            for (int j = 0; j < 8; j++)
                bits |= (unsigned)(q[32 * j + p] >> (BN_SCREEN_PLANES - 1 - plane) & 1) << j;
            row->planes[plane][g * BN_SCREEN_GROUP / 8 + p] = (uint8_t)bits;
        }
}

static inline float bn_screen_error(float squares) { return sqrtf(squares) * 1.001f + 1e-15f; }

/* The steps of a row, from the largest magnitude of each block and, as bits, of all. A row with a
 * NaN, an infinity or a product that might overflow gets an infinite error, so that no bound
 * excludes it, and codes of 0; then this returns 0. */
static inline int bn_screen_begin_row(bn_screen_row *row, int32_t largest, const float *magnitude,
                                      ptrdiff_t blocks) {
    const int usable = largest < 0x5F000000, tiny = largest < 0x20000000;
    row->step = usable && !tiny ? bn_bits_to_float((uint32_t)largest) / (8 * 255) : 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        int steps = row->step > 0 ? (int)(magnitude[b] / (8 * row->step)) + 1 : 0;
        row->steps[b] = (uint8_t)(steps > 255 ? 255 : steps);
    }
    if (usable) return 1;
    memset(row->nibbles, 0, (size_t)blocks * BN_SCREEN_BLOCK / 2);
    for (int plane = 0; plane < BN_SCREEN_PLANES; plane++)
        memset(row->planes[plane], 0, (size_t)blocks * BN_SCREEN_BLOCK / 8);
    for (int level = 0; level <= BN_SCREEN_PLANES; level++) row->error[level] = INFINITY;
    return 0;
}

static void bn_screen_encode_scalar(const float *w, ptrdiff_t groups, bn_screen_row *row) {
    const ptrdiff_t blocks = groups * BN_SCREEN_BLOCKS;
    float magnitude[BN_SCREEN_COLS / BN_SCREEN_BLOCK], rest[BN_SCREEN_PLANES + 1][8] = {{0}};
    int32_t largest = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        int32_t bits = bn_block_magnitude(w + BN_SCREEN_BLOCK * b);
        magnitude[b] = bn_bits_to_float((uint32_t)bits);
        largest = bits > largest ? bits : largest;
    }
    if (!bn_screen_begin_row(row, largest, magnitude, blocks)) return;
    for (ptrdiff_t g = 0; g < groups; g++) {
        uint8_t q[BN_SCREEN_GROUP];
        for (int j = 0; j < BN_SCREEN_BLOCKS; j++) {
            const ptrdiff_t b = g * BN_SCREEN_BLOCKS + j;
            bn_encode_block(w + BN_SCREEN_BLOCK * b, (float)row->steps[b] * row->step,
                            q + BN_SCREEN_BLOCK * j, rest);
        }
        bn_pack_group(q, row, g);
    }
    for (int level = 0; level <= BN_SCREEN_PLANES; level++) {
        float sum = 0;
        for (int l = 0; l < 8; l++) sum += rest[level][l];
        row->error[level] = bn_screen_error(sum);
    }
}

#endif
