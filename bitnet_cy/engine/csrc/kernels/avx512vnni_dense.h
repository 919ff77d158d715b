/* Products with dense rows (../dense.h) by vpdpbusd on 512 bits, without taking the bytes apart.
 *
 * A byte b is followed by b' = 3 b modulo 256 and its code is d = (3 b - b') / 256. So the sum of
 * d x is (3 A - B) / 256 with A the sum of b x and B that of b' x, over all five codes: two
 * multiplications a code and no mask or shift. What a lane of the sixteen holds is a multiple of
 * 256 that int32 takes up to K of 2^19; that sums may wrap before changes nothing.
 */
#ifndef BN_KERNELS_AVX512VNNI_DENSE_H
#define BN_KERNELS_AVX512VNNI_DENSE_H

#include <immintrin.h>

#include "../kernels.h"
#include "avx512vnni.h"

/* 32 bytes at p and 32 at p + step; the second are zero where there is only one block. */
BN_AVX512VNNI BN_INLINE __m512i bn_dense_load_avx512vnni(const void *p, ptrdiff_t step, int two) {
    const char *first = (const char *)p;
    __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)first));
    __m256i high = two ? _mm256_loadu_si256((const __m256i *)(first + step))
                       : _mm256_setzero_si256();
    return _mm512_inserti64x4(low, high, 1);
}

/* Add two blocks (or the last one) of n_rows rows by n_tokens tokens to the sums A and B. */
BN_AVX512VNNI BN_INLINE void bn_dense_blocks_avx512vnni(__m512i a[4][2], __m512i b[4][2],
                                                        const uint8_t *dense, ptrdiff_t row_bytes,
                                                        int n_rows, const int8_t *q,
                                                        ptrdiff_t token_bytes, int n_tokens,
                                                        int two) {
    __m512i rest[4];
    for (int r = 0; r < n_rows; r++)
        rest[r] = bn_dense_load_avx512vnni(dense + r * row_bytes, BN_BLOCK_BYTES, two);
    BN_UNROLL(5)
    for (int g = 0; g < BN_DENSE_DIGITS; g++) {
        __m512i x[2];
        for (int t = 0; t < n_tokens; t++)
            x[t] = bn_dense_load_avx512vnni(q + t * token_bytes + 32 * g, BN_DENSE_BLOCK, two);
        for (int r = 0; r < n_rows; r++) {
            for (int t = 0; t < n_tokens; t++)
                a[r][t] = _mm512_dpbusd_epi32(a[r][t], rest[r], x[t]);
            rest[r] = _mm512_add_epi8(rest[r], _mm512_add_epi8(rest[r], rest[r]));
            for (int t = 0; t < n_tokens; t++)
                b[r][t] = _mm512_dpbusd_epi32(b[r][t], rest[r], x[t]);
        }
    }
}

/* n_rows (1 or 4) rows by n_tokens (1 or 2) tokens, constants after inlining. */
BN_AVX512VNNI BN_INLINE void bn_dense_tile_avx512vnni(const uint8_t *dense, ptrdiff_t blocks,
                                                      int n_rows, const int8_t *q, int n_tokens,
                                                      const int32_t *q_sums, int32_t *out,
                                                      int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, token_bytes = blocks * BN_DENSE_BLOCK;
    __m512i a[4][2], b[4][2];
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) a[r][t] = b[r][t] = _mm512_setzero_si512();
    ptrdiff_t i = 0;
    for (; i + 2 <= blocks; i += 2) {
        bn_fetch_lines_avx512vnni(dense + BN_BLOCK_BYTES * n_rows * i, n_rows);
        bn_dense_blocks_avx512vnni(a, b, dense + BN_BLOCK_BYTES * i, row_bytes, n_rows,
                                   q + BN_DENSE_BLOCK * i, token_bytes, n_tokens, 1);
    }
    if (i < blocks)
        bn_dense_blocks_avx512vnni(a, b, dense + BN_BLOCK_BYTES * i, row_bytes, n_rows,
                                   q + BN_DENSE_BLOCK * i, token_bytes, n_tokens, 0);
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) {
            __m512i triple = _mm512_add_epi32(a[r][t], _mm512_add_epi32(a[r][t], a[r][t]));
            __m512i sum = _mm512_srai_epi32(_mm512_sub_epi32(triple, b[r][t]), 8);
            out[r * out_stride + t] = _mm512_reduce_add_epi32(sum) - q_sums[t];
        }
}

BN_AVX512VNNI static void bn_dense_gemv_avx512vnni(const uint8_t *dense, ptrdiff_t blocks, int rows,
                                                   const int8_t *q, int tokens,
                                                   const int32_t *q_sums, int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, token_bytes = blocks * BN_DENSE_BLOCK;
    for (int r = 0; r < rows;) {
        const int four = r + 4 <= rows;
        for (int t = 0; t < tokens; t += 2) {
            const uint8_t *w = dense + r * row_bytes;
            const int8_t *x = q + t * token_bytes;
            int32_t *y = out + r * tokens + t;
            const int two = t + 2 <= tokens;
            if (four && two) bn_dense_tile_avx512vnni(w, blocks, 4, x, 2, q_sums + t, y, tokens);
            else if (four) bn_dense_tile_avx512vnni(w, blocks, 4, x, 1, q_sums + t, y, tokens);
            else if (two) bn_dense_tile_avx512vnni(w, blocks, 1, x, 2, q_sums + t, y, tokens);
            else bn_dense_tile_avx512vnni(w, blocks, 1, x, 1, q_sums + t, y, tokens);
        }
        r += four ? 4 : 1;
    }
}

#endif
