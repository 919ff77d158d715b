/* AVX-512 F: the operations on floats that gain from its width. Every sum is a chain of its own, in
 * the order of avx2_float.h: the same bits. */
#ifndef BN_KERNELS_AVX512_FLOAT_H
#define BN_KERNELS_AVX512_FLOAT_H

#include "avx2_float.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BN_AVX512
#else
#define BN_AVX512 __attribute__((target("avx2,fma,f16c,avx512f")))
#endif

/* gcc otherwise keeps a copy of every sum in memory. */
#if defined(__GNUC__) && !defined(BN_EMULATED)
#define BN_KEEP_AVX512(sum) __asm__("" : "+v"(sum))
#else
#define BN_KEEP_AVX512(sum)
#endif

/* Rows by vectors of sixteen columns, both constant after inlining: sixteen sums hide the latency
 * of one, and share their loads. */
BN_AVX512 BN_INLINE void bn_multiply_tile_avx512(const float *a, ptrdiff_t a_row,
                                                 ptrdiff_t a_col, int rows, const float *b,
                                                 ptrdiff_t b_stride, ptrdiff_t k, float *c,
                                                 ptrdiff_t c_stride, int vectors) {
    __m512 sum[8][4];
    BN_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        BN_UNROLL(4)
        for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_loadu_ps(c + r * c_stride + 16 * v);
    }
    for (ptrdiff_t i = 0; i < k; i++, a += a_col, b += b_stride) {
        __m512 x[4];
        BN_UNROLL(4)
        for (int v = 0; v < vectors; v++) x[v] = _mm512_loadu_ps(b + 16 * v);
        BN_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            __m512 w = _mm512_set1_ps(a[r * a_row]);
            BN_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                sum[r][v] = _mm512_fmadd_ps(w, x[v], sum[r][v]);
                BN_KEEP_AVX512(sum[r][v]);
            }
        }
    }
    BN_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        BN_UNROLL(4)
        for (int v = 0; v < vectors; v++) _mm512_storeu_ps(c + r * c_stride + 16 * v, sum[r][v]);
    }
}

BN_AVX512 static void bn_multiply_add_avx512(const float *a, ptrdiff_t a_row, ptrdiff_t a_col,
                                             ptrdiff_t rows, const float *b, ptrdiff_t b_stride,
                                             ptrdiff_t k, float *c, ptrdiff_t c_stride,
                                             ptrdiff_t n) {
    while (rows >= 4) {
        const ptrdiff_t take = rows >= 8 && n < 64 ? 8 : 4;
        ptrdiff_t j = 0;
        for (; take == 4 && j + 64 <= n; j += 64)
            bn_multiply_tile_avx512(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, 4);
        for (; j + 32 <= n; j += 32)
            if (take == 8)
                bn_multiply_tile_avx512(a, a_row, a_col, 8, b + j, b_stride, k, c + j, c_stride, 2);
            else
                bn_multiply_tile_avx512(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, 2);
        for (; j + 16 <= n; j += 16)
            if (take == 8)
                bn_multiply_tile_avx512(a, a_row, a_col, 8, b + j, b_stride, k, c + j, c_stride, 1);
            else
                bn_multiply_tile_avx512(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, 1);
        bn_multiply_add_avx2(a, a_row, a_col, take, b + j, b_stride, k, c + j, c_stride, n - j);
        rows -= take, a += take * a_row, c += take * c_stride;
    }
    bn_multiply_add_avx2(a, a_row, a_col, rows, b, b_stride, k, c, c_stride, n);
}

/* As bn_quantize_avx2, bit for bit: neither the maximum nor a sum of integers has an order. */
BN_AVX512 static float bn_quantize_avx512(const float *x, ptrdiff_t n, int8_t *q,
                                          int32_t *q_sum) {
    const __m512 infinity = _mm512_set1_ps(INFINITY);
    const ptrdiff_t whole = n / 16 * 16;
    __m512 largest16 = _mm512_set1_ps(1e-5f);
    __mmask16 bad = 0;
    for (ptrdiff_t i = 0; i < whole; i += 16) {
        __m512 magnitude = _mm512_abs_ps(_mm512_loadu_ps(x + i));
        bad |= _mm512_cmp_ps_mask(magnitude, infinity, _CMP_NLT_UQ);
        largest16 = _mm512_max_ps(largest16, magnitude);
    }
    float lanes[16], largest = 1e-5f;
    _mm512_storeu_ps(lanes, largest16);
    for (int l = 0; l < 16; l++) largest = lanes[l] > largest ? lanes[l] : largest;
    int finite = !bad;
    for (ptrdiff_t i = whole; i < n; i++) {
        const float magnitude = fabsf(x[i]);
        finite &= magnitude < INFINITY;
        largest = magnitude > largest ? magnitude : largest;
    }
    *q_sum = 0;
    if (!finite) {
        memset(q, 0, (size_t)n);
        return NAN;
    }
    const float scale = 127.0f / largest;
    const __m512 scale16 = _mm512_set1_ps(scale);
    __m512i sum16 = _mm512_setzero_si512();
    for (ptrdiff_t i = 0; i < whole; i += 16) {
        __m512i r = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), scale16));
        sum16 = _mm512_add_epi32(sum16, r);
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtsepi32_epi8(r));
    }
    int32_t sum = _mm512_reduce_add_epi32(sum16);
    for (ptrdiff_t i = whole; i < n; i++) {
        q[i] = (int8_t)_mm_cvtss_si32(_mm_set_ss(x[i] * scale));
        sum += q[i];
    }
    *q_sum = sum;
    return scale;
}

/* bn_exp_f32x8 on sixteen lanes. */
BN_AVX512 BN_INLINE __m512 bn_exp_f32x16(__m512 x) {
    const __m512 lowest = _mm512_set1_ps(-87.0f);
    __mmask16 dead = _mm512_cmp_ps_mask(x, lowest, _CMP_LT_OQ);
    __m512 v = _mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_max_ps(lowest, x));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), v);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 720);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    __m512i exponent = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n),
                                                          _mm512_set1_epi32(127)), 23);
    __m512 e = _mm512_mul_ps(p, _mm512_castsi512_ps(exponent));
    return _mm512_mask_blend_ps(dead, e, _mm512_setzero_ps());
}

BN_AVX512 static void bn_softmax_step_avx512(float *scores, ptrdiff_t score_stride,
                                             ptrdiff_t n_keys, ptrdiff_t lanes, float *maximum,
                                             float *sum, float *shrink) {
    ptrdiff_t l = 0;
    for (; l + 16 <= lanes; l += 16) {
        const __m512 old = _mm512_loadu_ps(maximum + l);
        __m512 highest = old;
        for (ptrdiff_t i = 0; i < n_keys; i++)
            highest = _mm512_max_ps(_mm512_loadu_ps(scores + i * score_stride + l), highest);
        __m512 factor = bn_exp_f32x16(_mm512_sub_ps(old, highest));
        __m512 total = _mm512_mul_ps(_mm512_loadu_ps(sum + l), factor);
        for (ptrdiff_t i = 0; i < n_keys; i++) {
            float *at = scores + i * score_stride + l;
            __m512 e = bn_exp_f32x16(_mm512_sub_ps(_mm512_loadu_ps(at), highest));
            _mm512_storeu_ps(at, e);
            total = _mm512_add_ps(total, e);
        }
        _mm512_storeu_ps(maximum + l, highest);
        _mm512_storeu_ps(shrink + l, factor);
        _mm512_storeu_ps(sum + l, total);
    }
    bn_softmax_step_avx2(scores + l, score_stride, n_keys, lanes - l, maximum + l, sum + l,
                         shrink + l);
}

#endif
