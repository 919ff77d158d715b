/* NEON with the int8 matrix instructions (Armv8.6 I8MM), beside the dot products.
 *
 * smmla multiplies two rows of 8 codes by two tokens of 8 activations and adds the four sums to
 * int32. GEMM decodes rows in pairs, 8 columns of one beside the same 8 of the other. GEMV takes
 * tokens in pairs, with the planes of neondot.h; a token left over goes through its dot products.
 */
#ifndef BN_KERNELS_NEONI8MM_H
#define BN_KERNELS_NEONI8MM_H

#include <arm_neon.h>

#include "../kernels.h"
#include "neondot.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BN_NEONI8MM
#else
#define BN_NEONI8MM __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#endif

enum { BN_NEONI8MM_LANES = 8 };

/* Eight bytes of a, then eight of b: their first ones, or their last ones. */
BN_INLINE int8x16_t bn_first_halves_neon(int8x16_t a, int8x16_t b) {
    return vcombine_s8(vget_low_s8(a), vget_low_s8(b));
}

BN_INLINE int8x16_t bn_last_halves_neon(int8x16_t a, int8x16_t b) {
    return vcombine_s8(vget_high_s8(a), vget_high_s8(b));
}

/* Eight packed bytes of two rows against the same columns of two tokens, plane by plane.
 * sum: of planes 0 and 3, of plane 2 (codes times 4), of plane 1 (codes times 16). */
BN_NEONI8MM BN_INLINE void bn_add_planes_neoni8mm(int32x4_t sum[3], uint8x16_t packed,
                                                  const int8x16_t x[4]) {
    int8x16_t times1 = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(3)));
    int8x16_t times4 = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(0x0C)));
    int8x16_t times16 = vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(0x30)));
    sum[0] = vmmlaq_s32(sum[0], vreinterpretq_s8_u8(vshrq_n_u8(packed, 6)), x[0]);
    sum[2] = vmmlaq_s32(sum[2], times16, x[1]);
    sum[1] = vmmlaq_s32(sum[1], times4, x[2]);
    sum[0] = vmmlaq_s32(sum[0], times1, x[3]);
}

/* Four rows by two tokens, q and q + q_stride. */
BN_NEONI8MM BN_INLINE void bn_gemv_pair_neoni8mm(const uint8_t *codes, ptrdiff_t blocks,
                                                 const int8_t *q, ptrdiff_t q_stride,
                                                 const int32_t *q_sums, int32_t *out,
                                                 int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int32x4_t sum[2][3];
    for (int pair = 0; pair < 2; pair++)
        for (int g = 0; g < 3; g++) sum[pair][g] = vdupq_n_s32(0);
    for (ptrdiff_t half = 0; half < 2 * blocks; half++) {
        const int8_t *x = q + half / 2 * BN_BLOCK + half % 2 * 16;
        int8x16_t first[4], last[4];
        for (int g = 0; g < 4; g++) {
            int8x16_t one = vld1q_s8(x + 32 * g), two = vld1q_s8(x + q_stride + 32 * g);
            first[g] = bn_first_halves_neon(one, two);
            last[g] = bn_last_halves_neon(one, two);
        }
        for (int pair = 0; pair < 2; pair++) {
            const int8_t *c = (const int8_t *)codes + 2 * pair * row_bytes + 16 * half;
            int8x16_t one = vld1q_s8(c), two = vld1q_s8(c + row_bytes);
            bn_add_planes_neoni8mm(sum[pair], vreinterpretq_u8_s8(bn_first_halves_neon(one, two)),
                                   first);
            bn_add_planes_neoni8mm(sum[pair], vreinterpretq_u8_s8(bn_last_halves_neon(one, two)),
                                   last);
        }
    }
    for (int pair = 0; pair < 2; pair++) {
        int32x4_t total = vsraq_n_s32(vsraq_n_s32(sum[pair][0], sum[pair][1], 2), sum[pair][2], 4);
        int32x2_t bias = vld1_s32(q_sums);
        vst1_s32(out + 2 * pair * out_stride, vsub_s32(vget_low_s32(total), bias));
        vst1_s32(out + (2 * pair + 1) * out_stride, vsub_s32(vget_high_s32(total), bias));
    }
}

BN_NEONI8MM static void bn_ternary_gemv_neoni8mm(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                                 const int8_t *q, int tokens,
                                                 const int32_t *q_sums, int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, k = blocks * BN_BLOCK;
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        const uint8_t *c = codes + r * row_bytes;
        int32_t *y = out + r * tokens;
        int t = 0;
        for (; t + 2 <= tokens; t += 2)
            bn_gemv_pair_neoni8mm(c, blocks, q + t * k, k, q_sums + t, y + t, tokens);
        if (t < tokens)
            bn_gemv_rows_neondot(c, blocks, 4, q + t * k, q_sums[t], y + t, tokens);
    }
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_neondot(codes + r * row_bytes, blocks, 1, q + t * k, q_sums[t],
                                 out + r * tokens + t, tokens);
}

/* Two rows as [K / 8][2][8]. */
BN_INLINE void bn_decode_pair_neoni8mm(const uint8_t *one, const uint8_t *two, ptrdiff_t blocks,
                                       int8_t *decoded) {
    for (ptrdiff_t half = 0; half < 2 * blocks; half++) {
        int8_t *d = decoded + 2 * (half / 2 * BN_BLOCK + half % 2 * 16);
        int8x16_t a[4], b[4];
        bn_planes_neon(vld1q_u8(one + 16 * half), a);
        bn_planes_neon(vld1q_u8(two + 16 * half), b);
        for (int g = 0; g < 4; g++) {
            vst1q_s8(d + 64 * g, bn_first_halves_neon(a[g], b[g]));
            vst1q_s8(d + 64 * g + 16, bn_last_halves_neon(a[g], b[g]));
        }
    }
}

/* Columns 8i to 8i + 7 of two tokens, from two steps of a panel. */
BN_INLINE int8x16_t bn_panel_tokens_neon(const int8_t *x, int j) {
    int32x4_t one = vreinterpretq_s32_s8(vld1q_s8(x + 16 * (j / 2)));
    int32x4_t two = vreinterpretq_s32_s8(vld1q_s8(x + 16 * (j / 2) + 4 * BN_NEONI8MM_LANES));
    return vreinterpretq_s8_s32(j % 2 ? vzip2q_s32(one, two) : vzip1q_s32(one, two));
}

/* n_pairs pairs of rows (1 or 4, constant after inlining) by 8 tokens, over all of K; the second
 * row of the last pair is stored only where n_rows reaches it. */
BN_NEONI8MM BN_INLINE void bn_gemm_tile_neoni8mm(const int8_t *decoded, ptrdiff_t k, int n_pairs,
                                                 int n_rows, const int8_t *panel,
                                                 const int32_t *q_sums, int32_t *out,
                                                 ptrdiff_t out_stride) {
    int32x4_t sum[4][4]; /* pair of rows, pair of tokens: row 0 by both tokens, row 1 by both */
    for (int pair = 0; pair < n_pairs; pair++)
        for (int j = 0; j < 4; j++) sum[pair][j] = vdupq_n_s32(0);
    for (ptrdiff_t i = 0; i < k; i += 8) {
        int8x16_t x[4];
        for (int j = 0; j < 4; j++) x[j] = bn_panel_tokens_neon(panel + BN_NEONI8MM_LANES * i, j);
        for (int pair = 0; pair < n_pairs; pair++) {
            int8x16_t w = vld1q_s8(decoded + 2 * (pair * k + i));
            for (int j = 0; j < 4; j++) sum[pair][j] = vmmlaq_s32(sum[pair][j], w, x[j]);
        }
    }
    for (int pair = 0; pair < n_pairs; pair++)
        for (int j = 0; j < 2; j++) {
            int32x4_t a = sum[pair][2 * j], b = sum[pair][2 * j + 1];
            int32x4_t bias = vld1q_s32(q_sums + 4 * j);
            int32_t *y = out + 2 * pair * out_stride + 4 * j;
            vst1q_s32(y, vsubq_s32(vcombine_s32(vget_low_s32(a), vget_low_s32(b)), bias));
            if (2 * pair + 1 < n_rows)
                vst1q_s32(y + out_stride,
                          vsubq_s32(vcombine_s32(vget_high_s32(a), vget_high_s32(b)), bias));
        }
}

BN_NEONI8MM static void bn_ternary_gemm_neoni8mm(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                                 const int8_t *panels, int n_panels,
                                                 const int32_t *q_sums, int32_t *out,
                                                 ptrdiff_t out_stride, uint8_t *decoded) {
    const ptrdiff_t k = blocks * BN_BLOCK, row_bytes = blocks * BN_BLOCK_BYTES;
    int8_t *w = (int8_t *)decoded;
    for (int r = 0; r < rows; r += 2) { /* an odd last row is its own partner */
        const uint8_t *one = codes + r * row_bytes;
        bn_decode_pair_neoni8mm(one, r + 1 < rows ? one + row_bytes : one, blocks, w + r * k);
    }
    for (int p = 0; p < n_panels; p++) {
        const int8_t *x = panels + p * BN_NEONI8MM_LANES * k;
        const int32_t *sums = q_sums + p * BN_NEONI8MM_LANES;
        int32_t *y = out + p * BN_NEONI8MM_LANES;
        if (rows == BN_GEMM_TILE_ROWS)
            bn_gemm_tile_neoni8mm(w, k, 4, BN_GEMM_TILE_ROWS, x, sums, y, out_stride);
        else
            for (int r = 0; r < rows; r += 2)
                bn_gemm_tile_neoni8mm(w + r * k, k, 1, rows - r, x, sums, y + r * out_stride,
                                      out_stride);
    }
}

#endif
