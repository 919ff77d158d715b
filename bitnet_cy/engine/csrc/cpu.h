/* What the CPU, and the operating system on it, can execute. */
#ifndef BN_CPU_H
#define BN_CPU_H

#include <stdint.h>

enum {
    BN_CPU_AVX2 = 1 << 0,       /* with FMA and F16C */
    BN_CPU_AVXVNNI = 1 << 1,    /* vpdpbusd on 256 bits, VEX */
    BN_CPU_AVX512VNNI = 1 << 2, /* AVX512 F, BW, VL, VNNI */
};

#if defined(__x86_64__) || defined(_M_X64)

#if defined(_MSC_VER)
#include <intrin.h>
static void bn_cpuid(int leaf, int subleaf, uint32_t r[4]) {
    __cpuidex((int *)r, leaf, subleaf);
}
static uint64_t bn_xcr0(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static void bn_cpuid(int leaf, int subleaf, uint32_t r[4]) {
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}
static uint64_t bn_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
#endif

static int bn_has(uint32_t word, int bit) { return word >> bit & 1; }

static int bn_cpu_features(void) {
    uint32_t basic[4], one[4], seven[4] = {0}, seven1[4] = {0};
    bn_cpuid(0, 0, basic);
    bn_cpuid(1, 0, one);
    int osxsave = bn_has(one[2], 27), avx = bn_has(one[2], 28);
    if (basic[0] < 7 || !osxsave || !avx) return 0;
    uint64_t saved = bn_xcr0();
    int ymm_saved = (saved & 0x6) == 0x6, zmm_saved = (saved & 0xE6) == 0xE6;
    bn_cpuid(7, 0, seven);
    if (seven[0] >= 1) bn_cpuid(7, 1, seven1);
    int fma = bn_has(one[2], 12), f16c = bn_has(one[2], 29), avx2 = bn_has(seven[1], 5);
    if (!ymm_saved || !avx2 || !fma || !f16c) return 0;
    int features = BN_CPU_AVX2;
    if (bn_has(seven1[0], 4)) features |= BN_CPU_AVXVNNI;
    int avx512 = bn_has(seven[1], 16) && bn_has(seven[1], 30) && bn_has(seven[1], 31);
    if (zmm_saved && avx512 && bn_has(seven[2], 11)) features |= BN_CPU_AVX512VNNI;
    return features;
}

#else

static int bn_cpu_features(void) { return 0; }

#endif
#endif
