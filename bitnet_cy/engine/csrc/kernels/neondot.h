/* NEON with the dot product instructions (Armv8.2 DotProd).
 *
 * sdot multiplies 16 signed codes by 16 activations and adds groups of four to int32. GEMV shifts
 * only the top plane down: the others, masked in place, are the codes times 16, 4 and 1 (at most
 * 32, so still positive as int8); their sums are exact multiples and are shifted once, at the end
 * of the row. Nothing can overflow below K of two million.
 */
#ifndef BN_KERNELS_NEONDOT_H
#define BN_KERNELS_NEONDOT_H

#include <arm_neon.h>

#include "../kernels.h"
#include "neon.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BN_NEONDOT
#else /* this spelling is the one both gcc and clang (16 and newer) take */
#define BN_NEONDOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

enum { BN_NEONDOT_LANES = 8 };

/* n_rows (1 or 4, constant after inlining) rows share the loads of one token. */
BN_NEONDOT BN_INLINE void bn_gemv_rows_neondot(const uint8_t *codes, ptrdiff_t blocks, int n_rows,
                                               const int8_t *q, int32_t q_sum, int32_t *out,
                                               int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    const uint8x16_t times16 = vdupq_n_u8(0x30), times4 = vdupq_n_u8(0x0C), times1 = vdupq_n_u8(3);
    int32x4_t sum1[4], sum4[4], sum16[4];
    for (int r = 0; r < n_rows; r++) sum1[r] = sum4[r] = sum16[r] = vdupq_n_s32(0);
    for (ptrdiff_t half = 0; half < 2 * blocks; half++) {
        const int8_t *x = q + half / 2 * BN_BLOCK + half % 2 * 16;
        int8x16_t x0 = vld1q_s8(x), x1 = vld1q_s8(x + 32);
        int8x16_t x2 = vld1q_s8(x + 64), x3 = vld1q_s8(x + 96);
        for (int r = 0; r < n_rows; r++) {
            uint8x16_t packed = vld1q_u8(codes + r * row_bytes + 16 * half);
            sum1[r] = vdotq_s32(sum1[r], vreinterpretq_s8_u8(vshrq_n_u8(packed, 6)), x0);
            sum16[r] = vdotq_s32(sum16[r], vreinterpretq_s8_u8(vandq_u8(packed, times16)), x1);
            sum4[r] = vdotq_s32(sum4[r], vreinterpretq_s8_u8(vandq_u8(packed, times4)), x2);
            sum1[r] = vdotq_s32(sum1[r], vreinterpretq_s8_u8(vandq_u8(packed, times1)), x3);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        int32x4_t sum = vsraq_n_s32(vsraq_n_s32(sum1[r], sum4[r], 2), sum16[r], 4);
        out[r * out_stride] = vaddvq_s32(sum) - q_sum;
    }
}

BN_NEONDOT static void bn_ternary_gemv_neondot(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                               const int8_t *q, int tokens, const int32_t *q_sums,
                                               int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_neondot(codes + r * row_bytes, blocks, 4, q + t * blocks * BN_BLOCK,
                                 q_sums[t], out + r * tokens + t, tokens);
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_neondot(codes + r * row_bytes, blocks, 1, q + t * blocks * BN_BLOCK,
                                 q_sums[t], out + r * tokens + t, tokens);
}

/* Four columns (number LANE of the sixteen in w) of every row, against 8 tokens. */
#define BN_STEP_NEONDOT(LANE)                                                                      \
    {                                                                                              \
        int8x16_t x0 = vld1q_s8(x + 32 * LANE), x1 = vld1q_s8(x + 32 * LANE + 16);                 \
        for (int r = 0; r < n_rows; r++) {                                                         \
            sum[r][0] = vdotq_laneq_s32(sum[r][0], x0, w[r], LANE);                                \
            sum[r][1] = vdotq_laneq_s32(sum[r][1], x1, w[r], LANE);                                \
        }                                                                                          \
    }

/* A tile of n_rows rows (1 or 8, constant after inlining) by 8 tokens, over all of K. */
BN_NEONDOT BN_INLINE void bn_gemm_tile_neondot(const int8_t *decoded, ptrdiff_t k, int n_rows,
                                               const int8_t *panel, const int32_t *q_sums,
                                               int32_t *out, ptrdiff_t out_stride) {
    int32x4_t sum[BN_GEMM_TILE_ROWS][2];
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < 2; j++) sum[r][j] = vnegq_s32(vld1q_s32(q_sums + 4 * j));
    for (ptrdiff_t i = 0; i < k; i += 16) {
        const int8_t *x = panel + BN_NEONDOT_LANES * i;
        int8x16_t w[BN_GEMM_TILE_ROWS];
        for (int r = 0; r < n_rows; r++) w[r] = vld1q_s8(decoded + r * k + i);
        BN_STEP_NEONDOT(0)
        BN_STEP_NEONDOT(1)
        BN_STEP_NEONDOT(2)
        BN_STEP_NEONDOT(3)
    }
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < 2; j++) vst1q_s32(out + r * out_stride + 4 * j, sum[r][j]);
}

BN_NEONDOT static void bn_ternary_gemm_neondot(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                               const int8_t *panels, int n_panels,
                                               const int32_t *q_sums, int32_t *out,
                                               ptrdiff_t out_stride, uint8_t *decoded) {
    const ptrdiff_t k = blocks * BN_BLOCK;
    int8_t *w = (int8_t *)decoded;
    for (int r = 0; r < rows; r++)
        bn_decode_row_neon(codes + r * blocks * BN_BLOCK_BYTES, blocks, w + r * k);
    for (int p = 0; p < n_panels; p++) {
        const int8_t *x = panels + p * BN_NEONDOT_LANES * k;
        const int32_t *sums = q_sums + p * BN_NEONDOT_LANES;
        int32_t *y = out + p * BN_NEONDOT_LANES;
        if (rows == BN_GEMM_TILE_ROWS)
            bn_gemm_tile_neondot(w, k, BN_GEMM_TILE_ROWS, x, sums, y, out_stride);
        else
            for (int r = 0; r < rows; r++)
                bn_gemm_tile_neondot(w + r * k, k, 1, x, sums, y + r * out_stride, out_stride);
    }
}

#endif
