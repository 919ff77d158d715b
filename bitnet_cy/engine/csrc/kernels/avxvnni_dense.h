/* Products with dense rows (../dense.h) by vpdpbusd on 256 bits, without taking the bytes apart.
 *
 * A byte b is followed by b' = 3 b modulo 256 and its code is d = (3 b - b') / 256. So the sum of
 * d x is (3 A - B) / 256 with A the sum of b x and B that of b' x, over all five codes: two
 * multiplications a code and no mask or shift. What a lane of the eight holds is a multiple of 256
 * that int32 takes up to K of 2^18; that sums may wrap before changes nothing.
 */
#ifndef BN_KERNELS_AVXVNNI_DENSE_H
#define BN_KERNELS_AVXVNNI_DENSE_H

#include <immintrin.h>

#include "../kernels.h"
#include "avxvnni.h"

/* n_rows (1 or 2) rows by n_tokens (1 or 2) tokens, constants after inlining. */
BN_AVXVNNI BN_INLINE void bn_dense_tile_avxvnni(const uint8_t *dense, ptrdiff_t blocks, int n_rows,
                                                const int8_t *q, int n_tokens,
                                                const int32_t *q_sums, int32_t *out,
                                                int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, token_bytes = blocks * BN_DENSE_BLOCK;
    __m256i a[2][2], b[2][2], rest[2];
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) a[r][t] = b[r][t] = _mm256_setzero_si256();
    for (ptrdiff_t block = 0; block < blocks; block++) {
        bn_fetch_lines_avx2(dense + BN_BLOCK_BYTES * n_rows * block, n_rows);
        for (int r = 0; r < n_rows; r++)
            rest[r] = _mm256_loadu_si256(
                (const __m256i *)(dense + r * row_bytes + BN_BLOCK_BYTES * block));
        BN_UNROLL(5)
        for (int g = 0; g < BN_DENSE_DIGITS; g++) {
            const int8_t *at = q + BN_DENSE_BLOCK * block + 32 * g;
            __m256i x[2];
            for (int t = 0; t < n_tokens; t++)
                x[t] = _mm256_loadu_si256((const __m256i *)(at + t * token_bytes));
            for (int r = 0; r < n_rows; r++) {
                for (int t = 0; t < n_tokens; t++)
                    a[r][t] = _mm256_dpbusd_avx_epi32(a[r][t], rest[r], x[t]);
                rest[r] = _mm256_add_epi8(rest[r], _mm256_add_epi8(rest[r], rest[r]));
                for (int t = 0; t < n_tokens; t++)
                    b[r][t] = _mm256_dpbusd_avx_epi32(b[r][t], rest[r], x[t]);
            }
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) {
            __m256i triple = _mm256_add_epi32(a[r][t], _mm256_add_epi32(a[r][t], a[r][t]));
            __m256i sum = _mm256_srai_epi32(_mm256_sub_epi32(triple, b[r][t]), 8);
            out[r * out_stride + t] = bn_hsum_i32x8(sum) - q_sums[t];
        }
}

BN_AVXVNNI static void bn_dense_gemv_avxvnni(const uint8_t *dense, ptrdiff_t blocks, int rows,
                                             const int8_t *q, int tokens, const int32_t *q_sums,
                                             int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, token_bytes = blocks * BN_DENSE_BLOCK;
    for (int r = 0; r < rows; r += 2)
        for (int t = 0; t < tokens; t += 2) {
            const uint8_t *w = dense + r * row_bytes;
            const int8_t *x = q + t * token_bytes;
            int32_t *y = out + r * tokens + t;
            const int two_rows = r + 2 <= rows, two_tokens = t + 2 <= tokens;
            if (two_rows && two_tokens)
                bn_dense_tile_avxvnni(w, blocks, 2, x, 2, q_sums + t, y, tokens);
            else if (two_rows)
                bn_dense_tile_avxvnni(w, blocks, 2, x, 1, q_sums + t, y, tokens);
            else if (two_tokens)
                bn_dense_tile_avxvnni(w, blocks, 1, x, 2, q_sums + t, y, tokens);
            else
                bn_dense_tile_avxvnni(w, blocks, 1, x, 1, q_sums + t, y, tokens);
        }
}

#endif
