/* Products with dense rows (../dense.h), and dense rows from I2_S ones and back, by AVX2.
 *
 * A byte of 86 or more carries when it is multiplied by 3, one of 171 or more carries 2: the two
 * comparisons' masks, subtracted, add up to the code. Bytes are kept 128 less, for comparisons are
 * signed; three times such a number is, modulo 256, again 128 less than the byte. vpmaddubsw adds
 * products in pairs, at most 512 in magnitude; a block adds five of them, and sums are widened
 * every 12 blocks: 60 additions stay inside int16.
 */
#ifndef BN_KERNELS_AVX2_DENSE_H
#define BN_KERNELS_AVX2_DENSE_H

#include <immintrin.h>

#include "../kernels.h"
#include "avx2.h"

enum { BN_AVX2_DENSE_WIDEN_BLOCKS = 12 };

BN_AVX2 BN_INLINE __m256i bn_dense_load_avx2(const uint8_t *block) {
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)block),
                            _mm256_set1_epi8((char)0x80));
}

/* 32 numbers and the next code of each. */
BN_AVX2 BN_INLINE __m256i bn_dense_add_code_avx2(__m256i to, __m256i rest) {
    __m256i one = _mm256_cmpgt_epi8(rest, _mm256_set1_epi8(85 - 128));
    __m256i two = _mm256_cmpgt_epi8(rest, _mm256_set1_epi8(170 - 128));
    return _mm256_sub_epi8(_mm256_sub_epi8(to, one), two);
}

BN_AVX2 BN_INLINE __m256i bn_dense_next_avx2(__m256i rest) {
    return _mm256_add_epi8(rest, _mm256_add_epi8(rest, rest));
}

/* n_rows (1 or 2) rows by n_tokens (1 or 2) tokens, constants after inlining. */
BN_AVX2 BN_INLINE void bn_dense_tile_avx2(const uint8_t *dense, ptrdiff_t blocks, int n_rows,
                                          const int8_t *q, int n_tokens, const int32_t *q_sums,
                                          int32_t *out, int out_stride) {
    const __m256i ones = _mm256_set1_epi16(1);
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, token_bytes = blocks * BN_DENSE_BLOCK;
    __m256i sum[2][2];
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) sum[r][t] = _mm256_setzero_si256();
    for (ptrdiff_t start = 0; start < blocks; start += BN_AVX2_DENSE_WIDEN_BLOCKS) {
        ptrdiff_t end = start + BN_AVX2_DENSE_WIDEN_BLOCKS;
        end = end < blocks ? end : blocks;
        __m256i part[2][2], rest[2];
        for (int r = 0; r < n_rows; r++)
            for (int t = 0; t < n_tokens; t++) part[r][t] = _mm256_setzero_si256();
        for (ptrdiff_t b = start; b < end; b++) {
            bn_fetch_lines_avx2(dense + BN_BLOCK_BYTES * n_rows * b, n_rows);
            for (int r = 0; r < n_rows; r++)
                rest[r] = bn_dense_load_avx2(dense + r * row_bytes + BN_BLOCK_BYTES * b);
            BN_UNROLL(5)
            for (int g = 0; g < BN_DENSE_DIGITS; g++) {
                const int8_t *x = q + BN_DENSE_BLOCK * b + 32 * g;
                for (int r = 0; r < n_rows; r++) {
                    __m256i code = bn_dense_add_code_avx2(_mm256_setzero_si256(), rest[r]);
                    for (int t = 0; t < n_tokens; t++) {
                        __m256i xs = _mm256_loadu_si256((const __m256i *)(x + t * token_bytes));
                        part[r][t] =
                            _mm256_add_epi16(part[r][t], _mm256_maddubs_epi16(code, xs));
                    }
                    rest[r] = bn_dense_next_avx2(rest[r]);
                }
            }
        }
        for (int r = 0; r < n_rows; r++)
            for (int t = 0; t < n_tokens; t++)
                sum[r][t] = _mm256_add_epi32(sum[r][t], _mm256_madd_epi16(part[r][t], ones));
    }
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++)
            out[r * out_stride + t] = bn_hsum_i32x8(sum[r][t]) - q_sums[t];
}

BN_AVX2 static void bn_dense_gemv_avx2(const uint8_t *dense, ptrdiff_t blocks, int rows,
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
                bn_dense_tile_avx2(w, blocks, 2, x, 2, q_sums + t, y, tokens);
            else if (two_rows)
                bn_dense_tile_avx2(w, blocks, 2, x, 1, q_sums + t, y, tokens);
            else if (two_tokens)
                bn_dense_tile_avx2(w, blocks, 1, x, 2, q_sums + t, y, tokens);
            else
                bn_dense_tile_avx2(w, blocks, 1, x, 1, q_sums + t, y, tokens);
        }
}

/* Twenty planes of 32 codes are four dense blocks and five I2_S ones. A group has up to as many of
 * each, constants after inlining where it is whole; planes past the source's have code 1. */
enum { BN_DENSE_GROUP = 4, BN_DENSE_GROUP_CODES = 5 };

BN_AVX2 BN_INLINE void bn_dense_unpack_group_avx2(const uint8_t *dense, ptrdiff_t dense_blocks,
                                                  uint8_t *codes, ptrdiff_t blocks) {
    __m256i rest = _mm256_setzero_si256(), four = rest;
    BN_UNROLL(20)
    for (int plane = 0; plane < BN_DENSE_GROUP * BN_DENSE_DIGITS; plane++) {
        const int block = plane / BN_DENSE_DIGITS;
        if (plane % BN_DENSE_DIGITS == 0 && block < dense_blocks)
            rest = bn_dense_load_avx2(dense + BN_BLOCK_BYTES * block);
        four = _mm256_add_epi8(four, four);
        four = _mm256_add_epi8(four, four);
        four = block < dense_blocks ? bn_dense_add_code_avx2(four, rest)
                                    : _mm256_add_epi8(four, _mm256_set1_epi8(1));
        rest = bn_dense_next_avx2(rest);
        if (plane % 4 == 3 && plane / 4 < blocks)
            _mm256_storeu_si256((__m256i *)(codes + BN_BLOCK_BYTES * (plane / 4)), four);
    }
}

BN_AVX2 static void bn_dense_unpack_avx2(const uint8_t *dense, ptrdiff_t dense_blocks, int rows,
                                         uint8_t *codes, ptrdiff_t blocks) {
    for (int r = 0; r < rows; r++) {
        ptrdiff_t from = 0, to = 0;
        for (; from + BN_DENSE_GROUP <= dense_blocks && to + BN_DENSE_GROUP_CODES <= blocks;
             from += BN_DENSE_GROUP, to += BN_DENSE_GROUP_CODES)
            bn_dense_unpack_group_avx2(dense + BN_BLOCK_BYTES * from, BN_DENSE_GROUP,
                                       codes + BN_BLOCK_BYTES * to, BN_DENSE_GROUP_CODES);
        if (to < blocks)
            bn_dense_unpack_group_avx2(dense + BN_BLOCK_BYTES * from, dense_blocks - from,
                                       codes + BN_BLOCK_BYTES * to, blocks - to);
        dense += dense_blocks * BN_BLOCK_BYTES;
        codes += blocks * BN_BLOCK_BYTES;
    }
}

/* ceil(256 n / 243) of 16-bit numbers up to 242: n and (13 n + 242) / 243, exact by this factor. */
BN_AVX2 BN_INLINE __m256i bn_dense_fraction_avx2(__m256i n) {
    __m256i above = _mm256_add_epi16(_mm256_mullo_epi16(n, _mm256_set1_epi16(13)),
                                     _mm256_set1_epi16(242));
    return _mm256_add_epi16(n, _mm256_mulhi_epu16(above, _mm256_set1_epi16(270)));
}

BN_AVX2 BN_INLINE void bn_dense_pack_group_avx2(const uint8_t *codes, ptrdiff_t blocks,
                                                uint8_t *dense, ptrdiff_t dense_blocks) {
    const __m256i low2 = _mm256_set1_epi8(3), zero = _mm256_setzero_si256();
    __m256i left = zero, n = zero;
    BN_UNROLL(20)
    for (int plane = 0; plane < BN_DENSE_GROUP * BN_DENSE_DIGITS; plane++) {
        if (plane % 4 == 0) {
            left = _mm256_set1_epi8(0x55);
            if (plane / 4 < blocks)
                left = _mm256_loadu_si256((const __m256i *)(codes + BN_BLOCK_BYTES * (plane / 4)));
        }
        n = _mm256_add_epi8(n, _mm256_add_epi8(n, n));
        n = _mm256_add_epi8(n, _mm256_and_si256(_mm256_srli_epi16(left, 6), low2));
        left = _mm256_slli_epi16(left, 2); /* what enters a byte from below never reaches its top */
        if (plane % BN_DENSE_DIGITS < BN_DENSE_DIGITS - 1) continue;
        if (plane / BN_DENSE_DIGITS < dense_blocks) {
            __m256i low = bn_dense_fraction_avx2(_mm256_unpacklo_epi8(n, zero));
            __m256i high = bn_dense_fraction_avx2(_mm256_unpackhi_epi8(n, zero));
            uint8_t *to = dense + BN_BLOCK_BYTES * (plane / BN_DENSE_DIGITS);
            _mm256_storeu_si256((__m256i *)to, _mm256_packus_epi16(low, high));
        }
        n = zero;
    }
}

BN_AVX2 static void bn_dense_pack_avx2(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                       uint8_t *dense, ptrdiff_t dense_blocks) {
    for (int r = 0; r < rows; r++) {
        ptrdiff_t from = 0, to = 0;
        for (; from + BN_DENSE_GROUP_CODES <= blocks && to + BN_DENSE_GROUP <= dense_blocks;
             from += BN_DENSE_GROUP_CODES, to += BN_DENSE_GROUP)
            bn_dense_pack_group_avx2(codes + BN_BLOCK_BYTES * from, BN_DENSE_GROUP_CODES,
                                     dense + BN_BLOCK_BYTES * to, BN_DENSE_GROUP);
        if (to < dense_blocks)
            bn_dense_pack_group_avx2(codes + BN_BLOCK_BYTES * from, blocks - from,
                                     dense + BN_BLOCK_BYTES * to, dense_blocks - to);
        codes += blocks * BN_BLOCK_BYTES;
        dense += dense_blocks * BN_BLOCK_BYTES;
    }
}

#endif
