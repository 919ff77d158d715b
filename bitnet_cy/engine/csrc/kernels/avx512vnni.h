/* AVX-512 with VNNI (F, BW, VL, VNNI).
 *
 * vpdpbusd multiplies 64 unsigned codes by 64 signed activations and adds groups of four to int32:
 * nothing can overflow below K of eight million. GEMV does not shift the codes down: the four
 * planes of a byte, masked in place, are the codes times 64, 16, 4 and 1; their sums are exact
 * multiples and are shifted once, at the end of the row.
 */
#ifndef BN_KERNELS_AVX512VNNI_H
#define BN_KERNELS_AVX512VNNI_H

#include <immintrin.h>

#include "avx512_float.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BN_AVX512VNNI
#else
#define BN_AVX512VNNI __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")))
#endif

/* Decoding is bound by memory: so many bytes ahead into the second cache, then into the first. */
enum { BN_AVX512VNNI_FAR = 8192, BN_AVX512VNNI_NEAR = 2048 };

BN_AVX512VNNI BN_INLINE void bn_fetch_lines_avx512vnni(const uint8_t *codes, int lines) {
    for (int i = 0; i < lines; i++) {
        _mm_prefetch((const char *)codes + BN_AVX512VNNI_FAR + 64 * i, _MM_HINT_T1);
        _mm_prefetch((const char *)codes + BN_AVX512VNNI_NEAR + 64 * i, _MM_HINT_T0);
    }
}

/* Plane g of two neighbouring blocks; the second is zero where there is only one. */
BN_AVX512VNNI BN_INLINE __m512i bn_plane_avx512vnni(const int8_t *q, int g, int two) {
    __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(q + 32 * g)));
    __m256i second = two ? _mm256_loadu_si256((const __m256i *)(q + BN_BLOCK + 32 * g))
                         : _mm256_setzero_si256();
    return _mm512_inserti64x4(first, second, 1);
}

/* The most rows by tokens of a tile of the GEMV: its sums fill 24 of 32 registers. */
enum { BN_AVX512VNNI_GEMV_ROWS = 4, BN_AVX512VNNI_GEMV_TOKENS = 3 };
typedef __m512i bn_sums_avx512vnni[BN_AVX512VNNI_GEMV_ROWS][BN_AVX512VNNI_GEMV_TOKENS][4];

/* Add two blocks (or the last one) of n_rows rows by n_tokens tokens to the sums of four planes. */
BN_AVX512VNNI BN_INLINE void bn_add_blocks_avx512vnni(bn_sums_avx512vnni sum, const uint8_t *codes,
                                                      ptrdiff_t row_bytes, int n_rows,
                                                      const int8_t *q, ptrdiff_t token_bytes,
                                                      int n_tokens, int two) {
    __m512i packed[BN_AVX512VNNI_GEMV_ROWS];
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *c = codes + r * row_bytes;
        packed[r] = two ? _mm512_loadu_si512(c)
                        : _mm512_inserti64x4(_mm512_setzero_si512(),
                                             _mm256_loadu_si256((const __m256i *)c), 0);
    }
    BN_UNROLL(4)
    for (int g = 0; g < 4; g++) {
        const __m512i mask = _mm512_set1_epi8((char)(3 << (6 - 2 * g)));
        __m512i x[BN_AVX512VNNI_GEMV_TOKENS];
        for (int t = 0; t < n_tokens; t++) x[t] = bn_plane_avx512vnni(q + t * token_bytes, g, two);
        for (int r = 0; r < n_rows; r++) {
            const __m512i plane = _mm512_and_si512(packed[r], mask);
            for (int t = 0; t < n_tokens; t++)
                sum[r][t][g] = _mm512_dpbusd_epi32(sum[r][t][g], plane, x[t]);
        }
    }
}

/* n_rows rows by n_tokens tokens, constants after inlining. */
BN_AVX512VNNI BN_INLINE void bn_gemv_tile_avx512vnni(const uint8_t *codes, ptrdiff_t blocks,
                                                     int n_rows, const int8_t *q, int n_tokens,
                                                     const int32_t *q_sums, int32_t *out,
                                                     int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, token_bytes = blocks * BN_BLOCK;
    bn_sums_avx512vnni sum;
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++)
            for (int g = 0; g < 4; g++) sum[r][t][g] = _mm512_setzero_si512();
    ptrdiff_t b = 0;
    for (; b + 2 <= blocks; b += 2) {
        bn_fetch_lines_avx512vnni(codes + BN_BLOCK_BYTES * n_rows * b, n_rows);
        bn_add_blocks_avx512vnni(sum, codes + BN_BLOCK_BYTES * b, row_bytes, n_rows,
                                 q + BN_BLOCK * b, token_bytes, n_tokens, 1);
    }
    if (b < blocks)
        bn_add_blocks_avx512vnni(sum, codes + BN_BLOCK_BYTES * b, row_bytes, n_rows,
                                 q + BN_BLOCK * b, token_bytes, n_tokens, 0);
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) {
            const __m512i *s = sum[r][t];
            __m512i high = _mm512_add_epi32(_mm512_srai_epi32(s[0], 6), _mm512_srai_epi32(s[1], 4));
            __m512i low = _mm512_add_epi32(_mm512_srai_epi32(s[2], 2), s[3]);
            out[r * out_stride + t] =
                _mm512_reduce_add_epi32(_mm512_add_epi32(high, low)) - q_sums[t];
        }
}

/* All tokens of n_rows rows (2, or 1 at the end), up to three at once. */
BN_AVX512VNNI BN_INLINE void bn_gemv_tokens_avx512vnni(const uint8_t *codes, ptrdiff_t blocks,
                                                       int n_rows, const int8_t *q, int tokens,
                                                       const int32_t *q_sums, int32_t *out) {
    for (int t = 0; t < tokens;) {
        const int left = tokens - t, take = left == 4 ? 2 : left < 3 ? left : 3;
        const int8_t *x = q + t * blocks * BN_BLOCK;
        const int32_t *sums = q_sums + t;
        if (take == 3) bn_gemv_tile_avx512vnni(codes, blocks, n_rows, x, 3, sums, out + t, tokens);
        else if (take == 2)
            bn_gemv_tile_avx512vnni(codes, blocks, n_rows, x, 2, sums, out + t, tokens);
        else bn_gemv_tile_avx512vnni(codes, blocks, n_rows, x, 1, sums, out + t, tokens);
        t += take;
    }
}

BN_AVX512VNNI static void bn_ternary_gemv_avx512vnni(const uint8_t *codes, ptrdiff_t blocks,
                                                     int rows, const int8_t *q, int tokens,
                                                     const int32_t *q_sums, int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int r = 0;
    for (; tokens == 1 && r + 4 <= rows; r += 4)
        bn_gemv_tile_avx512vnni(codes + r * row_bytes, blocks, 4, q, 1, q_sums, out + r, 1);
    for (; r + 2 <= rows; r += 2)
        bn_gemv_tokens_avx512vnni(codes + r * row_bytes, blocks, 2, q, tokens, q_sums,
                                  out + r * tokens);
    if (r < rows)
        bn_gemv_tokens_avx512vnni(codes + r * row_bytes, blocks, 1, q, tokens, q_sums,
                                  out + r * tokens);
}

#endif
