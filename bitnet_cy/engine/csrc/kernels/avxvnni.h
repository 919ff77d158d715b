/* AVX2 with AVX-VNNI: vpdpbusd on 256 bits, for CPUs without AVX-512.
 *
 * vpdpbusd multiplies 32 unsigned codes by 32 signed activations and adds groups of four to int32:
 * nothing can overflow below K of eight million. GEMV does not shift the codes down: the four
 * planes of a byte, masked in place, are the codes times 64, 16, 4 and 1; their sums are exact
 * multiples and are shifted once, at the end of the row.
 */
#ifndef BN_KERNELS_AVXVNNI_H
#define BN_KERNELS_AVXVNNI_H

#include <immintrin.h>

#include "../kernels.h"
#include "avx2.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BN_AVXVNNI
#else
#define BN_AVXVNNI __attribute__((target("avx2,fma,f16c,avxvnni")))
#endif

enum { BN_AVXVNNI_LANES = 8, BN_AVXVNNI_TILE_ROWS = 4, BN_AVXVNNI_TILE_PANELS = 3 };

/* n_rows (1 or 2, constant after inlining) rows share the loads of one token: two rows of four
 * plane sums and the masks are what sixteen registers hold. */
BN_AVXVNNI BN_INLINE void bn_gemv_rows_avxvnni(const uint8_t *codes, ptrdiff_t blocks, int n_rows,
                                               const int8_t *q, int32_t q_sum, int32_t *out,
                                               int out_stride) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    __m256i mask[4], sum[2][4];
    for (int g = 0; g < 4; g++) mask[g] = _mm256_set1_epi8((char)(3 << (6 - 2 * g)));
    for (int r = 0; r < n_rows; r++)
        for (int g = 0; g < 4; g++) sum[r][g] = _mm256_setzero_si256();
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const __m256i *x = (const __m256i *)(q + BN_BLOCK * b);
        bn_fetch_lines_avx2(codes + BN_BLOCK_BYTES * n_rows * b, n_rows);
        for (int r = 0; r < n_rows; r++) {
            __m256i packed = _mm256_loadu_si256(
                (const __m256i *)(codes + r * row_bytes + BN_BLOCK_BYTES * b));
            for (int g = 0; g < 4; g++)
                sum[r][g] = _mm256_dpbusd_avx_epi32(sum[r][g], _mm256_and_si256(packed, mask[g]),
                                                    _mm256_loadu_si256(x + g));
        }
    }
    for (int r = 0; r < n_rows; r++) {
        __m256i high = _mm256_add_epi32(_mm256_srai_epi32(sum[r][0], 6),
                                        _mm256_srai_epi32(sum[r][1], 4));
        __m256i low = _mm256_add_epi32(_mm256_srai_epi32(sum[r][2], 2), sum[r][3]);
        out[r * out_stride] = bn_hsum_i32x8(_mm256_add_epi32(high, low)) - q_sum;
    }
}

BN_AVXVNNI static void bn_ternary_gemv_avxvnni(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                               const int8_t *q, int tokens, const int32_t *q_sums,
                                               int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int r = 0;
    for (; r + 2 <= rows; r += 2)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_avxvnni(codes + r * row_bytes, blocks, 2, q + t * blocks * BN_BLOCK,
                                 q_sums[t], out + r * tokens + t, tokens);
    for (; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            bn_gemv_rows_avxvnni(codes + r * row_bytes, blocks, 1, q + t * blocks * BN_BLOCK,
                                 q_sums[t], out + r * tokens + t, tokens);
}

/* A tile of n_rows rows (up to 4) by n_panels (up to 3) groups of 8 tokens, over all of K. */
BN_AVXVNNI BN_INLINE void bn_gemm_tile_avxvnni(const uint8_t *decoded, ptrdiff_t k, int n_rows,
                                               const int8_t *panels, int n_panels,
                                               const int32_t *q_sums, int32_t *out,
                                               ptrdiff_t out_stride) {
    const ptrdiff_t panel_bytes = k * BN_AVXVNNI_LANES;
    __m256i sum[BN_AVXVNNI_TILE_ROWS][BN_AVXVNNI_TILE_PANELS];
    for (int p = 0; p < n_panels; p++) {
        __m256i bias = _mm256_loadu_si256((const __m256i *)(q_sums + p * BN_AVXVNNI_LANES));
        for (int r = 0; r < n_rows; r++) sum[r][p] = _mm256_sub_epi32(_mm256_setzero_si256(), bias);
    }
    for (ptrdiff_t i = 0; i < k / 4; i++) {
        __m256i x[BN_AVXVNNI_TILE_PANELS];
        for (int p = 0; p < n_panels; p++)
            x[p] = _mm256_loadu_si256((const __m256i *)(panels + p * panel_bytes + 32 * i));
        for (int r = 0; r < n_rows; r++) {
            __m256i w = bn_broadcast4_avx2(decoded + r * k + 4 * i);
            for (int p = 0; p < n_panels; p++)
                sum[r][p] = _mm256_dpbusd_avx_epi32(sum[r][p], w, x[p]);
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int p = 0; p < n_panels; p++)
            _mm256_storeu_si256((__m256i *)(out + r * out_stride + p * BN_AVXVNNI_LANES),
                                sum[r][p]);
}

/* All rows against n_panels (1 to 3, constant after inlining) groups of 8 tokens. */
BN_AVXVNNI BN_INLINE void bn_gemm_panels_avxvnni(const uint8_t *decoded, ptrdiff_t k, int rows,
                                                 const int8_t *panels, int n_panels,
                                                 const int32_t *q_sums, int32_t *out,
                                                 ptrdiff_t out_stride) {
    int r = 0;
    for (; r + BN_AVXVNNI_TILE_ROWS <= rows; r += BN_AVXVNNI_TILE_ROWS)
        bn_gemm_tile_avxvnni(decoded + r * k, k, BN_AVXVNNI_TILE_ROWS, panels, n_panels, q_sums,
                             out + r * out_stride, out_stride);
    for (; r < rows; r++)
        bn_gemm_tile_avxvnni(decoded + r * k, k, 1, panels, n_panels, q_sums, out + r * out_stride,
                             out_stride);
}

BN_AVXVNNI static void bn_ternary_gemm_avxvnni(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                               const int8_t *panels, int n_panels,
                                               const int32_t *q_sums, int32_t *out,
                                               ptrdiff_t out_stride, uint8_t *decoded) {
    const ptrdiff_t k = blocks * BN_BLOCK;
    for (int r = 0; r < rows; r++)
        bn_decode_row_avx2(codes + r * blocks * BN_BLOCK_BYTES, blocks, decoded + r * k);
    for (int p = 0; p < n_panels;) {
        const int8_t *x = panels + p * BN_AVXVNNI_LANES * k;
        const int32_t *sums = q_sums + p * BN_AVXVNNI_LANES;
        int32_t *y = out + p * BN_AVXVNNI_LANES;
        int left = n_panels - p, take = left >= 5 || left == 3 ? 3 : left >= 2 ? 2 : 1;
        if (take == 3) bn_gemm_panels_avxvnni(decoded, k, rows, x, 3, sums, y, out_stride);
        else if (take == 2) bn_gemm_panels_avxvnni(decoded, k, rows, x, 2, sums, y, out_stride);
        else bn_gemm_panels_avxvnni(decoded, k, rows, x, 1, sums, y, out_stride);
        p += take;
    }
}

#endif
