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

/* Add two blocks (or the last one) of n_rows rows to the sums of their four planes. */
BN_AVX512VNNI BN_INLINE void bn_add_blocks_avx512vnni(__m512i sum[][4], const uint8_t *codes,
                                                          ptrdiff_t row_bytes, int n_rows,
                                                          const int8_t *q, int two) {
    __m512i x[4], mask[4];
    for (int g = 0; g < 4; g++) {
        x[g] = bn_plane_avx512vnni(q, g, two);
        mask[g] = _mm512_set1_epi8((char)(3 << (6 - 2 * g)));
    }
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *c = codes + r * row_bytes;
        __m512i packed =
            two ? _mm512_loadu_si512(c)
                : _mm512_inserti64x4(_mm512_setzero_si512(),
                                     _mm256_loadu_si256((const __m256i *)c), 0);
        for (int g = 0; g < 4; g++)
            sum[r][g] = _mm512_dpbusd_epi32(sum[r][g], _mm512_and_si512(packed, mask[g]), x[g]);
    }
}

/* n_rows (1 or 4, constant after inlining) rows share the loads of one token. */
BN_AVX512VNNI BN_INLINE void bn_gemv_rows_avx512vnni(const uint8_t *codes, ptrdiff_t blocks,
                                                         int n_rows, const int8_t *q, int32_t q_sum,
                                                         int32_t *out, int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    __m512i sum[4][4];
    for (int r = 0; r < n_rows; r++)
        for (int g = 0; g < 4; g++) sum[r][g] = _mm512_setzero_si512();
    ptrdiff_t b = 0;
    for (; b + 2 <= blocks; b += 2) {
        bn_fetch_lines_avx512vnni(codes + BN_BLOCK_BYTES * n_rows * b, n_rows);
        bn_add_blocks_avx512vnni(sum, codes + BN_BLOCK_BYTES * b, row_bytes, n_rows,
                                 q + BN_BLOCK * b, 1);
    }
    if (b < blocks)
        bn_add_blocks_avx512vnni(sum, codes + BN_BLOCK_BYTES * b, row_bytes, n_rows,
                                 q + BN_BLOCK * b, 0);
    for (int r = 0; r < n_rows; r++) {
        __m512i high = _mm512_add_epi32(_mm512_srai_epi32(sum[r][0], 6),
                                        _mm512_srai_epi32(sum[r][1], 4));
        __m512i low = _mm512_add_epi32(_mm512_srai_epi32(sum[r][2], 2), sum[r][3]);
        out[r * out_stride] = _mm512_reduce_add_epi32(_mm512_add_epi32(high, low)) - q_sum;
    }
}

BN_AVX512VNNI static void bn_ternary_gemv_avx512vnni(const uint8_t *codes, ptrdiff_t blocks,
                                                     int rows, const int8_t *q, int tokens,
                                                     const int32_t *q_sums, int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_avx512vnni(codes + r * row_bytes, blocks, 4, q + t * blocks * BN_BLOCK,
                                    q_sums[t], out + r * tokens + t, tokens);
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_avx512vnni(codes + r * row_bytes, blocks, 1, q + t * blocks * BN_BLOCK,
                                    q_sums[t], out + r * tokens + t, tokens);
}

#endif
