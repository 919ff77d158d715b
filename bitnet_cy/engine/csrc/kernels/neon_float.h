/* NEON: float32 and float16 operations, in the order of additions of the AVX2 ones: sums run over
 * eight lanes (two registers), then the tail; dot products use two such accumulators for every row
 * alike. The tail multiplies and adds with one rounding, as the lanes do. */
#ifndef BN_KERNELS_NEON_FLOAT_H
#define BN_KERNELS_NEON_FLOAT_H

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "../half.h"
#include "../kernels.h"
#include "scalar.h"

BN_INLINE float bn_hsum_f32x8_neon(float32x4_t low, float32x4_t high) {
    float32x4_t four = vaddq_f32(low, high);
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

BN_INLINE float32x4_t bn_load_f16x4(const uint16_t *x) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x)));
}

static void bn_rms_norm_neon(const float *x, const float *weight, ptrdiff_t n, float eps,
                             float *y) {
    float32x4_t low = vdupq_n_f32(0), high = low;
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + 4);
        low = vfmaq_f32(low, a, a);
        high = vfmaq_f32(high, b, b);
    }
    float sum = bn_hsum_f32x8_neon(low, high);
    for (; i < n; i++) sum = fmaf(x[i], x[i], sum);
    const float factor = 1.0f / sqrtf(sum / (float)n + eps);
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), factor), vld1q_f32(weight + i)));
    for (; i < n; i++) y[i] = x[i] * factor * weight[i];
}

/* n_rows (1 or 4, constant after inlining) float16 or float32 rows share the loads of x. */
#define BN_DOT_ROWS_NEON(NAME, TYPE, LOAD, SCALAR)                                                 \
    BN_INLINE void NAME##_tile(const TYPE *rows, ptrdiff_t stride, int n_rows, const float *x,     \
                               ptrdiff_t n, float *out) {                                          \
        float32x4_t sum[4][4]; /* even low, even high, odd low, odd high */                        \
        for (int r = 0; r < n_rows; r++)                                                           \
            for (int j = 0; j < 4; j++) sum[r][j] = vdupq_n_f32(0);                                \
        ptrdiff_t i = 0;                                                                           \
        for (; i + 16 <= n; i += 16) {                                                             \
            float32x4_t xs[4];                                                                     \
            for (int j = 0; j < 4; j++) xs[j] = vld1q_f32(x + i + 4 * j);                          \
            for (int r = 0; r < n_rows; r++)                                                       \
                for (int j = 0; j < 4; j++)                                                        \
                    sum[r][j] = vfmaq_f32(sum[r][j], LOAD(rows + r * stride + i + 4 * j), xs[j]);  \
        }                                                                                          \
        for (int r = 0; r < n_rows; r++) {                                                         \
            float total = bn_hsum_f32x8_neon(vaddq_f32(sum[r][0], sum[r][2]),                      \
                                             vaddq_f32(sum[r][1], sum[r][3]));                     \
            for (ptrdiff_t j = i; j < n; j++)                                                      \
                total = fmaf(SCALAR(rows[r * stride + j]), x[j], total);                           \
            out[r] = total;                                                                        \
        }                                                                                          \
    }                                                                                              \
    static void NAME(const TYPE *rows, ptrdiff_t stride, int n_rows, const float *x, ptrdiff_t n,  \
                     float *out) {                                                                 \
        int r = 0;                                                                                 \
        for (; r + 4 <= n_rows; r += 4) NAME##_tile(rows + r * stride, stride, 4, x, n, out + r);  \
        for (; r < n_rows; r++) NAME##_tile(rows + r * stride, stride, 1, x, n, out + r);          \
    }

#define BN_SAME_NEON(x) (x)
BN_DOT_ROWS_NEON(bn_dot_rows_f16_neon, uint16_t, bn_load_f16x4, bn_f16_to_f32_one)
BN_DOT_ROWS_NEON(bn_dot_rows_f32_neon, float, vld1q_f32, BN_SAME_NEON)

/* Rows by vectors of four columns, both constant after inlining. */
BN_INLINE void bn_multiply_tile_neon(const float *a, ptrdiff_t a_row, ptrdiff_t a_col, int rows,
                                     const float *b, ptrdiff_t b_stride, ptrdiff_t k, float *c,
                                     ptrdiff_t c_stride, int vectors) {
    float32x4_t sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = vld1q_f32(c + r * c_stride + 4 * v);
    for (ptrdiff_t i = 0; i < k; i++) {
        float32x4_t x[4];
        for (int v = 0; v < vectors; v++) x[v] = vld1q_f32(b + i * b_stride + 4 * v);
        for (int r = 0; r < rows; r++) {
            float32x4_t w = vdupq_n_f32(a[r * a_row + i * a_col]);
            for (int v = 0; v < vectors; v++) sum[r][v] = vfmaq_f32(sum[r][v], w, x[v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) vst1q_f32(c + r * c_stride + 4 * v, sum[r][v]);
}

static void bn_multiply_add_neon(const float *a, ptrdiff_t a_row, ptrdiff_t a_col, ptrdiff_t rows,
                                 const float *b, ptrdiff_t b_stride, ptrdiff_t k, float *c,
                                 ptrdiff_t c_stride, ptrdiff_t n) {
    const ptrdiff_t whole = n / 4 * 4;
    ptrdiff_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *w = a + r * a_row;
        float *y = c + r * c_stride;
        ptrdiff_t j = 0;
        for (; j + 16 <= n; j += 16)
            bn_multiply_tile_neon(w, a_row, a_col, 4, b + j, b_stride, k, y + j, c_stride, 4);
        for (; j < whole; j += 4)
            bn_multiply_tile_neon(w, a_row, a_col, 4, b + j, b_stride, k, y + j, c_stride, 1);
    }
    for (; r < rows; r++) {
        const float *w = a + r * a_row;
        float *y = c + r * c_stride;
        ptrdiff_t j = 0;
        for (; j + 16 <= n; j += 16)
            bn_multiply_tile_neon(w, a_row, a_col, 1, b + j, b_stride, k, y + j, c_stride, 4);
        for (; j < whole; j += 4)
            bn_multiply_tile_neon(w, a_row, a_col, 1, b + j, b_stride, k, y + j, c_stride, 1);
    }
    for (r = 0; r < rows; r++)
        for (ptrdiff_t j = whole; j < n; j++)
            for (ptrdiff_t i = 0; i < k; i++)
                c[r * c_stride + j] = fmaf(a[r * a_row + i * a_col], b[i * b_stride + j],
                                           c[r * c_stride + j]);
}

static void bn_f16_to_f32_neon(const uint16_t *x, ptrdiff_t n, float *y) {
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(y + i, bn_load_f16x4(x + i));
    for (; i < n; i++) y[i] = bn_f16_to_f32_one(x[i]);
}

static void bn_f32_to_f16_neon(const float *x, ptrdiff_t n, uint16_t *y) {
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    for (; i < n; i++) y[i] = bn_f32_to_f16_one(x[i]);
}

static void bn_i8_to_f32_neon(const int8_t *x, ptrdiff_t n, float *y) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        int16x8_t wide = vmovl_s8(vld1_s8(x + i));
        vst1q_f32(y + i, vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))));
        vst1q_f32(y + i + 4, vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide))));
    }
    for (; i < n; i++) y[i] = x[i];
}

/* exp by 2^n * p(r), |r| <= ln(2) / 2, p of degree 6: within 2 units in the last place.
 * Below -87 the result is 0; a NaN stays a NaN. */
BN_INLINE float32x4_t bn_exp_f32x4_neon(float32x4_t x) {
    const float32x4_t lowest = vdupq_n_f32(-87.0f);
    uint32x4_t dead = vcltq_f32(x, lowest);
    float32x4_t v = vminq_f32(vdupq_n_f32(88.0f), vmaxq_f32(lowest, x));
    float32x4_t n = vrndnq_f32(vmulq_n_f32(v, 1.44269504f));
    float32x4_t r = vfmsq_f32(v, n, vdupq_n_f32(0.693359375f));
    r = vfmsq_f32(r, n, vdupq_n_f32(-2.12194440e-4f));
    float32x4_t p = vdupq_n_f32(1.0f / 720);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23);
    float32x4_t e = vmulq_f32(p, vreinterpretq_f32_s32(exponent));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(e), dead));
}

/* A NaN among the scores does not become the maximum, but its exponential stays one. */
static void bn_softmax_step_neon(float *scores, ptrdiff_t score_stride, ptrdiff_t n_keys,
                                 ptrdiff_t lanes, float *maximum, float *sum, float *shrink) {
    for (ptrdiff_t l = 0; l < lanes; l += 4) {
        const float32x4_t old = vld1q_f32(maximum + l);
        float32x4_t highest = old;
        for (ptrdiff_t i = 0; i < n_keys; i++)
            highest = vmaxnmq_f32(highest, vld1q_f32(scores + i * score_stride + l));
        float32x4_t factor = bn_exp_f32x4_neon(vsubq_f32(old, highest));
        float32x4_t total = vmulq_f32(vld1q_f32(sum + l), factor);
        for (ptrdiff_t i = 0; i < n_keys; i++) {
            float *at = scores + i * score_stride + l;
            float32x4_t e = bn_exp_f32x4_neon(vsubq_f32(vld1q_f32(at), highest));
            vst1q_f32(at, e);
            total = vaddq_f32(total, e);
        }
        vst1q_f32(maximum + l, highest);
        vst1q_f32(shrink + l, factor);
        vst1q_f32(sum + l, total);
    }
}

static void bn_relu2_mul_neon(float *gate, const float *up, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4) { /* fmax keeps a NaN */
        float32x4_t z = vmaxq_f32(vdupq_n_f32(0), vld1q_f32(gate + i));
        vst1q_f32(gate + i, vmulq_f32(vmulq_f32(z, z), vld1q_f32(up + i)));
    }
    for (; i < n; i++) {
        float z = gate[i] > 0 ? gate[i] : gate[i] == gate[i] ? 0 : gate[i];
        gate[i] = z * z * up[i];
    }
}

BN_INLINE float32x4_t bn_silu_f32x4_neon(float32x4_t x) {
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), bn_exp_f32x4_neon(vnegq_f32(x))));
}

static void bn_silu_mul_neon(float *gate, const float *up, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(gate + i,
                  vmulq_f32(bn_silu_f32x4_neon(vld1q_f32(gate + i)), vld1q_f32(up + i)));
    if (i < n) {
        float tail[4] = {0};
        memcpy(tail, gate + i, (size_t)(n - i) * sizeof *gate);
        vst1q_f32(tail, bn_silu_f32x4_neon(vld1q_f32(tail)));
        for (ptrdiff_t j = i; j < n; j++) gate[j] = tail[j - i] * up[j];
    }
}

/* Rows of four become columns: out[j] holds element j of every in[i]. */
BN_INLINE void bn_transpose_f32x4(const float32x4_t in[4], float32x4_t out[4]) {
    float32x4x2_t first = vtrnq_f32(in[0], in[1]), last = vtrnq_f32(in[2], in[3]);
    for (int i = 0; i < 2; i++) {
        out[i] = vcombine_f32(vget_low_f32(first.val[i]), vget_low_f32(last.val[i]));
        out[i + 2] = vcombine_f32(vget_high_f32(first.val[i]), vget_high_f32(last.val[i]));
    }
}

static void bn_transpose_neon(const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t cols,
                              float *y, ptrdiff_t y_stride) {
    ptrdiff_t i = 0;
    for (; i + 4 <= rows; i += 4) {
        ptrdiff_t j = 0;
        for (; j + 4 <= cols; j += 4) {
            float32x4_t in[4], out[4];
            for (int l = 0; l < 4; l++) in[l] = vld1q_f32(x + (i + l) * x_stride + j);
            bn_transpose_f32x4(in, out);
            for (int l = 0; l < 4; l++) vst1q_f32(y + (j + l) * y_stride + i, out[l]);
        }
        bn_transpose_scalar(x + i * x_stride + j, x_stride, 4, cols - j, y + j * y_stride + i,
                            y_stride);
    }
    bn_transpose_scalar(x + i * x_stride, x_stride, rows - i, cols, y + i, y_stride);
}

/* Four rows of four tokens. */
BN_INLINE void bn_scale_block_neon(const int32_t *tile, ptrdiff_t tile_stride, const float *factor,
                                   float *y, ptrdiff_t y_stride, int add) {
    float32x4_t rows[4], tokens[4];
    for (int r = 0; r < 4; r++) rows[r] = vcvtq_f32_s32(vld1q_s32(tile + r * tile_stride));
    bn_transpose_f32x4(rows, tokens);
    for (int t = 0; t < 4; t++) {
        float32x4_t value = vmulq_n_f32(tokens[t], factor[t]);
        if (add) value = vaddq_f32(vld1q_f32(y + t * y_stride), value);
        vst1q_f32(y + t * y_stride, value);
    }
}

/* No NEON kernel makes tiles by token. */
static void bn_scale_tile_neon(const int32_t *tile, ptrdiff_t tile_stride, int by_token,
                               ptrdiff_t rows, ptrdiff_t tokens, float scale, const float *s,
                               float *y, ptrdiff_t y_stride, int add) {
    if (by_token) {
        bn_scale_tile_scalar(tile, tile_stride, 1, rows, tokens, scale, s, y, y_stride, add);
        return;
    }
    ptrdiff_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        float factor[4];
        for (int i = 0; i < 4; i++) factor[i] = scale / s[t + i];
        ptrdiff_t r = 0;
        for (; r + 4 <= rows; r += 4)
            bn_scale_block_neon(tile + r * tile_stride + t, tile_stride, factor,
                                y + t * y_stride + r, y_stride, add);
        bn_scale_tile_scalar(tile + r * tile_stride + t, tile_stride, 0, rows - r, 4, scale,
                             s + t, y + t * y_stride + r, y_stride, add);
    }
    bn_scale_tile_scalar(tile + t, tile_stride, 0, rows, tokens - t, scale, s + t,
                         y + t * y_stride, y_stride, add);
}

/* x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)) with u = sqrt(2 / pi) * (x + 0.044715 x^3) */
BN_INLINE float32x4_t bn_gelu_f32x4_neon(float32x4_t x) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    float32x4_t cubic = vfmaq_f32(one, vmulq_n_f32(x, 0.044715f), x);
    float32x4_t e = bn_exp_f32x4_neon(vmulq_f32(vmulq_n_f32(x, -1.59576912f), cubic));
    return vdivq_f32(x, vaddq_f32(one, e));
}

static void bn_gelu_mul_neon(float *gate, const float *up, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(gate + i,
                  vmulq_f32(bn_gelu_f32x4_neon(vld1q_f32(gate + i)), vld1q_f32(up + i)));
    if (i < n) {
        float tail[4] = {0};
        memcpy(tail, gate + i, (size_t)(n - i) * sizeof *gate);
        vst1q_f32(tail, bn_gelu_f32x4_neon(vld1q_f32(tail)));
        for (ptrdiff_t j = i; j < n; j++) gate[j] = tail[j - i] * up[j];
    }
}

/* 16 codes at a time: bytes to int16 to int32 to float, less 1, times the scale of their group. */
static void bn_decode_ternary_neon(const uint8_t *codes, ptrdiff_t blocks, const float *scales,
                                   int scale_shift, float *y) {
    for (ptrdiff_t quarter = 0; quarter < 4 * blocks; quarter++) {
        const uint8_t *c = codes + quarter / 4 * BN_BLOCK_BYTES;
        const float scale = scales[quarter >> scale_shift];
        const int8x16_t shift = vdupq_n_s8((int8_t)(2 * (int)(quarter % 4) - 6));
        for (int p = 0; p < BN_BLOCK_BYTES; p += 16) {
            uint8x16_t code = vandq_u8(vshlq_u8(vld1q_u8(c + p), shift), vdupq_n_u8(3));
            int8x16_t trit = vsubq_s8(vreinterpretq_s8_u8(code), vdupq_n_s8(1));
            int16x8_t low = vmovl_s8(vget_low_s8(trit)), high = vmovl_high_s8(trit);
            float *out = y + 32 * quarter + p;
            vst1q_f32(out, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), scale));
            vst1q_f32(out + 4, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(low)), scale));
            vst1q_f32(out + 8, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), scale));
            vst1q_f32(out + 12, vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(high)), scale));
        }
    }
}

#endif
