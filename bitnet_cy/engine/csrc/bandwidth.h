/* A plain streaming read, as fast as memory allows: the wall decode runs against. Loads as wide as
 * the CPU has, and far enough ahead: words of 8 bytes reach half of what vectors do. */
#ifndef BN_BANDWIDTH_H
#define BN_BANDWIDTH_H

#include <string.h>

#include "dispatch.h"
#include "queue.h"

enum { BN_READ_STEP = 256, BN_READ_AHEAD = 4096 };

/* Lanes of four vectors, VECTOR wide, each the XOR of what it read. */
#define BN_READ(NAME, TARGET, VECTOR, LOAD, XOR, ZERO)                                         \
    TARGET static uint64_t bn_read_##NAME(const uint8_t *data, ptrdiff_t n) {                  \
        VECTOR sums[4] = {ZERO, ZERO, ZERO, ZERO};                                             \
        for (ptrdiff_t i = 0; i + BN_READ_STEP <= n; i += BN_READ_STEP) {                      \
            for (int j = 0; j < BN_READ_STEP; j += BN_LINE)                                    \
                bn_prefetch(data + i + BN_READ_AHEAD + j);                                     \
            BN_UNROLL(16)                                                                      \
            for (int j = 0; j < BN_READ_STEP / (int)sizeof(VECTOR); j++)                       \
                sums[j % 4] = XOR(sums[j % 4], LOAD(data + i + j * sizeof(VECTOR)));           \
        }                                                                                      \
        sums[0] = XOR(XOR(sums[0], sums[1]), XOR(sums[2], sums[3]));                           \
        uint64_t first;                                                                        \
        memcpy(&first, sums, sizeof first);                                                    \
        return first;                                                                          \
    }

static inline uint64_t bn_load_word(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}
#define BN_XOR_WORD(a, b) ((a) ^ (b))
BN_READ(words, , uint64_t, bn_load_word, BN_XOR_WORD, 0)

#ifdef BN_X86
#define BN_LOAD_256(p) _mm256_loadu_si256((const __m256i *)(p))
BN_READ(256, BN_AVX2, __m256i, BN_LOAD_256, _mm256_xor_si256, _mm256_setzero_si256())
BN_READ(512, BN_AVX512VNNI, __m512i, _mm512_loadu_si512, _mm512_xor_si512, _mm512_setzero_si512())
#elif defined(BN_ARM64)
BN_READ(neon, , uint8x16_t, vld1q_u8, veorq_u8, vdupq_n_u8(0))
#endif

/* Reads the whole steps among n bytes; what it returns depends on them. */
typedef uint64_t (*bn_reader)(const uint8_t *data, ptrdiff_t n);

static bn_reader bn_widest_reader(void) {
#ifdef BN_X86
    const int features = bn_cpu_features();
    if (features & BN_CPU_AVX512VNNI) return bn_read_512;
    if (features & BN_CPU_AVX2) return bn_read_256;
#elif defined(BN_ARM64)
    return bn_read_neon;
#endif
    return bn_read_words;
}

#endif
