/* NEON as every AArch64 CPU has it: ternary products and quantization.
 *
 * smlal multiplies 8 codes by 8 activations and adds the products to 8 int16 sums. A product is
 * within -256 .. 254 (code 2 times -128 .. 127), so 128 of them reach -32768 at the least, which
 * int16 holds, and 32512 at the most. GEMV gives a sum 8 products a block and widens every
 * 16 blocks; GEMM gives a sum one product a step of four columns and widens every 128 steps.
 * int32 sums are safe to K of eight million.
 */
#ifndef BN_KERNELS_NEON_H
#define BN_KERNELS_NEON_H

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "../kernels.h"

enum { BN_NEON_LANES = 8, BN_NEON_WIDEN_BLOCKS = 16, BN_NEON_WIDEN_STEPS = 128 };

/* Planes 0 to 3 of 16 packed bytes: elements p, p + 32, p + 64 and p + 96 of the block. */
BN_INLINE void bn_planes_neon(uint8x16_t packed, int8x16_t plane[4]) {
    const uint8x16_t low2 = vdupq_n_u8(3);
    plane[0] = vreinterpretq_s8_u8(vshrq_n_u8(packed, 6));
    plane[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 4), low2));
    plane[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 2), low2));
    plane[3] = vreinterpretq_s8_u8(vandq_u8(packed, low2));
}

/* n_rows (1 or 4, constant after inlining) rows share the loads of one token. */
BN_INLINE void bn_gemv_rows_neon(const uint8_t *codes, ptrdiff_t blocks, int n_rows,
                                 const int8_t *q, int32_t q_sum, int32_t *out, int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int32x4_t sum[4];
    for (int r = 0; r < n_rows; r++) sum[r] = vdupq_n_s32(0);
    for (ptrdiff_t start = 0; start < blocks; start += BN_NEON_WIDEN_BLOCKS) {
        ptrdiff_t end = start + BN_NEON_WIDEN_BLOCKS < blocks ? start + BN_NEON_WIDEN_BLOCKS : blocks;
        int16x8_t low[4], high[4];
        for (int r = 0; r < n_rows; r++) low[r] = high[r] = vdupq_n_s16(0);
        for (ptrdiff_t half = 2 * start; half < 2 * end; half++) {
            const int8_t *x = q + half / 2 * BN_BLOCK + half % 2 * 16;
            int8x16_t xs[4];
            for (int g = 0; g < 4; g++) xs[g] = vld1q_s8(x + 32 * g);
            for (int r = 0; r < n_rows; r++) {
                int8x16_t plane[4];
                bn_planes_neon(vld1q_u8(codes + r * row_bytes + 16 * half), plane);
                for (int g = 0; g < 4; g++) {
                    low[r] = vmlal_s8(low[r], vget_low_s8(plane[g]), vget_low_s8(xs[g]));
                    high[r] = vmlal_high_s8(high[r], plane[g], xs[g]);
                }
            }
        }
        for (int r = 0; r < n_rows; r++)
            sum[r] = vpadalq_s16(vpadalq_s16(sum[r], low[r]), high[r]);
    }
    for (int r = 0; r < n_rows; r++) out[r * out_stride] = vaddvq_s32(sum[r]) - q_sum;
}

static void bn_ternary_gemv_neon(const uint8_t *codes, ptrdiff_t blocks, int rows, const int8_t *q,
                                 int tokens, const int32_t *q_sums, int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_neon(codes + r * row_bytes, blocks, 4, q + t * blocks * BN_BLOCK,
                              q_sums[t], out + r * tokens + t, tokens);
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_neon(codes + r * row_bytes, blocks, 1, q + t * blocks * BN_BLOCK,
                              q_sums[t], out + r * tokens + t, tokens);
}

BN_INLINE void bn_decode_row_neon(const uint8_t *codes, ptrdiff_t blocks, int8_t *decoded) {
    for (ptrdiff_t half = 0; half < 2 * blocks; half++) {
        int8_t *d = decoded + half / 2 * BN_BLOCK + half % 2 * 16;
        int8x16_t plane[4];
        bn_planes_neon(vld1q_u8(codes + 16 * half), plane);
        for (int g = 0; g < 4; g++) vst1q_s8(d + 32 * g, plane[g]);
    }
}

BN_INLINE int8x16_t bn_broadcast4_neon(const int8_t *four) {
    int32_t word;
    memcpy(&word, four, sizeof word);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

/* A tile of n_rows rows (1 or 4, constant after inlining) by 8 tokens, over all of K.
 * part[r][j] holds tokens 2j and 2j + 1, four columns each. */
BN_INLINE void bn_gemm_tile_neon(const int8_t *decoded, ptrdiff_t k, int n_rows,
                                 const int8_t *panel, const int32_t *q_sums, int32_t *out,
                                 ptrdiff_t out_stride) {
    const ptrdiff_t steps = k / 4;
    int32x4_t sum[4][4];
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < 4; j++) sum[r][j] = vdupq_n_s32(0);
    for (ptrdiff_t start = 0; start < steps; start += BN_NEON_WIDEN_STEPS) {
        ptrdiff_t end = start + BN_NEON_WIDEN_STEPS < steps ? start + BN_NEON_WIDEN_STEPS : steps;
        int16x8_t part[4][4];
        for (int r = 0; r < n_rows; r++)
            for (int j = 0; j < 4; j++) part[r][j] = vdupq_n_s16(0);
        for (ptrdiff_t i = start; i < end; i++) {
            int8x16_t x0 = vld1q_s8(panel + 32 * i), x1 = vld1q_s8(panel + 32 * i + 16);
            for (int r = 0; r < n_rows; r++) {
                int8x16_t w = bn_broadcast4_neon(decoded + r * k + 4 * i);
                part[r][0] = vmlal_s8(part[r][0], vget_low_s8(w), vget_low_s8(x0));
                part[r][1] = vmlal_high_s8(part[r][1], w, x0);
                part[r][2] = vmlal_s8(part[r][2], vget_low_s8(w), vget_low_s8(x1));
                part[r][3] = vmlal_high_s8(part[r][3], w, x1);
            }
        }
        for (int r = 0; r < n_rows; r++)
            for (int j = 0; j < 4; j++) sum[r][j] = vpadalq_s16(sum[r][j], part[r][j]);
    }
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < 2; j++) {
            int32x4_t product = vpaddq_s32(sum[r][2 * j], sum[r][2 * j + 1]);
            vst1q_s32(out + r * out_stride + 4 * j, vsubq_s32(product, vld1q_s32(q_sums + 4 * j)));
        }
}

static void bn_ternary_gemm_neon(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                 const int8_t *panels, int n_panels, const int32_t *q_sums,
                                 int32_t *out, ptrdiff_t out_stride, uint8_t *decoded) {
    const ptrdiff_t k = blocks * BN_BLOCK;
    int8_t *w = (int8_t *)decoded;
    for (int r = 0; r < rows; r++)
        bn_decode_row_neon(codes + r * blocks * BN_BLOCK_BYTES, blocks, w + r * k);
    for (int p = 0; p < n_panels; p++) {
        const int8_t *x = panels + p * BN_NEON_LANES * k;
        const int32_t *sums = q_sums + p * BN_NEON_LANES;
        int32_t *y = out + p * BN_NEON_LANES;
        int r = 0;
        for (; r + 4 <= rows; r += 4)
            bn_gemm_tile_neon(w + r * k, k, 4, x, sums, y + r * out_stride, out_stride);
        for (; r < rows; r++)
            bn_gemm_tile_neon(w + r * k, k, 1, x, sums, y + r * out_stride, out_stride);
    }
}

/* fmax gives a NaN where either side is one, so that one comparison at the end finds every NaN
 * and infinity. |x * scale| <= 127 after rounding: the narrowing never saturates. */
static float bn_quantize_neon(const float *x, ptrdiff_t n, int8_t *q, int32_t *q_sum) {
    float32x4_t low = vdupq_n_f32(1e-5f), high = low;
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        low = vmaxq_f32(low, vabsq_f32(vld1q_f32(x + i)));
        high = vmaxq_f32(high, vabsq_f32(vld1q_f32(x + i + 4)));
    }
    float largest = vmaxvq_f32(vmaxq_f32(low, high));
    int finite = largest < INFINITY;
    for (; i < n; i++) {
        float magnitude = fabsf(x[i]);
        finite &= magnitude < INFINITY;
        largest = magnitude > largest ? magnitude : largest;
    }
    *q_sum = 0;
    if (!finite) {
        memset(q, 0, (size_t)n);
        return NAN;
    }
    const float scale = 127.0f / largest;
    int32x4_t sum4 = vdupq_n_s32(0);
    for (i = 0; i + 8 <= n; i += 8) {
        int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), scale));
        int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), scale));
        sum4 = vaddq_s32(sum4, vaddq_s32(a, b));
        vst1_s8(q + i, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
    }
    int32_t sum = vaddvq_s32(sum4);
    for (; i < n; i++) {
        q[i] = (int8_t)rintf(x[i] * scale);
        sum += q[i];
    }
    *q_sum = sum;
    return scale;
}

#endif
