/* AVX2: the screen. A pair of products of vpmaddubsw is at most 2 * 63 * 128, vpmaddwd multiplies
 * two pairs by the block's step: below 2^23 a block, and BN_SCREEN_COLS are 256 blocks. */
#ifndef BN_KERNELS_AVX2_SCREEN_H
#define BN_KERNELS_AVX2_SCREEN_H

#include "avx2.h"
#include "scalar_screen.h"

typedef struct bn_screen_sums_avx2_t {
    __m256i high, low;
} bn_screen_sums_avx2_t;

/* The sums of four neighbouring lanes, without overflow: of a, of b, of a above, of b above. */
BN_AVX2 BN_INLINE __m256i bn_half_sums_i64x4(__m256i a, __m256i b) {
    __m256i sign_a = _mm256_srai_epi32(a, 31), sign_b = _mm256_srai_epi32(b, 31);
    __m256i sum_a = _mm256_add_epi64(_mm256_unpacklo_epi32(a, sign_a),
                                     _mm256_unpackhi_epi32(a, sign_a));
    __m256i sum_b = _mm256_add_epi64(_mm256_unpacklo_epi32(b, sign_b),
                                     _mm256_unpackhi_epi32(b, sign_b));
    return _mm256_add_epi64(_mm256_unpacklo_epi64(sum_a, sum_b),
                            _mm256_unpackhi_epi64(sum_a, sum_b));
}

/* Add block j of a group: codes times x, times the step. */
BN_AVX2 BN_INLINE void bn_screen_block_avx2(bn_screen_sums_avx2_t *sums, __m256i codes,
                                            __m256i steps, int j, const int8_t *high, const int8_t *low) {
    const __m256i pick = _mm256_set1_epi16((short)(0x0100 + 0x0202 * j));
    __m256i step = _mm256_shuffle_epi8(steps, pick);
    __m256i h = _mm256_maddubs_epi16(codes, _mm256_loadu_si256((const __m256i *)(high + 32 * j)));
    __m256i l = _mm256_maddubs_epi16(codes, _mm256_loadu_si256((const __m256i *)(low + 32 * j)));
    sums->high = _mm256_add_epi32(sums->high, _mm256_madd_epi16(h, step));
    sums->low = _mm256_add_epi32(sums->low, _mm256_madd_epi16(l, step));
}

enum { BN_SCREEN_AHEAD = 4096 };

/* The codes of block j of a group; `of` says of what they are made (constant after inlining). */
BN_AVX2 BN_INLINE __m256i bn_screen_codes_avx2(const uint8_t *nibbles, const __m256i *planes,
                                               int of, int j) {
    const int up = bn_screen_planes(of); /* room for the bits */
    __m256i codes = _mm256_setzero_si256();
    if (of & BN_SCREEN_NIBBLES) {
        codes = _mm256_loadu_si256((const __m256i *)(nibbles + 64 * (j / 4) + 32 * (j % 2)));
        codes = j % 4 < 2 ? _mm256_slli_epi16(codes, up) : _mm256_srli_epi16(codes, 4 - up);
        codes = _mm256_and_si256(codes, _mm256_set1_epi8((char)(15 << up)));
    }
    for (int i = 0; i < up; i++) { /* bit j of a byte to bit up - 1 - i */
        const int to = up - 1 - i;
        __m256i bit = j >= to ? _mm256_srli_epi16(planes[i], j - to)
                              : _mm256_slli_epi16(planes[i], to - j);
        codes = _mm256_or_si256(codes, _mm256_and_si256(bit, _mm256_set1_epi8((char)(1 << to))));
    }
    return codes;
}

BN_AVX2 BN_INLINE void bn_screen_rows_avx2(const uint8_t *nibbles, const uint8_t *const *from,
                                           int of, const uint8_t *steps, int rows, ptrdiff_t groups,
                                           const bn_screen_query *x, int64_t (*sums)[2]) {
    const uint8_t *planes[2];
    for (int i = 0; i < bn_screen_planes(of); i++) planes[i] = from[i];
    for (int r = 0; r < rows; r++) {
        bn_screen_sums_avx2_t sum = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        __m256i ones = _mm256_setzero_si256(); /* of the high parts below, of the low ones above */
        for (ptrdiff_t g = 0; g < groups; g++, steps += BN_SCREEN_BLOCKS) {
            if (of & BN_SCREEN_NIBBLES) {
                _mm_prefetch((const char *)nibbles + BN_SCREEN_AHEAD, _MM_HINT_T0);
                _mm_prefetch((const char *)nibbles + BN_SCREEN_AHEAD + 64, _MM_HINT_T0);
                for (int i = 0; i < bn_screen_planes(of); i++)
                    _mm_prefetch((const char *)planes[i] + BN_SCREEN_AHEAD / 4, _MM_HINT_T0);
            }
            __m128i bytes = _mm_loadl_epi64((const __m128i *)steps);
            __m256i words = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(bytes));
            __m128i high = _mm_loadu_si128((const __m128i *)(x->high_sums + 8 * g));
            __m128i low = _mm_loadu_si128((const __m128i *)(x->low_sums + 8 * g));
            ones = _mm256_add_epi32(ones, _mm256_madd_epi16(words, _mm256_set_m128i(low, high)));
            __m256i plane[2];
            for (int i = 0; i < bn_screen_planes(of); i++)
                plane[i] = _mm256_loadu_si256((const __m256i *)planes[i]);
            BN_UNROLL(8)
            for (int j = 0; j < 8; j++)
                bn_screen_block_avx2(&sum, bn_screen_codes_avx2(nibbles, plane, of, j), words, j,
                                     x->high + BN_SCREEN_GROUP * g, x->low + BN_SCREEN_GROUP * g);
            if (of & BN_SCREEN_NIBBLES) nibbles += BN_SCREEN_GROUP / 2;
            for (int i = 0; i < bn_screen_planes(of); i++) planes[i] += BN_SCREEN_GROUP / 8;
        }
        int64_t part[4];
        _mm256_storeu_si256((__m256i *)part, bn_half_sums_i64x4(sum.high, sum.low));
        sums[r][0] = (part[0] + part[2]) * 128 + part[1] + part[3];
        _mm256_storeu_si256((__m256i *)part, bn_half_sums_i64x4(ones, ones));
        sums[r][1] = part[0] * 128 + part[2];
    }
}

BN_AVX2 static void bn_screen_sums_avx2(const uint8_t *nibbles, const uint8_t *const *planes,
                                        int n_planes, const uint8_t *steps, int rows,
                                        ptrdiff_t groups, const bn_screen_query *x,
                                        int64_t (*sums)[2]) {
#define BN_ROWS(of) bn_screen_rows_avx2(nibbles, planes, of, steps, rows, groups, x, sums)
    BN_SCREEN_CHOOSE(nibbles, n_planes, BN_ROWS);
#undef BN_ROWS
}

/* ---- encoding, as scalar_screen.h has it ------------------------------------------------------ */

BN_AVX2 BN_INLINE int32_t bn_block_magnitude_avx2(const float *w) {
    __m256i largest = _mm256_setzero_si256(), mask = _mm256_set1_epi32(0x7FFFFFFF);
    for (int j = 0; j < BN_SCREEN_BLOCK; j += 8) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(w + j));
        largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, mask));
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest),
                                 _mm256_extracti128_si256(largest, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}

BN_AVX2 BN_INLINE void bn_encode_block_avx2(const float *w, float step, uint8_t *q, __m256 *rest) {
    enum { CODES = 16 << BN_SCREEN_PLANES };
    const __m256 inverse = _mm256_set1_ps(step > 0 ? (1 << BN_SCREEN_PLANES) / step : 0);
    __m256i codes[4];
    BN_UNROLL(4)
    for (int j = 0; j < 4; j++) {
        __m256 value = _mm256_loadu_ps(w + 8 * j);
        __m256 scaled = _mm256_fmadd_ps(value, inverse, _mm256_set1_ps(CODES / 2));
        __m256i c = _mm256_max_epi32(_mm256_cvttps_epi32(scaled), _mm256_setzero_si256());
        codes[j] = c = _mm256_min_epi32(c, _mm256_set1_epi32(CODES - 1));
        BN_UNROLL(8)
        for (int level = 0; level <= BN_SCREEN_PLANES; level++) {
            const __m256 cell = _mm256_set1_ps(step / (float)(1 << level));
            const __m256 middle = _mm256_set1_ps(0.5f - (float)(8 << level));
            __m256 code = _mm256_cvtepi32_ps(_mm256_srli_epi32(c, BN_SCREEN_PLANES - level));
            __m256 r = _mm256_fnmadd_ps(_mm256_add_ps(code, middle), cell, value);
            rest[level] = _mm256_fmadd_ps(r, r, rest[level]);
        }
    }
    __m256i low = _mm256_packs_epi32(codes[0], codes[1]), high = _mm256_packs_epi32(codes[2], codes[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
    _mm256_storeu_si256((__m256i *)q, bytes);
}

BN_AVX2 BN_INLINE void bn_pack_group_avx2(const uint8_t *q, const bn_screen_row *row, ptrdiff_t g) {
    const __m256i low4 = _mm256_set1_epi8(15), low1 = _mm256_set1_epi8(1);
    uint8_t *nibbles = row->nibbles + g * BN_SCREEN_GROUP / 2;
    __m256i planes[BN_SCREEN_PLANES];
    for (int i = 0; i < 4; i++) { /* 32 bytes: blocks b and b + 2 */
        const uint8_t *first = q + 128 * (i / 2) + 32 * (i % 2);
        __m256i a = _mm256_loadu_si256((const __m256i *)first);
        __m256i b = _mm256_loadu_si256((const __m256i *)(first + 64));
        a = _mm256_and_si256(_mm256_srli_epi16(a, BN_SCREEN_PLANES), low4);
        b = _mm256_and_si256(_mm256_srli_epi16(b, BN_SCREEN_PLANES), low4);
        _mm256_storeu_si256((__m256i *)(nibbles + 32 * i), _mm256_or_si256(a, _mm256_slli_epi16(b, 4)));
    }
    for (int plane = 0; plane < BN_SCREEN_PLANES; plane++) planes[plane] = _mm256_setzero_si256();
    for (int j = 7; j >= 0; j--) {
        __m256i codes = _mm256_loadu_si256((const __m256i *)(q + 32 * j));
        for (int plane = 0; plane < BN_SCREEN_PLANES; plane++) {
            __m256i bit = _mm256_srli_epi16(codes, BN_SCREEN_PLANES - 1 - plane);
            planes[plane] = _mm256_or_si256(_mm256_add_epi8(planes[plane], planes[plane]),
                                            _mm256_and_si256(bit, low1));
        }
    }
    for (int plane = 0; plane < BN_SCREEN_PLANES; plane++)
        _mm256_storeu_si256((__m256i *)(row->planes[plane] + g * BN_SCREEN_GROUP / 8), planes[plane]);
}

BN_AVX2 static void bn_screen_encode_avx2(const float *w, ptrdiff_t groups, bn_screen_row *row) {
    const ptrdiff_t blocks = groups * BN_SCREEN_BLOCKS;
    float magnitude[BN_SCREEN_COLS / BN_SCREEN_BLOCK];
    int32_t largest = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        int32_t bits = bn_block_magnitude_avx2(w + BN_SCREEN_BLOCK * b);
        magnitude[b] = bn_bits_to_float((uint32_t)bits);
        largest = bits > largest ? bits : largest;
    }
    if (!bn_screen_begin_row(row, largest, magnitude, blocks)) return;
    __m256 rest[BN_SCREEN_PLANES + 1];
    for (int level = 0; level <= BN_SCREEN_PLANES; level++) rest[level] = _mm256_setzero_ps();
    for (ptrdiff_t g = 0; g < groups; g++) {
        uint8_t q[BN_SCREEN_GROUP];
        for (int j = 0; j < BN_SCREEN_BLOCKS; j++) {
            const ptrdiff_t b = g * BN_SCREEN_BLOCKS + j;
            bn_encode_block_avx2(w + BN_SCREEN_BLOCK * b, (float)row->steps[b] * row->step,
                                 q + BN_SCREEN_BLOCK * j, rest);
        }
        bn_pack_group_avx2(q, row, g);
    }
    for (int level = 0; level <= BN_SCREEN_PLANES; level++)
        row->error[level] = bn_screen_error(bn_hsum_f32x8(rest[level]));
}

#endif
