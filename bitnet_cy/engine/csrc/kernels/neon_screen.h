/* NEON: the screen. Four products of at most 63 * 128 fit int16; times the block's step below 2^23,
 * and a lane has one such sum a block: BN_SCREEN_COLS are 256 blocks. */
#ifndef BN_KERNELS_NEON_SCREEN_H
#define BN_KERNELS_NEON_SCREEN_H

#include <arm_neon.h>

#include "scalar_screen.h"

/* A step times the sums of the lower and of the upper lanes: one of each a block. */
BN_INLINE void bn_screen_part_neon(int32x4_t sum[2], uint8x16_t first, uint8x16_t second,
                                   const int8_t *x, int16_t step) {
    int8x16_t a = vreinterpretq_s8_u8(first), b = vreinterpretq_s8_u8(second);
    int8x16_t xa = vld1q_s8(x), xb = vld1q_s8(x + 16);
    int16x8_t products = vmull_s8(vget_low_s8(a), vget_low_s8(xa));
    products = vmlal_s8(products, vget_high_s8(a), vget_high_s8(xa));
    products = vmlal_s8(products, vget_low_s8(b), vget_low_s8(xb));
    products = vmlal_s8(products, vget_high_s8(b), vget_high_s8(xb));
    sum[0] = vmlal_n_s16(sum[0], vget_low_s16(products), step);
    sum[1] = vmlal_n_s16(sum[1], vget_high_s16(products), step);
}

/* 16 codes: piece p (0 or 1) of block j of a group; `of` says of what they are made. */
BN_INLINE uint8x16_t bn_screen_codes_neon(const uint8_t *nibbles, const uint8_t *const *planes,
                                          int of, int j, int p) {
    uint8x16_t codes = vdupq_n_u8(0);
    if (of & BN_SCREEN_NIBBLES) {
        codes = vld1q_u8(nibbles + 64 * (j / 4) + 32 * (j % 2) + 16 * p);
        codes = j % 4 < 2 ? vandq_u8(codes, vdupq_n_u8(15)) : vshrq_n_u8(codes, 4);
    }
    for (int i = 0; i < bn_screen_planes(of); i++) {
        uint8x16_t bit = vshlq_u8(vld1q_u8(planes[i] + 16 * p), vdupq_n_s8((int8_t)-j));
        codes = vorrq_u8(vaddq_u8(codes, codes), vandq_u8(bit, vdupq_n_u8(1)));
    }
    return codes;
}

BN_INLINE void bn_screen_rows_neon(const uint8_t *nibbles, const uint8_t *const *from, int of,
                                   const uint8_t *steps, int rows, ptrdiff_t groups,
                                   const bn_screen_query *x, int64_t (*sums)[2]) {
    const uint8_t *planes[2];
    for (int i = 0; i < bn_screen_planes(of); i++) planes[i] = from[i];
    for (int r = 0; r < rows; r++) {
        const int32x4_t zero = vdupq_n_s32(0);
        int32x4_t high[2] = {zero, zero}, low[2] = {zero, zero}, ones[2] = {zero, zero};
        for (ptrdiff_t g = 0; g < groups; g++, steps += BN_SCREEN_BLOCKS) {
            int16x8_t words = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(steps)));
            int16x8_t a = vld1q_s16(x->high_sums + 8 * g), b = vld1q_s16(x->low_sums + 8 * g);
            ones[0] = vmlal_s16(ones[0], vget_low_s16(words), vget_low_s16(a));
            ones[0] = vmlal_s16(ones[0], vget_high_s16(words), vget_high_s16(a));
            ones[1] = vmlal_s16(ones[1], vget_low_s16(words), vget_low_s16(b));
            ones[1] = vmlal_s16(ones[1], vget_high_s16(words), vget_high_s16(b));
            BN_UNROLL(8)
            for (int j = 0; j < 8; j++) {
                const ptrdiff_t at = BN_SCREEN_GROUP * g + 32 * j;
                uint8x16_t first = bn_screen_codes_neon(nibbles, planes, of, j, 0);
                uint8x16_t second = bn_screen_codes_neon(nibbles, planes, of, j, 1);
                bn_screen_part_neon(high, first, second, x->high + at, steps[j]);
                bn_screen_part_neon(low, first, second, x->low + at, steps[j]);
            }
            if (of & BN_SCREEN_NIBBLES) nibbles += BN_SCREEN_GROUP / 2;
            for (int i = 0; i < bn_screen_planes(of); i++) planes[i] += BN_SCREEN_GROUP / 8;
        }
        sums[r][0] = (vaddlvq_s32(high[0]) + vaddlvq_s32(high[1])) * 128 + vaddlvq_s32(low[0]) +
                     vaddlvq_s32(low[1]);
        sums[r][1] = vaddlvq_s32(ones[0]) * 128 + vaddlvq_s32(ones[1]);
    }
}

static void bn_screen_sums_neon(const uint8_t *nibbles, const uint8_t *const *planes,
                                int n_planes, const uint8_t *steps, int rows,
                                ptrdiff_t groups, const bn_screen_query *x,
                                int64_t (*sums)[2]) {
#define BN_ROWS(of) bn_screen_rows_neon(nibbles, planes, of, steps, rows, groups, x, sums)
    BN_SCREEN_CHOOSE(nibbles, n_planes, BN_ROWS);
#undef BN_ROWS
}

#endif
