/* AVX2 + FMA + F16C: float32 and float16 operations. Sums run over eight lanes in a fixed order,
 * then the tail; dot products use two such accumulators for every row alike. */
#ifndef BN_KERNELS_AVX2_FLOAT_H
#define BN_KERNELS_AVX2_FLOAT_H

#include "../half.h"
#include "avx2.h"
#include "scalar.h"

enum { BN_AVX2_SCALE_AHEAD = 8 };

BN_AVX2 BN_INLINE __m256 bn_load_f16x8(const uint16_t *x) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x));
}

BN_AVX2 static void bn_rms_norm_avx2(const float *x, const float *weight, ptrdiff_t n, float eps,
                                     float *y) {
    __m256 sum8 = _mm256_setzero_ps();
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        sum8 = _mm256_fmadd_ps(v, v, sum8);
    }
    float sum = bn_hsum_f32x8(sum8);
    for (; i < n; i++) sum = fmaf(x[i], x[i], sum);
    const float factor = 1.0f / sqrtf(sum / (float)n + eps);
    const __m256 factor8 = _mm256_set1_ps(factor);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor8),
                                              _mm256_loadu_ps(weight + i)));
    for (; i < n; i++) y[i] = x[i] * factor * weight[i];
}

/* n_rows (1 or 4, constant after inlining) float16 or float32 rows share the loads of x. */
#define BN_DOT_ROWS_AVX2(NAME, TYPE, LOAD, SCALAR)                                                 \
    BN_AVX2 BN_INLINE void NAME##_tile(const TYPE *rows, ptrdiff_t stride, int n_rows,         \
                                           const float *x, ptrdiff_t n, float *out) {              \
        __m256 even[4], odd[4];                                                                    \
        for (int r = 0; r < n_rows; r++) even[r] = odd[r] = _mm256_setzero_ps();                   \
        ptrdiff_t i = 0;                                                                           \
        for (; i + 16 <= n; i += 16) {                                                             \
            __m256 x0 = _mm256_loadu_ps(x + i), x1 = _mm256_loadu_ps(x + i + 8);                   \
            for (int r = 0; r < n_rows; r++) {                                                     \
                even[r] = _mm256_fmadd_ps(LOAD(rows + r * stride + i), x0, even[r]);               \
                odd[r] = _mm256_fmadd_ps(LOAD(rows + r * stride + i + 8), x1, odd[r]);             \
            }                                                                                      \
        }                                                                                          \
        for (int r = 0; r < n_rows; r++) {                                                         \
            float sum = bn_hsum_f32x8(_mm256_add_ps(even[r], odd[r]));                             \
            for (ptrdiff_t j = i; j < n; j++)                                                      \
                sum = fmaf(SCALAR(rows[r * stride + j]), x[j], sum);                               \
            out[r] = sum;                                                                          \
        }                                                                                          \
    }                                                                                              \
    BN_AVX2 static void NAME(const TYPE *rows, ptrdiff_t stride, int n_rows, const float *x,       \
                             ptrdiff_t n, float *out) {                                            \
        int r = 0;                                                                                 \
        for (; r + 4 <= n_rows; r += 4) NAME##_tile(rows + r * stride, stride, 4, x, n, out + r);  \
        for (; r < n_rows; r++) NAME##_tile(rows + r * stride, stride, 1, x, n, out + r);          \
    }

#define BN_SAME(x) (x)
BN_DOT_ROWS_AVX2(bn_dot_rows_f16_avx2, uint16_t, bn_load_f16x8, bn_f16_to_f32_one)
BN_DOT_ROWS_AVX2(bn_dot_rows_f32_avx2, float, _mm256_loadu_ps, BN_SAME)

/* Rows by vectors of eight columns (both constant after inlining): at least eight sums at once
 * hide the latency of one. */
BN_AVX2 BN_INLINE void bn_multiply_tile_avx2(const float *a, ptrdiff_t a_row, ptrdiff_t a_col,
                                             int rows, const float *b, ptrdiff_t b_stride,
                                             ptrdiff_t k, float *c, ptrdiff_t c_stride,
                                             int vectors) {
    __m256 sum[4][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = _mm256_loadu_ps(c + r * c_stride + 8 * v);
    for (ptrdiff_t i = 0; i < k; i++) {
        __m256 x[4];
        for (int v = 0; v < vectors; v++) x[v] = _mm256_loadu_ps(b + i * b_stride + 8 * v);
        for (int r = 0; r < rows; r++) {
            __m256 w = _mm256_broadcast_ss(a + r * a_row + i * a_col);
            for (int v = 0; v < vectors; v++) sum[r][v] = _mm256_fmadd_ps(w, x[v], sum[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) _mm256_storeu_ps(c + r * c_stride + 8 * v, sum[r][v]);
}

BN_AVX2 static void bn_multiply_add_avx2(const float *a, ptrdiff_t a_row, ptrdiff_t a_col,
                                         ptrdiff_t rows, const float *b, ptrdiff_t b_stride,
                                         ptrdiff_t k, float *c, ptrdiff_t c_stride, ptrdiff_t n) {
    ptrdiff_t r = 0;
    for (; r + 4 <= rows; r += 4, a += 4 * a_row, c += 4 * c_stride) {
        ptrdiff_t j = 0;
        for (; j + 16 <= n; j += 16)
            bn_multiply_tile_avx2(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, 2);
        for (; j + 8 <= n; j += 8)
            bn_multiply_tile_avx2(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, 1);
        for (; j < n; j++)
            for (int l = 0; l < 4; l++)
                for (ptrdiff_t i = 0; i < k; i++)
                    c[l * c_stride + j] = fmaf(a[l * a_row + i * a_col], b[i * b_stride + j],
                                               c[l * c_stride + j]);
    }
    for (; r < rows; r++, a += a_row, c += c_stride) {
        ptrdiff_t j = 0;
        for (; j + 32 <= n; j += 32)
            bn_multiply_tile_avx2(a, a_row, a_col, 1, b + j, b_stride, k, c + j, c_stride, 4);
        for (; j + 8 <= n; j += 8)
            bn_multiply_tile_avx2(a, a_row, a_col, 1, b + j, b_stride, k, c + j, c_stride, 1);
        for (; j < n; j++)
            for (ptrdiff_t i = 0; i < k; i++)
                c[j] = fmaf(a[i * a_col], b[i * b_stride + j], c[j]);
    }
}

BN_AVX2 static void bn_f16_to_f32_avx2(const uint16_t *x, ptrdiff_t n, float *y) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, bn_load_f16x8(x + i));
    for (; i < n; i++) y[i] = bn_f16_to_f32_one(x[i]);
}

BN_AVX2 static void bn_f32_to_f16_avx2(const float *x, ptrdiff_t n, uint16_t *y) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(y + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) y[i] = bn_f32_to_f16_one(x[i]);
}

BN_AVX2 static void bn_i8_to_f32_avx2(const int8_t *x, ptrdiff_t n, float *y) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(x + i));
        _mm256_storeu_ps(y + i, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
    }
    for (; i < n; i++) y[i] = x[i];
}

/* exp by 2^n * p(r), |r| <= ln(2) / 2, p of degree 6: within 2 units in the last place.
 * Below -87 the result is 0; a NaN stays a NaN. */
BN_AVX2 BN_INLINE __m256 bn_exp_f32x8(__m256 x) {
    const __m256 lowest = _mm256_set1_ps(-87.0f);
    __m256 dead = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
    __m256 v = _mm256_min_ps(_mm256_set1_ps(88.0f), _mm256_max_ps(lowest, x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(v, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), v);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 720);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n),
                                                          _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(dead, _mm256_mul_ps(p, _mm256_castsi256_ps(exponent)));
}

/* A NaN among the scores does not become the maximum, but its exponential stays one. */
BN_AVX2 static void bn_softmax_step_avx2(float *scores, ptrdiff_t score_stride, ptrdiff_t n_keys,
                                         ptrdiff_t lanes, float *maximum, float *sum, float *shrink) {
    for (ptrdiff_t l = 0; l < lanes; l += 8) {
        const __m256 old = _mm256_loadu_ps(maximum + l);
        __m256 highest = old;
        for (ptrdiff_t i = 0; i < n_keys; i++)
            highest = _mm256_max_ps(_mm256_loadu_ps(scores + i * score_stride + l), highest);
        __m256 factor = bn_exp_f32x8(_mm256_sub_ps(old, highest));
        __m256 total = _mm256_mul_ps(_mm256_loadu_ps(sum + l), factor);
        for (ptrdiff_t i = 0; i < n_keys; i++) {
            float *at = scores + i * score_stride + l;
            __m256 e = bn_exp_f32x8(_mm256_sub_ps(_mm256_loadu_ps(at), highest));
            _mm256_storeu_ps(at, e);
            total = _mm256_add_ps(total, e);
        }
        _mm256_storeu_ps(maximum + l, highest);
        _mm256_storeu_ps(shrink + l, factor);
        _mm256_storeu_ps(sum + l, total);
    }
}

BN_AVX2 static void bn_relu2_mul_avx2(float *gate, const float *up, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) { /* max(0, NaN) is NaN: the second operand wins */
        __m256 z = _mm256_max_ps(_mm256_setzero_ps(), _mm256_loadu_ps(gate + i));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_mul_ps(z, z), _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++) {
        float z = gate[i] > 0 ? gate[i] : gate[i] == gate[i] ? 0 : gate[i];
        gate[i] = z * z * up[i];
    }
}

BN_AVX2 BN_INLINE __m256 bn_silu_f32x8(__m256 x) {
    __m256 e = bn_exp_f32x8(_mm256_sub_ps(_mm256_setzero_ps(), x));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

BN_AVX2 static void bn_silu_mul_avx2(float *gate, const float *up, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(bn_silu_f32x8(_mm256_loadu_ps(gate + i)),
                                                 _mm256_loadu_ps(up + i)));
    if (i < n) {
        float tail[8] = {0};
        memcpy(tail, gate + i, (size_t)(n - i) * sizeof *gate);
        _mm256_storeu_ps(tail, bn_silu_f32x8(_mm256_loadu_ps(tail)));
        for (ptrdiff_t j = i; j < n; j++) gate[j] = tail[j - i] * up[j];
    }
}

/* Rows of eight become columns: out[j] holds element j of every in[i]. */
BN_AVX2 BN_INLINE void bn_transpose_f32x8(const __m256 in[8], __m256 out[8]) {
    __m256 pair[8], four[8];
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = _mm256_unpacklo_ps(in[2 * i], in[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_ps(in[2 * i], in[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            four[4 * i + 2 * j] = _mm256_shuffle_ps(pair[4 * i + j], pair[4 * i + j + 2], 0x44);
            four[4 * i + 2 * j + 1] = _mm256_shuffle_ps(pair[4 * i + j], pair[4 * i + j + 2], 0xEE);
        }
    for (int i = 0; i < 4; i++) {
        out[i] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
        out[i + 4] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
    }
}

BN_AVX2 static void bn_transpose_avx2(const float *x, ptrdiff_t x_stride, ptrdiff_t rows,
                                      ptrdiff_t cols, float *y, ptrdiff_t y_stride) {
    ptrdiff_t i = 0;
    for (; i + 8 <= rows; i += 8) {
        ptrdiff_t j = 0;
        for (; j + 8 <= cols; j += 8) {
            __m256 in[8], out[8];
            for (int l = 0; l < 8; l++) in[l] = _mm256_loadu_ps(x + (i + l) * x_stride + j);
            bn_transpose_f32x8(in, out);
            for (int l = 0; l < 8; l++) _mm256_storeu_ps(y + (j + l) * y_stride + i, out[l]);
        }
        bn_transpose_scalar(x + i * x_stride + j, x_stride, 8, cols - j, y + j * y_stride + i,
                            y_stride);
    }
    bn_transpose_scalar(x + i * x_stride, x_stride, rows - i, cols, y + i, y_stride);
}

/* Eight rows of eight tokens, from token t on. */
BN_AVX2 BN_INLINE void bn_scale_block_avx2(const int32_t *tile, ptrdiff_t tile_stride,
                                           const float *factor, float *y, ptrdiff_t y_stride,
                                           int add) {
    __m256 rows[8], tokens[8];
    for (int r = 0; r < 8; r++)
        rows[r] = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(tile + r * tile_stride)));
    bn_transpose_f32x8(rows, tokens);
    for (int t = 0; t < 8; t++) {
        __m256 value = _mm256_mul_ps(tokens[t], _mm256_broadcast_ss(factor + t));
        if (add) value = _mm256_add_ps(_mm256_loadu_ps(y + t * y_stride), value);
        _mm256_storeu_ps(y + t * y_stride, value);
    }
}

/* One token's numbers, which lie together. */
BN_AVX2 BN_INLINE void bn_scale_row_avx2(const int32_t *tile, ptrdiff_t rows, float factor,
                                         float *y, int add) {
    const __m256 factor8 = _mm256_set1_ps(factor);
    ptrdiff_t r = 0;
    for (; r + 8 <= rows; r += 8) {
        __m256 value = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(tile + r)));
        value = _mm256_mul_ps(value, factor8);
        if (add) value = _mm256_add_ps(_mm256_loadu_ps(y + r), value);
        _mm256_storeu_ps(y + r, value);
    }
    for (; r < rows; r++) y[r] = add ? y[r] + (float)tile[r] * factor : (float)tile[r] * factor;
}

/* y is far away: its lines are asked for some tokens ahead. */
BN_AVX2 static void bn_scale_by_token_avx2(const int32_t *tile, ptrdiff_t tile_stride,
                                           ptrdiff_t rows, ptrdiff_t tokens, float scale,
                                           const float *s, float *y, ptrdiff_t y_stride, int add) {
    for (ptrdiff_t t = 0; t < tokens; t++, tile += tile_stride, y += y_stride) {
        for (ptrdiff_t r = 0; t + BN_AVX2_SCALE_AHEAD < tokens && r < rows; r += 16)
            _mm_prefetch((const char *)(y + BN_AVX2_SCALE_AHEAD * y_stride + r), _MM_HINT_T0);
        if (add) bn_scale_row_avx2(tile, rows, scale / s[t], y, 1);
        else bn_scale_row_avx2(tile, rows, scale / s[t], y, 0);
    }
}

BN_AVX2 static void bn_scale_tile_avx2(const int32_t *tile, ptrdiff_t tile_stride, int by_token,
                                       ptrdiff_t rows, ptrdiff_t tokens, float scale,
                                       const float *s, float *y, ptrdiff_t y_stride, int add) {
    ptrdiff_t t = 0;
    if (by_token) {
        bn_scale_by_token_avx2(tile, tile_stride, rows, tokens, scale, s, y, y_stride, add);
        return;
    }
    for (; t + 8 <= tokens; t += 8) {
        float factor[8];
        for (int i = 0; i < 8; i++) factor[i] = scale / s[t + i];
        ptrdiff_t r = 0;
        for (; r + 8 <= rows; r += 8) {
            const int32_t *block = tile + r * tile_stride + t;
            float *out = y + t * y_stride + r;
            if (add) bn_scale_block_avx2(block, tile_stride, factor, out, y_stride, 1);
            else bn_scale_block_avx2(block, tile_stride, factor, out, y_stride, 0);
        }
        bn_scale_tile_scalar(tile + r * tile_stride + t, tile_stride, 0, rows - r, 8, scale,
                             s + t, y + t * y_stride + r, y_stride, add);
    }
    bn_scale_tile_scalar(tile + t, tile_stride, 0, rows, tokens - t, scale, s + t,
                         y + t * y_stride, y_stride, add);
}

/* x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)) with u = sqrt(2 / pi) * (x + 0.044715 x^3) */
BN_AVX2 BN_INLINE __m256 bn_gelu_f32x8(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 cubic = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_set1_ps(0.044715f), x), x, one);
    __m256 e = bn_exp_f32x8(_mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(-1.59576912f), x), cubic));
    return _mm256_div_ps(x, _mm256_add_ps(one, e));
}

BN_AVX2 static void bn_gelu_mul_avx2(float *gate, const float *up, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(bn_gelu_f32x8(_mm256_loadu_ps(gate + i)),
                                                 _mm256_loadu_ps(up + i)));
    if (i < n) {
        float tail[8] = {0};
        memcpy(tail, gate + i, (size_t)(n - i) * sizeof *gate);
        _mm256_storeu_ps(tail, bn_gelu_f32x8(_mm256_loadu_ps(tail)));
        for (ptrdiff_t j = i; j < n; j++) gate[j] = tail[j - i] * up[j];
    }
}

/* 32 codes at a time: bytes to int32 to float, less 1, times the scale of their group. */
BN_AVX2 static void bn_decode_ternary_avx2(const uint8_t *codes, ptrdiff_t blocks,
                                           const float *scales, int scale_shift, float *y) {
    const __m256i low2 = _mm256_set1_epi8(3);
    for (ptrdiff_t b = 0; b < blocks; b++) {
        __m256i packed = _mm256_loadu_si256((const __m256i *)(codes + BN_BLOCK_BYTES * b));
        for (int g = 0; g < 4; g++) {
            const __m256 scale = _mm256_broadcast_ss(&scales[(4 * b + g) >> scale_shift]);
            uint8_t plane[BN_BLOCK_BYTES];
            __m256i shifted = _mm256_srl_epi16(packed, _mm_cvtsi32_si128(6 - 2 * g));
            _mm256_storeu_si256((__m256i *)plane, _mm256_and_si256(shifted, low2));
            for (int p = 0; p < BN_BLOCK_BYTES; p += 8) {
                __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(plane + p)));
                __m256i trit = _mm256_sub_epi32(code, _mm256_set1_epi32(1));
                _mm256_storeu_ps(y + BN_BLOCK * b + 32 * g + p,
                                 _mm256_mul_ps(_mm256_cvtepi32_ps(trit), scale));
            }
        }
    }
}

#endif
