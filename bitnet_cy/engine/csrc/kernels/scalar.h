/* Portable C: the reference every other kernel is checked against, and what runs on old CPUs.
 * Integer sums are int32: |sum| <= 2 * 128 * K, safe to K of eight million. */
#ifndef BN_KERNELS_SCALAR_H
#define BN_KERNELS_SCALAR_H

#include <math.h>

#include "../half.h"
#include "../kernels.h"

static int32_t bn_dot_row_scalar(const uint8_t *codes, ptrdiff_t blocks, const int8_t *q) {
    int32_t sum = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const uint8_t *c = codes + BN_BLOCK_BYTES * b;
        const int8_t *x = q + BN_BLOCK * b;
        for (int p = 0; p < BN_BLOCK_BYTES; p++)
            sum += (c[p] >> 6) * x[p] + (c[p] >> 4 & 3) * x[p + 32] + (c[p] >> 2 & 3) * x[p + 64] +
                   (c[p] & 3) * x[p + 96];
    }
    return sum;
}

static void bn_ternary_gemv_scalar(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                   const int8_t *q, int tokens, const int32_t *q_sums,
                                   int32_t *out) {
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            out[r * tokens + t] = bn_dot_row_scalar(codes + r * blocks * BN_BLOCK_BYTES, blocks,
                                                    q + t * blocks * BN_BLOCK) -
                                  q_sums[t];
}

/* lanes = 1: a panel is one token in natural order. */
static void bn_ternary_gemm_scalar(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                   const int8_t *panels, int n_panels, const int32_t *q_sums,
                                   int32_t *out, ptrdiff_t out_stride, uint8_t *decoded) {
    (void)decoded;
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < n_panels; t++)
            out[r * out_stride + t] =
                bn_dot_row_scalar(codes + r * blocks * BN_BLOCK_BYTES, blocks,
                                  panels + t * blocks * BN_BLOCK) -
                q_sums[t];
}

static float bn_quantize_scalar(const float *x, ptrdiff_t n, int8_t *q, int32_t *q_sum) {
    float largest = 1e-5f;
    int finite = 1;
    for (ptrdiff_t i = 0; i < n; i++) {
        float magnitude = fabsf(x[i]);
        finite &= magnitude <= 3.4028234663852886e38f;
        largest = magnitude > largest ? magnitude : largest;
    }
    *q_sum = 0;
    if (!finite) {
        memset(q, 0, (size_t)n);
        return NAN;
    }
    float scale = 127.0f / largest;
    int32_t sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        float rounded = rintf(x[i] * scale);
        rounded = rounded > 127.0f ? 127.0f : rounded < -128.0f ? -128.0f : rounded;
        q[i] = (int8_t)rounded;
        sum += q[i];
    }
    *q_sum = sum;
    return scale;
}

static void bn_rms_norm_scalar(const float *x, const float *weight, ptrdiff_t n, float eps,
                               float *y) {
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    float factor = 1.0f / sqrtf((float)(sum / (double)n) + eps);
    for (ptrdiff_t i = 0; i < n; i++) y[i] = x[i] * factor * weight[i];
}

static void bn_dot_rows_f16_scalar(const uint16_t *rows, ptrdiff_t row_stride, int n_rows,
                                   const float *x, ptrdiff_t n, float *out) {
    for (int r = 0; r < n_rows; r++) {
        float sum = 0;
        for (ptrdiff_t i = 0; i < n; i++) sum += bn_f16_to_f32_one(rows[r * row_stride + i]) * x[i];
        out[r] = sum;
    }
}

static void bn_dot_rows_f32_scalar(const float *rows, ptrdiff_t row_stride, int n_rows,
                                   const float *x, ptrdiff_t n, float *out) {
    for (int r = 0; r < n_rows; r++) {
        float sum = 0;
        for (ptrdiff_t i = 0; i < n; i++) sum += rows[r * row_stride + i] * x[i];
        out[r] = sum;
    }
}

static void bn_multiply_add_scalar(const float *a, ptrdiff_t a_row, ptrdiff_t a_col,
                                   ptrdiff_t rows, const float *b, ptrdiff_t b_stride, ptrdiff_t k,
                                   float *c, ptrdiff_t c_stride, ptrdiff_t n) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t i = 0; i < k; i++)
            for (ptrdiff_t j = 0; j < n; j++)
                c[r * c_stride + j] += a[r * a_row + i * a_col] * b[i * b_stride + j];
}

static void bn_transpose_scalar(const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t cols,
                                float *y, ptrdiff_t y_stride) {
    for (ptrdiff_t j = 0; j < cols; j++)
        for (ptrdiff_t i = 0; i < rows; i++) y[j * y_stride + i] = x[i * x_stride + j];
}

static void bn_f16_to_f32_scalar(const uint16_t *x, ptrdiff_t n, float *y) {
    for (ptrdiff_t i = 0; i < n; i++) y[i] = bn_f16_to_f32_one(x[i]);
}

static void bn_f32_to_f16_scalar(const float *x, ptrdiff_t n, uint16_t *y) {
    for (ptrdiff_t i = 0; i < n; i++) y[i] = bn_f32_to_f16_one(x[i]);
}

static void bn_i8_to_f32_scalar(const int8_t *x, ptrdiff_t n, float *y) {
    for (ptrdiff_t i = 0; i < n; i++) y[i] = x[i];
}

static void bn_softmax_step_scalar(float *scores, ptrdiff_t score_stride, ptrdiff_t n_keys,
                                   ptrdiff_t lanes, float *maximum, float *sum, float *shrink) {
    for (ptrdiff_t l = 0; l < lanes; l++) {
        float highest = maximum[l];
        for (ptrdiff_t i = 0; i < n_keys; i++)
            highest = scores[i * score_stride + l] > highest ? scores[i * score_stride + l] : highest;
        shrink[l] = expf(maximum[l] - highest);
        maximum[l] = highest;
        sum[l] *= shrink[l];
        for (ptrdiff_t i = 0; i < n_keys; i++)
            sum[l] += scores[i * score_stride + l] = expf(scores[i * score_stride + l] - highest);
    }
}

static void bn_relu2_mul_scalar(float *gate, const float *up, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        float z = gate[i] > 0 ? gate[i] : gate[i] == gate[i] ? 0 : gate[i]; /* NaN stays */
        gate[i] = z * z * up[i];
    }
}

static void bn_silu_mul_scalar(float *gate, const float *up, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void bn_scale_tile_scalar(const int32_t *tile, ptrdiff_t tile_stride, int by_token,
                                 ptrdiff_t rows, ptrdiff_t tokens, float scale, const float *s,
                                 float *y, ptrdiff_t y_stride, int add) {
    for (ptrdiff_t t = 0; t < tokens; t++) {
        const float factor = scale / s[t];
        for (ptrdiff_t r = 0; r < rows; r++) {
            const ptrdiff_t at = by_token ? t * tile_stride + r : r * tile_stride + t;
            const float value = (float)tile[at] * factor;
            y[t * y_stride + r] = add ? y[t * y_stride + r] + value : value;
        }
    }
}

/* x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)) with u = sqrt(2 / pi) * (x + 0.044715 x^3) */
static void bn_gelu_mul_scalar(float *gate, const float *up, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        float x = gate[i], u = 1.59576912f * x * (1.0f + 0.044715f * x * x);
        gate[i] = x / (1.0f + expf(-u)) * up[i];
    }
}

static void bn_decode_ternary_scalar(const uint8_t *codes, ptrdiff_t blocks, const float *scales,
                                     int scale_shift, float *y) {
    for (ptrdiff_t quarter = 0; quarter < 4 * blocks; quarter++) {
        const uint8_t *c = codes + quarter / 4 * BN_BLOCK_BYTES;
        const float scale = scales[quarter >> scale_shift];
        const int shift = 6 - 2 * (int)(quarter % 4);
        for (int p = 0; p < BN_BLOCK_BYTES; p++)
            y[32 * quarter + p] = (float)((c[p] >> shift & 3) - 1) * scale;
    }
}

#endif
