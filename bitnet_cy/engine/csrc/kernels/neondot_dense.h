/* Products with dense rows (../dense.h) by sdot, without taking the bytes apart.
 *
 * With s = b - 128 for a byte b, the next byte is s' = 3 s modulo 256, as a signed number, and the
 * trit is (3 s - s') / 256. So the sum of trit x is (3 A - B) / 256 with A the sum of s x and B that
 * of s' x, over all five digits: two multiplications a trit and no comparison. What a lane of the
 * four holds is a multiple of 256 that int32 takes up to K of 2^18; that sums may wrap before
 * changes nothing.
 */
#ifndef BN_KERNELS_NEONDOT_DENSE_H
#define BN_KERNELS_NEONDOT_DENSE_H

#include <arm_neon.h>

#include "../kernels.h"
#include "neondot.h"

/* n_rows (1 or 4, constant after inlining) rows share the loads of one token. */
BN_NEONDOT BN_INLINE void bn_dense_rows_neondot(const uint8_t *dense, ptrdiff_t blocks, int n_rows,
                                                const int8_t *q, int32_t *out, int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    const int8x16_t three = vdupq_n_s8(3);
    int32x4_t a[4], b[4];
    for (int r = 0; r < n_rows; r++) a[r] = b[r] = vdupq_n_s32(0);
    for (ptrdiff_t half = 0; half < 2 * blocks; half++) {
        const int8_t *x = q + half / 2 * BN_DENSE_BLOCK + half % 2 * 16;
        int8x16_t rest[4];
        for (int r = 0; r < n_rows; r++) {
            uint8x16_t bytes = vld1q_u8(dense + r * row_bytes + 16 * half);
            rest[r] = vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(0x80)));
        }
        BN_UNROLL(5)
        for (int g = 0; g < BN_DENSE_DIGITS; g++) {
            int8x16_t xs = vld1q_s8(x + 32 * g);
            for (int r = 0; r < n_rows; r++) {
                a[r] = vdotq_s32(a[r], rest[r], xs);
                rest[r] = vmulq_s8(rest[r], three);
                b[r] = vdotq_s32(b[r], rest[r], xs);
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        int32x4_t difference = vsubq_s32(vmulq_n_s32(a[r], 3), b[r]);
        out[r * out_stride] = vaddvq_s32(vshrq_n_s32(difference, 8));
    }
}

BN_NEONDOT static void bn_dense_gemv_neondot(const uint8_t *dense, ptrdiff_t blocks, int rows,
                                             const int8_t *q, int tokens, const int32_t *q_sums,
                                             int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    (void)q_sums;
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int t = 0; t < tokens; t++)
            bn_dense_rows_neondot(dense + r * row_bytes, blocks, 4, q + t * blocks * BN_DENSE_BLOCK,
                                  out + r * tokens + t, tokens);
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            bn_dense_rows_neondot(dense + r * row_bytes, blocks, 1, q + t * blocks * BN_DENSE_BLOCK,
                                  out + r * tokens + t, tokens);
}

#endif
