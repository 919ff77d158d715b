/* The most int8 multiply-adds per second that the instructions of a kernel allow: what prefill runs
 * against. Independent chains in registers, no memory; a round is BN_PEAK_CHAINS instructions.
 */
#ifndef BN_PEAK_H
#define BN_PEAK_H

#include "dispatch.h"

enum { BN_PEAK_CHAINS = 12 };

typedef struct bn_peak {
    const char *name;    /* the instruction */
    int needs;           /* BN_CPU_* bits */
    int multiply_adds;   /* of one instruction */
    uint32_t (*run)(ptrdiff_t rounds);
} bn_peak;

/* STEP makes a chain's next value of v, its last one, x and y; the result depends on every chain. */
#define BN_PEAK(NAME, TARGET, VECTOR, FILL, STEP, FIRST)                                       \
    TARGET static uint32_t bn_peak_##NAME(ptrdiff_t rounds) {                                  \
        VECTOR chain[BN_PEAK_CHAINS], x = FILL(3), y = FILL(5);                                \
        BN_UNROLL(12) for (int i = 0; i < BN_PEAK_CHAINS; i++) chain[i] = FILL(i);             \
        for (ptrdiff_t round = 0; round < rounds; round++) {                                   \
            BN_UNROLL(12) for (int i = 0; i < BN_PEAK_CHAINS; i++) {                           \
                VECTOR v = chain[i];                                                           \
                chain[i] = STEP;                                                               \
            }                                                                                  \
        }                                                                                      \
        (void)x;                                                                               \
        for (int i = 1; i < BN_PEAK_CHAINS; i++) chain[0] = FIRST##_ADD(chain[0], chain[i]);   \
        return (uint32_t)FIRST(chain[0]);                                                      \
    }

#if defined(BN_X86)
#define BN_FIRST_256(v) _mm256_extract_epi32(v, 0)
#define BN_FIRST_256_ADD _mm256_add_epi32
#define BN_FIRST_512(v) _mm_cvtsi128_si32(_mm512_castsi512_si128(v))
#define BN_FIRST_512_ADD _mm512_add_epi32
#define BN_FILL_256(n) _mm256_set1_epi8((char)(n))
#define BN_FILL_512(n) _mm512_set1_epi8((char)(n))
BN_PEAK(vpmaddubsw, BN_AVX2, __m256i, BN_FILL_256, _mm256_maddubs_epi16(v, y), BN_FIRST_256)
BN_PEAK(vpmaddubsw_vpaddw, BN_AVX2, __m256i, BN_FILL_256,
        _mm256_add_epi16(_mm256_maddubs_epi16(v, y), x), BN_FIRST_256)
#ifdef BN_X86_VEX_VNNI
BN_PEAK(vpdpbusd_256, BN_AVXVNNI, __m256i, BN_FILL_256, _mm256_dpbusd_avx_epi32(v, x, y),
        BN_FIRST_256)
#endif
BN_PEAK(vpdpbusd_512, BN_AVX512VNNI, __m512i, BN_FILL_512, _mm512_dpbusd_epi32(v, x, y),
        BN_FIRST_512)
#elif defined(BN_ARM64)
#define BN_FIRST_NEON(v) vgetq_lane_s32(v, 0)
#define BN_FIRST_NEON_ADD vaddq_s32
#define BN_FILL_NEON(n) vdupq_n_s32(0x01010101 * (n))
#define BN_SMLAL(v, x, y)                                                                      \
    vreinterpretq_s32_s16(vmlal_s8(vreinterpretq_s16_s32(v),                                   \
                                   vget_low_s8(vreinterpretq_s8_s32(x)),                       \
                                   vget_low_s8(vreinterpretq_s8_s32(y))))
BN_PEAK(smlal, , int32x4_t, BN_FILL_NEON, BN_SMLAL(v, x, y), BN_FIRST_NEON)
#ifdef BN_ARM64_DOT
BN_PEAK(sdot, BN_NEONDOT, int32x4_t, BN_FILL_NEON,
        vdotq_s32(v, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(y)), BN_FIRST_NEON)
BN_PEAK(smmla, BN_NEONI8MM, int32x4_t, BN_FILL_NEON,
        vmmlaq_s32(v, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(y)), BN_FIRST_NEON)
#endif
#endif

static const bn_peak bn_peaks[] = {
#if defined(BN_X86)
    {"vpmaddubsw", BN_CPU_AVX2, 32, bn_peak_vpmaddubsw},
    {"vpmaddubsw+vpaddw", BN_CPU_AVX2, 32, bn_peak_vpmaddubsw_vpaddw},
#ifdef BN_X86_VEX_VNNI
    {"vpdpbusd (256 bits)", BN_CPU_AVX2 | BN_CPU_AVXVNNI, 32, bn_peak_vpdpbusd_256},
#endif
    {"vpdpbusd (512 bits)", BN_CPU_AVX2 | BN_CPU_AVX512VNNI, 64, bn_peak_vpdpbusd_512},
#elif defined(BN_ARM64)
    {"smlal", 0, 8, bn_peak_smlal},
#ifdef BN_ARM64_DOT
    {"sdot", BN_CPU_DOTPROD, 16, bn_peak_sdot},
    {"smmla", BN_CPU_DOTPROD | BN_CPU_I8MM, 32, bn_peak_smmla},
#endif
#endif
    {NULL, 0, 0, NULL},
};

#endif
