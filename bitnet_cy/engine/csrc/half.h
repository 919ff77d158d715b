/* IEEE binary16 and bfloat16 to and from binary32, in integer arithmetic, for any CPU. */
#ifndef BN_HALF_H
#define BN_HALF_H

#include <stdint.h>
#include <string.h>

static inline float bn_bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bn_float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bn_bf16_to_f32(uint16_t half) { return bn_bits_to_float((uint32_t)half << 16); }

static inline float bn_f16_to_f32_one(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1Fu, mantissa = half & 0x3FFu;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24, exact in binary32 */
        float value = (float)mantissa * 5.9604644775390625e-8f;
        return bn_bits_to_float(bn_float_to_bits(value) | sign);
    }
    if (exponent == 31) /* a NaN comes out quiet, as the conversion instruction gives it */
        return bn_bits_to_float(sign | 0x7F800000u | (mantissa << 13) |
                                (mantissa ? 0x00400000u : 0));
    return bn_bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

/* Round half to even; overflow becomes infinity. */
static inline uint16_t bn_f32_to_f16_one(float value) {
    uint32_t bits = bn_float_to_bits(value);
    uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
    if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7C00u);
    uint32_t shift = 13, significand = magnitude;
    if (magnitude < 0x38800000u) { /* subnormal result */
        uint32_t exponent = magnitude >> 23;
        if (exponent < 102) return (uint16_t)sign;
        significand = (magnitude & 0x7FFFFFu) | 0x800000u;
        shift = 126 - exponent;
    } else {
        significand -= 112u << 23;
    }
    uint32_t rest = significand & ((1u << shift) - 1), half = 1u << (shift - 1);
    uint32_t result = significand >> shift;
    result += rest > half || (rest == half && (result & 1));
    return (uint16_t)(sign | result); /* a carry into the exponent is the right answer */
}

#endif
