/* What the CPU, and the operating system on it, can execute. */
#ifndef BN_CPU_H
#define BN_CPU_H

#include <stdint.h>

enum {
    BN_CPU_AVX2 = 1 << 0,       /* with FMA and F16C */
    BN_CPU_AVXVNNI = 1 << 1,    /* vpdpbusd on 256 bits, VEX */
    BN_CPU_AVX512VNNI = 1 << 2, /* AVX512 F, BW, VL, VNNI */
    BN_CPU_DOTPROD = 1 << 3,    /* sdot, udot; every AArch64 CPU has the rest of NEON */
    BN_CPU_I8MM = 1 << 4,       /* smmla, usdot */
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

#elif (defined(__aarch64__) || defined(_M_ARM64)) && defined(_WIN32)

#include <windows.h>

/* By number: older SDKs lack the names. 43: PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE,
 * 66: PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE */
static int bn_cpu_features(void) {
    return (IsProcessorFeaturePresent(43) ? BN_CPU_DOTPROD : 0) |
           (IsProcessorFeaturePresent(66) ? BN_CPU_I8MM : 0);
}

#elif defined(__aarch64__) && defined(__APPLE__)

#include <stddef.h>
#include <sys/sysctl.h>

static int bn_has(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

static int bn_cpu_features(void) {
    return (bn_has("hw.optional.arm.FEAT_DotProd") ? BN_CPU_DOTPROD : 0) |
           (bn_has("hw.optional.arm.FEAT_I8MM") ? BN_CPU_I8MM : 0);
}

#elif defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>

/* Bit 20 of AT_HWCAP is HWCAP_ASIMDDP, bit 13 of AT_HWCAP2 is HWCAP2_I8MM. */
static int bn_cpu_features(void) {
    return (getauxval(AT_HWCAP) >> 20 & 1 ? BN_CPU_DOTPROD : 0) |
           (getauxval(AT_HWCAP2) >> 13 & 1 ? BN_CPU_I8MM : 0);
}

#else

static int bn_cpu_features(void) { return 0; }

#endif
#endif
