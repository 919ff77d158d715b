/* Products with dense rows (../dense.h), and dense rows from I2_S ones and back, in portable C.
 * int32 sums are safe as those of scalar.h. */
#ifndef BN_KERNELS_SCALAR_DENSE_H
#define BN_KERNELS_SCALAR_DENSE_H

#include "../kernels.h"

static int32_t bn_dense_dot_row_scalar(const uint8_t *dense, ptrdiff_t blocks, const int8_t *q) {
    int32_t sum = 0;
    for (ptrdiff_t i = 0; i < blocks * BN_BLOCK_BYTES; i++) {
        const int8_t *x = q + i / BN_BLOCK_BYTES * BN_DENSE_BLOCK + i % BN_BLOCK_BYTES;
        uint8_t rest = dense[i];
        for (int g = 0; g < BN_DENSE_DIGITS; g++) {
            const int times3 = 3 * rest;
            sum += (times3 >> 8) * x[32 * g];
            rest = (uint8_t)times3;
        }
    }
    return sum;
}

static void bn_dense_gemv_scalar(const uint8_t *dense, ptrdiff_t blocks, int rows, const int8_t *q,
                                 int tokens, const int32_t *q_sums, int32_t *out) {
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            out[r * tokens + t] = bn_dense_dot_row_scalar(dense + r * blocks * BN_BLOCK_BYTES,
                                                          blocks, q + t * blocks * BN_DENSE_BLOCK) -
                                  q_sums[t];
}

static void bn_dense_unpack_scalar(const uint8_t *dense, ptrdiff_t dense_blocks, int rows,
                                   uint8_t *codes, ptrdiff_t blocks) {
    for (int r = 0; r < rows; r++, dense += dense_blocks * BN_BLOCK_BYTES)
        for (ptrdiff_t b = 0; b < blocks; b++, codes += BN_BLOCK_BYTES)
            for (int p = 0; p < BN_BLOCK_BYTES; p++) {
                unsigned four = 0;
                for (ptrdiff_t plane = 4 * b; plane < 4 * b + 4; plane++) {
                    const ptrdiff_t block = plane / BN_DENSE_DIGITS;
                    unsigned code = 1;
                    if (block < dense_blocks) {
                        uint8_t rest = dense[block * BN_BLOCK_BYTES + p];
                        for (ptrdiff_t g = plane % BN_DENSE_DIGITS; g > 0; g--)
                            rest = (uint8_t)(3 * rest);
                        code = 3u * rest >> 8;
                    }
                    four = four << 2 | code;
                }
                codes[p] = (uint8_t)four;
            }
}

static void bn_dense_pack_scalar(const uint8_t *codes, ptrdiff_t blocks, int rows, uint8_t *dense,
                                 ptrdiff_t dense_blocks) {
    for (int r = 0; r < rows; r++, codes += blocks * BN_BLOCK_BYTES)
        for (ptrdiff_t b = 0; b < dense_blocks; b++, dense += BN_BLOCK_BYTES)
            for (int p = 0; p < BN_BLOCK_BYTES; p++) {
                unsigned number = 0;
                for (int g = 0; g < BN_DENSE_DIGITS; g++) {
                    const ptrdiff_t plane = BN_DENSE_DIGITS * b + g;
                    unsigned code = 1;
                    if (plane < 4 * blocks)
                        code = codes[plane / 4 * BN_BLOCK_BYTES + p] >> (6 - 2 * (plane % 4)) & 3;
                    number = 3 * number + code;
                }
                dense[p] = (uint8_t)((256 * number + 242) / 243);
            }
}

#endif
