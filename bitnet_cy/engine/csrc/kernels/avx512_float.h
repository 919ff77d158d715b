/* AVX-512 F: the float operations that gain from its width. Every sum is a chain of its own, in the
 * order of avx2_float.h: the same bits. */
#ifndef BN_KERNELS_AVX512_FLOAT_H
#define BN_KERNELS_AVX512_FLOAT_H

#include "avx2_float.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BN_AVX512
#else
#define BN_AVX512 __attribute__((target("avx2,fma,f16c,avx512f")))
#endif

/* Rows by vectors of sixteen columns, both constant after inlining. */
BN_AVX512 BN_INLINE void bn_multiply_tile_avx512(const float *a, ptrdiff_t a_row,
                                                 ptrdiff_t a_col, int rows, const float *b,
                                                 ptrdiff_t b_stride, ptrdiff_t k, float *c,
                                                 ptrdiff_t c_stride, int vectors) {
    __m512 sum[4][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_loadu_ps(c + r * c_stride + 16 * v);
    for (ptrdiff_t i = 0; i < k; i++) {
        __m512 x[2];
        for (int v = 0; v < vectors; v++) x[v] = _mm512_loadu_ps(b + i * b_stride + 16 * v);
        for (int r = 0; r < rows; r++) {
            __m512 w = _mm512_set1_ps(a[r * a_row + i * a_col]);
            for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_fmadd_ps(w, x[v], sum[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) _mm512_storeu_ps(c + r * c_stride + 16 * v, sum[r][v]);
}

BN_AVX512 static void bn_multiply_add_avx512(const float *a, ptrdiff_t a_row, ptrdiff_t a_col,
                                             ptrdiff_t rows, const float *b, ptrdiff_t b_stride,
                                             ptrdiff_t k, float *c, ptrdiff_t c_stride,
                                             ptrdiff_t n) {
    for (; rows >= 4; rows -= 4, a += 4 * a_row, c += 4 * c_stride) {
        ptrdiff_t j = 0;
        for (; j + 32 <= n; j += 32)
            bn_multiply_tile_avx512(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, 2);
        for (; j + 16 <= n; j += 16)
            bn_multiply_tile_avx512(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, 1);
        bn_multiply_add_avx2(a, a_row, a_col, 4, b + j, b_stride, k, c + j, c_stride, n - j);
    }
    bn_multiply_add_avx2(a, a_row, a_col, rows, b, b_stride, k, c, c_stride, n);
}

#endif
