/* AVX-512 with VNNI: sums of the screen, two blocks at a time; vpdpwssd multiplies by the steps. */
#ifndef BN_KERNELS_AVX512VNNI_SCREEN_H
#define BN_KERNELS_AVX512VNNI_SCREEN_H

#include "avx2_screen.h"

/* Words 2 i of the bytes' upper halves, for the two blocks 2 i and 2 i + 1. */
BN_AVX512VNNI BN_INLINE __m512i bn_two_halves_avx512vnni(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* The codes of blocks 2 i and 2 i + 1 of a group. */
BN_AVX512VNNI BN_INLINE __m512i bn_screen_codes_avx512vnni(const uint8_t *nibbles,
                                                           const __m512i *planes, int of, int i) {
    const int up = bn_screen_planes(of); /* room for the bits */
    __m512i codes = _mm512_setzero_si512();
    if (of & BN_SCREEN_NIBBLES) {
        codes = _mm512_loadu_si512(nibbles + 64 * (i / 2));
        codes = i % 2 ? _mm512_srli_epi16(codes, 4 - up) : _mm512_slli_epi16(codes, up);
        codes = _mm512_and_si512(codes, _mm512_set1_epi8((char)(15 << up)));
    }
    for (int p = 0; p < up; p++) { /* bits 2 i and 2 i + 1 of a byte to bit up - 1 - p */
        const __m512i shift = bn_two_halves_avx512vnni(_mm256_set1_epi16((short)(2 * i)),
                                                       _mm256_set1_epi16((short)(2 * i + 1)));
        __m512i bit = _mm512_and_si512(_mm512_srlv_epi16(planes[p], shift), _mm512_set1_epi8(1));
        codes = _mm512_or_si512(codes, p + 1 < up ? _mm512_add_epi8(bit, bit) : bit);
    }
    return codes;
}

BN_AVX512VNNI BN_INLINE void bn_screen_rows_avx512vnni(const uint8_t *nibbles,
                                                       const uint8_t *const *from, int of,
                                                       const uint8_t *steps, int rows,
                                                       ptrdiff_t groups, const bn_screen_query *x,
                                                       int64_t (*sums)[2]) {
    const uint8_t *planes[2];
    for (int i = 0; i < bn_screen_planes(of); i++) planes[i] = from[i];
    for (int r = 0; r < rows; r++) {
        __m512i high = _mm512_setzero_si512(), low = high, plane[2];
        __m256i ones = _mm256_setzero_si256(); /* of the high parts below, of the low ones above */
        for (ptrdiff_t g = 0; g < groups; g++, steps += BN_SCREEN_BLOCKS) {
            if (of & BN_SCREEN_NIBBLES) {
                bn_fetch_lines_avx512vnni(nibbles, 2);
                for (int i = 0; i < bn_screen_planes(of); i++)
                    _mm_prefetch((const char *)planes[i] + BN_AVX512VNNI_FAR / 4, _MM_HINT_T1);
            }
            __m128i words = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)steps));
            __m128i high_sums = _mm_loadu_si128((const __m128i *)(x->high_sums + 8 * g));
            __m128i low_sums = _mm_loadu_si128((const __m128i *)(x->low_sums + 8 * g));
            ones = _mm256_dpwssd_epi32(ones, _mm256_broadcastsi128_si256(words),
                                       _mm256_set_m128i(low_sums, high_sums));
            for (int i = 0; i < bn_screen_planes(of); i++) {
                __m256i bits = _mm256_loadu_si256((const __m256i *)planes[i]);
                plane[i] = bn_two_halves_avx512vnni(bits, bits);
            }
            const __m512i all = _mm512_broadcast_i32x4(words);
            BN_UNROLL(4)
            for (int i = 0; i < 4; i++) {
                const __m512i pick = bn_two_halves_avx512vnni(
                    _mm256_set1_epi16((short)(0x0100 + 0x0202 * 2 * i)),
                    _mm256_set1_epi16((short)(0x0100 + 0x0202 * (2 * i + 1))));
                const __m512i step = _mm512_shuffle_epi8(all, pick);
                const ptrdiff_t at = BN_SCREEN_GROUP * g + 64 * i;
                __m512i codes = bn_screen_codes_avx512vnni(nibbles, plane, of, i);
                high = _mm512_dpwssd_epi32(
                    high, _mm512_maddubs_epi16(codes, _mm512_loadu_si512(x->high + at)), step);
                low = _mm512_dpwssd_epi32(
                    low, _mm512_maddubs_epi16(codes, _mm512_loadu_si512(x->low + at)), step);
            }
            if (of & BN_SCREEN_NIBBLES) nibbles += BN_SCREEN_GROUP / 2;
            for (int i = 0; i < bn_screen_planes(of); i++) planes[i] += BN_SCREEN_GROUP / 8;
        }
        int64_t part[4];
        __m256i high8 = _mm256_add_epi32(_mm512_castsi512_si256(high),
                                         _mm512_extracti64x4_epi64(high, 1));
        __m256i low8 = _mm256_add_epi32(_mm512_castsi512_si256(low),
                                        _mm512_extracti64x4_epi64(low, 1));
        _mm256_storeu_si256((__m256i *)part, bn_half_sums_i64x4(high8, low8));
        sums[r][0] = (part[0] + part[2]) * 128 + part[1] + part[3];
        _mm256_storeu_si256((__m256i *)part, bn_half_sums_i64x4(ones, ones));
        sums[r][1] = part[0] * 128 + part[2];
    }
}

BN_AVX512VNNI static void bn_screen_sums_avx512vnni(const uint8_t *nibbles,
                                                    const uint8_t *const *planes,
                                                    int n_planes, const uint8_t *steps, int rows,
                                                    ptrdiff_t groups, const bn_screen_query *x,
                                                    int64_t (*sums)[2]) {
#define BN_ROWS(of) bn_screen_rows_avx512vnni(nibbles, planes, of, steps, rows, groups, x, sums)
    BN_SCREEN_CHOOSE(nibbles, n_planes, BN_ROWS);
#undef BN_ROWS
}

#endif
