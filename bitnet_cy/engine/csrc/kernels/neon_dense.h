/* Products with dense rows (../dense.h), and dense rows from I2_S ones and back, by NEON.
 *
 * A byte of 86 or more carries when it is multiplied by 3, one of 171 or more carries 2: the two
 * comparisons' masks add up to the code's negative. smlal adds products with codes 0 to -2, at most
 * 256 in magnitude; a block adds ten of them to a sum, which is widened every 12 blocks: 30720 at
 * the most.
 */
#ifndef BN_KERNELS_NEON_DENSE_H
#define BN_KERNELS_NEON_DENSE_H

#include <arm_neon.h>

#include "../kernels.h"
#include "neon.h"

enum { BN_NEON_DENSE_WIDEN_BLOCKS = 12 };

/* Minus the next code of 16 bytes. */
BN_INLINE int8x16_t bn_dense_minus_code_neon(uint8x16_t rest) {
    uint8x16_t one = vcgeq_u8(rest, vdupq_n_u8(86)), two = vcgeq_u8(rest, vdupq_n_u8(171));
    return vreinterpretq_s8_u8(vaddq_u8(one, two));
}

BN_INLINE uint8x16_t bn_dense_next_neon(uint8x16_t rest) {
    return vmulq_u8(rest, vdupq_n_u8(3));
}

/* n_rows (1 or 4, constant after inlining) rows share the loads of one token. */
BN_INLINE void bn_dense_rows_neon(const uint8_t *dense, ptrdiff_t blocks, int n_rows,
                                  const int8_t *q, int32_t q_sum, int32_t *out, int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int32x4_t sum[4];
    for (int r = 0; r < n_rows; r++) sum[r] = vdupq_n_s32(0);
    for (ptrdiff_t start = 0; start < blocks; start += BN_NEON_DENSE_WIDEN_BLOCKS) {
        ptrdiff_t end = start + BN_NEON_DENSE_WIDEN_BLOCKS;
        end = end < blocks ? end : blocks;
        int16x8_t low[4], high[4];
        for (int r = 0; r < n_rows; r++) low[r] = high[r] = vdupq_n_s16(0);
        for (ptrdiff_t half = 2 * start; half < 2 * end; half++) {
            const int8_t *x = q + half / 2 * BN_DENSE_BLOCK + half % 2 * 16;
            uint8x16_t rest[4];
            for (int r = 0; r < n_rows; r++) rest[r] = vld1q_u8(dense + r * row_bytes + 16 * half);
            BN_UNROLL(5)
            for (int g = 0; g < BN_DENSE_DIGITS; g++) {
                int8x16_t xs = vld1q_s8(x + 32 * g);
                for (int r = 0; r < n_rows; r++) {
                    int8x16_t minus = bn_dense_minus_code_neon(rest[r]);
                    low[r] = vmlal_s8(low[r], vget_low_s8(minus), vget_low_s8(xs));
                    high[r] = vmlal_high_s8(high[r], minus, xs);
                    rest[r] = bn_dense_next_neon(rest[r]);
                }
            }
        }
        for (int r = 0; r < n_rows; r++)
            sum[r] = vpadalq_s16(vpadalq_s16(sum[r], low[r]), high[r]);
    }
    for (int r = 0; r < n_rows; r++) out[r * out_stride] = -vaddvq_s32(sum[r]) - q_sum;
}

static void bn_dense_gemv_neon(const uint8_t *dense, ptrdiff_t blocks, int rows, const int8_t *q,
                               int tokens, const int32_t *q_sums, int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int t = 0; t < tokens; t++)
            bn_dense_rows_neon(dense + r * row_bytes, blocks, 4, q + t * blocks * BN_DENSE_BLOCK,
                               q_sums[t], out + r * tokens + t, tokens);
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            bn_dense_rows_neon(dense + r * row_bytes, blocks, 1, q + t * blocks * BN_DENSE_BLOCK,
                               q_sums[t], out + r * tokens + t, tokens);
}

/* Planes of 32 codes in their order, five from a dense block, four to an I2_S one; 16 lanes. */
BN_INLINE void bn_dense_unpack_half_neon(const uint8_t *dense, ptrdiff_t there, uint8_t *codes,
                                         ptrdiff_t blocks) {
    uint8x16_t rest = vdupq_n_u8(0);
    for (ptrdiff_t b = 0, plane = 0; b < blocks; b++) {
        int8x16_t four = vdupq_n_s8(0);
        for (int g = 0; g < 4; g++, plane++) {
            if (plane % BN_DENSE_DIGITS == 0 && plane < there)
                rest = vld1q_u8(dense + plane / BN_DENSE_DIGITS * BN_BLOCK_BYTES);
            int8x16_t minus = plane < there ? bn_dense_minus_code_neon(rest) : vdupq_n_s8(-1);
            four = vsubq_s8(vshlq_n_s8(four, 2), minus);
            rest = bn_dense_next_neon(rest);
        }
        vst1q_u8(codes + BN_BLOCK_BYTES * b, vreinterpretq_u8_s8(four));
    }
}

static void bn_dense_unpack_neon(const uint8_t *dense, ptrdiff_t dense_blocks, int rows,
                                 uint8_t *codes, ptrdiff_t blocks) {
    const ptrdiff_t there = dense_blocks * BN_DENSE_DIGITS;
    for (int r = 0; r < rows; r++) {
        for (int half = 0; half < BN_BLOCK_BYTES; half += 16)
            bn_dense_unpack_half_neon(dense + half, there, codes + half, blocks);
        dense += dense_blocks * BN_BLOCK_BYTES;
        codes += blocks * BN_BLOCK_BYTES;
    }
}

/* ceil(256 n / 243) of 16-bit numbers up to 242: n and (13 n + 242) / 243, exact by this factor. */
BN_INLINE uint16x8_t bn_dense_fraction_neon(uint16x8_t n) {
    uint16x8_t above = vmlaq_n_u16(vdupq_n_u16(242), n, 13);
    uint16x4_t low = vshrn_n_u32(vmull_n_u16(vget_low_u16(above), 270), 16);
    return vaddq_u16(n, vshrn_high_n_u32(low, vmull_high_n_u16(above, 270), 16));
}

BN_INLINE void bn_dense_pack_half_neon(const uint8_t *codes, ptrdiff_t there, uint8_t *dense,
                                       ptrdiff_t dense_blocks) {
    uint8x16_t left = vdupq_n_u8(0x55);
    for (ptrdiff_t b = 0, plane = 0; b < dense_blocks; b++) {
        uint8x16_t n = vdupq_n_u8(0);
        for (int g = 0; g < BN_DENSE_DIGITS; g++, plane++) {
            if (plane % 4 == 0)
                left = plane < there ? vld1q_u8(codes + plane / 4 * BN_BLOCK_BYTES)
                                     : vdupq_n_u8(0x55);
            n = vaddq_u8(vmulq_u8(n, vdupq_n_u8(3)), vshrq_n_u8(left, 6));
            left = vshlq_n_u8(left, 2);
        }
        uint16x8_t low = bn_dense_fraction_neon(vmovl_u8(vget_low_u8(n)));
        uint16x8_t high = bn_dense_fraction_neon(vmovl_high_u8(n));
        vst1q_u8(dense + BN_BLOCK_BYTES * b, vmovn_high_u16(vmovn_u16(low), high));
    }
}

static void bn_dense_pack_neon(const uint8_t *codes, ptrdiff_t blocks, int rows, uint8_t *dense,
                               ptrdiff_t dense_blocks) {
    for (int r = 0; r < rows; r++) {
        for (int half = 0; half < BN_BLOCK_BYTES; half += 16)
            bn_dense_pack_half_neon(codes + half, 4 * blocks, dense + half, dense_blocks);
        codes += blocks * BN_BLOCK_BYTES;
        dense += dense_blocks * BN_BLOCK_BYTES;
    }
}

#endif
