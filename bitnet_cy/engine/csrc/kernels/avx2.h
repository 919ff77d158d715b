/* AVX2 + FMA + F16C.
 *
 * Ternary products: vpmaddubsw multiplies 32 unsigned codes by 32 signed activations and adds
 * neighbours to int16. A pair is at most 2 * (2 * 128) = 512 in magnitude and exactly -512 only for
 * q = -128 twice, so 63 additions (64 of them when every pair is below 512) stay inside int16.
 * GEMV shifts a byte once: two of its four planes are then codes, two codes times 4. The latter
 * add two pairs of 2048 a block and widen every 7 blocks: 14 additions, 28,672. GEMM widens every
 * 60 steps of four columns, one addition each.
 */
#ifndef BN_KERNELS_AVX2_H
#define BN_KERNELS_AVX2_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "../kernels.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define BN_AVX2
#else
#define BN_AVX2 __attribute__((target("avx2,fma,f16c")))
#endif

enum { BN_AVX2_WIDEN_BLOCKS = 7, BN_AVX2_WIDEN_STEPS = 60, BN_AVX2_LANES = 8 };
enum { BN_AVX2_PREFETCH = 512, BN_AVX2_FAR = 6144 }; /* bytes of a panel, and of codes */

BN_AVX2 BN_INLINE int32_t bn_hsum_i32x8(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

BN_AVX2 BN_INLINE float bn_hsum_f32x8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

/* Decoding is bound by memory: the lines of n_rows rows of a block, so many bytes ahead. */
BN_AVX2 BN_INLINE void bn_fetch_lines_avx2(const uint8_t *codes, int n_rows) {
    for (int i = 0; i < n_rows; i += 2)
        _mm_prefetch((const char *)codes + BN_AVX2_FAR + BN_BLOCK_BYTES * i, _MM_HINT_T0);
}

/* Add a block of one row to the sums of n_tokens tokens: those of codes, and of codes times 4. */
BN_AVX2 BN_INLINE void bn_add_block_avx2(__m256i packed, const int8_t *q, ptrdiff_t token_bytes,
                                         int n_tokens, __m256i once[], __m256i fourfold[]) {
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0C);
    __m256i nibble = _mm256_srli_epi16(packed, 4);
    __m256i c0 = _mm256_and_si256(nibble, high), c1 = _mm256_and_si256(nibble, low);
    __m256i c2 = _mm256_and_si256(packed, high), c3 = _mm256_and_si256(packed, low);
    for (int t = 0; t < n_tokens; t++) {
        const __m256i *x = (const __m256i *)(q + t * token_bytes);
        __m256i p0 = _mm256_maddubs_epi16(c0, _mm256_loadu_si256(x));
        __m256i p1 = _mm256_maddubs_epi16(c1, _mm256_loadu_si256(x + 1));
        __m256i p2 = _mm256_maddubs_epi16(c2, _mm256_loadu_si256(x + 2));
        __m256i p3 = _mm256_maddubs_epi16(c3, _mm256_loadu_si256(x + 3));
        fourfold[t] = _mm256_add_epi16(fourfold[t], _mm256_add_epi16(p0, p2));
        once[t] = _mm256_add_epi16(once[t], _mm256_add_epi16(p1, p3));
    }
}

/* A tile of n_rows rows and n_tokens tokens, both constant after inlining: sixteen registers hold
 * the sums of four rows of one token, or of one row of four tokens, which share its unpacking. */
BN_AVX2 BN_INLINE void bn_gemv_tile_avx2(const uint8_t *codes, ptrdiff_t blocks, int n_rows,
                                         const int8_t *q, int n_tokens, const int32_t *q_sums,
                                         int32_t *out, int out_stride) {
    const __m256i ones = _mm256_set1_epi16(1);
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES, token_bytes = blocks * BN_BLOCK;
    __m256i sum[4][4], sum4[4][4];
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++) sum[r][t] = sum4[r][t] = _mm256_setzero_si256();
    for (ptrdiff_t start = 0; start < blocks; start += BN_AVX2_WIDEN_BLOCKS) {
        ptrdiff_t end = start + BN_AVX2_WIDEN_BLOCKS < blocks ? start + BN_AVX2_WIDEN_BLOCKS : blocks;
        __m256i once[4][4], fourfold[4][4];
        for (int r = 0; r < n_rows; r++)
            for (int t = 0; t < n_tokens; t++) once[r][t] = fourfold[r][t] = _mm256_setzero_si256();
        for (ptrdiff_t b = start; b < end; b++) {
            bn_fetch_lines_avx2(codes + BN_BLOCK_BYTES * n_rows * b, n_rows);
            for (int r = 0; r < n_rows; r++)
                bn_add_block_avx2(_mm256_loadu_si256((const __m256i *)(codes + r * row_bytes +
                                                                       BN_BLOCK_BYTES * b)),
                                  q + BN_BLOCK * b, token_bytes, n_tokens, once[r], fourfold[r]);
        }
        for (int r = 0; r < n_rows; r++)
            for (int t = 0; t < n_tokens; t++) {
                sum[r][t] = _mm256_add_epi32(sum[r][t], _mm256_madd_epi16(once[r][t], ones));
                sum4[r][t] = _mm256_add_epi32(sum4[r][t], _mm256_madd_epi16(fourfold[r][t], ones));
            }
    }
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++)
            out[r * out_stride + t] =
                bn_hsum_i32x8(_mm256_add_epi32(sum[r][t], _mm256_srai_epi32(sum4[r][t], 2))) -
                q_sums[t];
}

BN_AVX2 static void bn_ternary_gemv_avx2(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                         const int8_t *q, int tokens, const int32_t *q_sums,
                                         int32_t *out) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    int r = 0;
    for (; r + 4 <= rows && tokens == 1; r += 4)
        bn_gemv_tile_avx2(codes + r * row_bytes, blocks, 4, q, 1, q_sums, out + r, 1);
    for (; r < rows; r++)
        for (int t = 0; t < tokens;) {
            const uint8_t *row = codes + r * row_bytes;
            const int8_t *x = q + t * blocks * BN_BLOCK;
            int32_t *y = out + r * tokens + t;
            int left = tokens - t, take = left > 4 && left < 8 ? (left + 1) / 2 : left < 4 ? left : 4;
            if (take == 4) bn_gemv_tile_avx2(row, blocks, 1, x, 4, q_sums + t, y, tokens);
            else if (take == 3) bn_gemv_tile_avx2(row, blocks, 1, x, 3, q_sums + t, y, tokens);
            else if (take == 2) bn_gemv_tile_avx2(row, blocks, 1, x, 2, q_sums + t, y, tokens);
            else bn_gemv_tile_avx2(row, blocks, 1, x, 1, q_sums + t, y, tokens);
            t += take;
        }
}

BN_AVX2 BN_INLINE void bn_decode_row_avx2(const uint8_t *codes, ptrdiff_t blocks,
                                              uint8_t *decoded) {
    const __m256i low2 = _mm256_set1_epi8(3);
    for (ptrdiff_t b = 0; b < blocks; b++) {
        __m256i packed = _mm256_loadu_si256((const __m256i *)(codes + BN_BLOCK_BYTES * b));
        __m256i *d = (__m256i *)(decoded + BN_BLOCK * b);
        _mm256_storeu_si256(d, _mm256_and_si256(_mm256_srli_epi16(packed, 6), low2));
        _mm256_storeu_si256(d + 1, _mm256_and_si256(_mm256_srli_epi16(packed, 4), low2));
        _mm256_storeu_si256(d + 2, _mm256_and_si256(_mm256_srli_epi16(packed, 2), low2));
        _mm256_storeu_si256(d + 3, _mm256_and_si256(packed, low2));
    }
}

BN_AVX2 BN_INLINE __m256i bn_broadcast4_avx2(const uint8_t *four) {
    int32_t word;
    memcpy(&word, four, sizeof word);
    return _mm256_set1_epi32(word);
}

/* Left alone, gcc adds the products of several steps to each other first, runs out of registers and
 * loses a third of the speed: this keeps every sum in its register. */
#if defined(__GNUC__)
#define BN_KEEP_AVX2(sum) __asm__("" : "+x"(sum))
#else
#define BN_KEEP_AVX2(sum)
#endif

/* Four steps of a tile of n_rows rows by n_panels groups of 8 tokens, added to its int16 sums. */
BN_AVX2 BN_INLINE void bn_gemm_steps_avx2(const uint8_t *decoded, ptrdiff_t k, int n_rows,
                                          const int8_t *panels, int n_panels, __m256i part[4][2]) {
    const ptrdiff_t panel_bytes = k * BN_AVX2_LANES;
    for (int p = 0; p < n_panels; p++)
        for (int half = 0; half < 2; half++)
            _mm_prefetch((const char *)(panels + p * panel_bytes + BN_AVX2_PREFETCH + 64 * half),
                         _MM_HINT_T0);
    BN_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        __m256i x[2];
        for (int p = 0; p < n_panels; p++)
            x[p] = _mm256_loadu_si256((const __m256i *)(panels + p * panel_bytes + 32 * i));
        for (int r = 0; r < n_rows; r++) {
            __m256i w = bn_broadcast4_avx2(decoded + r * k + 4 * i);
            for (int p = 0; p < n_panels; p++) {
                part[r][p] = _mm256_add_epi16(part[r][p], _mm256_maddubs_epi16(w, x[p]));
                BN_KEEP_AVX2(part[r][p]);
            }
        }
    }
}

/* A tile of n_rows rows (up to 4) by n_panels (up to 2) groups of 8 tokens, over all of K. Its
 * int32 sums are in memory: registers are for the int16 ones. */
BN_AVX2 BN_INLINE void bn_gemm_tile_avx2(const uint8_t *decoded, ptrdiff_t k, int n_rows,
                                         const int8_t *panels, int n_panels, const int32_t *q_sums,
                                         int32_t *out, ptrdiff_t out_stride) {
    const ptrdiff_t steps = k / 4;
    for (int r = 0; r < n_rows; r++)
        for (int p = 0; p < n_panels; p++) {
            __m256i bias = _mm256_loadu_si256((const __m256i *)(q_sums + p * BN_AVX2_LANES));
            _mm256_storeu_si256((__m256i *)(out + r * out_stride + p * BN_AVX2_LANES),
                                _mm256_sub_epi32(_mm256_setzero_si256(), bias));
        }
    for (ptrdiff_t start = 0; start < steps; start += BN_AVX2_WIDEN_STEPS) {
        ptrdiff_t end = start + BN_AVX2_WIDEN_STEPS < steps ? start + BN_AVX2_WIDEN_STEPS : steps;
        __m256i part[4][2];
        for (int r = 0; r < n_rows; r++)
            for (int p = 0; p < n_panels; p++) part[r][p] = _mm256_setzero_si256();
        for (ptrdiff_t i = start; i < end; i += 4)
            bn_gemm_steps_avx2(decoded + 4 * i, k, n_rows, panels + 32 * i, n_panels, part);
        for (int r = 0; r < n_rows; r++)
            for (int p = 0; p < n_panels; p++) {
                __m256i *sum = (__m256i *)(out + r * out_stride + p * BN_AVX2_LANES);
                __m256i wide = _mm256_madd_epi16(part[r][p], _mm256_set1_epi16(1));
                _mm256_storeu_si256(sum, _mm256_add_epi32(_mm256_loadu_si256(sum), wide));
            }
    }
}

BN_AVX2 static void bn_ternary_gemm_avx2(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                         const int8_t *panels, int n_panels,
                                         const int32_t *q_sums, int32_t *out, ptrdiff_t out_stride,
                                         uint8_t *decoded) {
    const ptrdiff_t k = blocks * BN_BLOCK;
    for (int r = 0; r < rows; r++)
        bn_decode_row_avx2(codes + r * blocks * BN_BLOCK_BYTES, blocks, decoded + r * k);
    for (int p = 0; p < n_panels; p += 2) {
        const int8_t *x = panels + p * BN_AVX2_LANES * k;
        const int32_t *sums = q_sums + p * BN_AVX2_LANES;
        int32_t *y = out + p * BN_AVX2_LANES;
        int r = 0, pair = p + 2 <= n_panels;
        for (; r + 4 <= rows; r += 4)
            if (pair)
                bn_gemm_tile_avx2(decoded + r * k, k, 4, x, 2, sums, y + r * out_stride, out_stride);
            else
                bn_gemm_tile_avx2(decoded + r * k, k, 4, x, 1, sums, y + r * out_stride, out_stride);
        for (; r < rows; r++)
            if (pair)
                bn_gemm_tile_avx2(decoded + r * k, k, 1, x, 2, sums, y + r * out_stride, out_stride);
            else
                bn_gemm_tile_avx2(decoded + r * k, k, 1, x, 1, sums, y + r * out_stride, out_stride);
    }
}

BN_AVX2 static float bn_quantize_avx2(const float *x, ptrdiff_t n, int8_t *q, int32_t *q_sum) {
    const __m256 magnitude_mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    const __m256 infinity = _mm256_set1_ps(INFINITY);
    __m256 largest8 = _mm256_set1_ps(1e-5f), bad = _mm256_setzero_ps();
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 magnitude = _mm256_and_ps(_mm256_loadu_ps(x + i), magnitude_mask);
        bad = _mm256_or_ps(bad, _mm256_cmp_ps(magnitude, infinity, _CMP_NLT_UQ));
        largest8 = _mm256_max_ps(largest8, magnitude);
    }
    float lanes[8], largest = 1e-5f;
    _mm256_storeu_ps(lanes, largest8);
    for (int l = 0; l < 8; l++) largest = lanes[l] > largest ? lanes[l] : largest;
    int finite = !_mm256_movemask_ps(bad);
    for (ptrdiff_t j = i; j < n; j++) {
        float magnitude = fabsf(x[j]);
        finite &= magnitude < INFINITY;
        largest = magnitude > largest ? magnitude : largest;
    }
    *q_sum = 0;
    if (!finite) {
        memset(q, 0, (size_t)n);
        return NAN;
    }
    const float scale = 127.0f / largest;
    const __m256 scale8 = _mm256_set1_ps(scale);
    __m256i sum8 = _mm256_setzero_si256();
    for (i = 0; i + 8 <= n; i += 8) {
        __m256i r = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), scale8));
        sum8 = _mm256_add_epi32(sum8, r);
        __m128i narrow = _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
        _mm_storel_epi64((__m128i *)(q + i), _mm_packs_epi16(narrow, narrow));
    }
    int32_t sum = bn_hsum_i32x8(sum8);
    for (; i < n; i++) {
        q[i] = (int8_t)_mm_cvtss_si32(_mm_set_ss(x[i] * scale));
        sum += q[i];
    }
    *q_sum = sum;
    return scale;
}

#endif
