/* NEON: sums of the screen. Four products of at most 15 * 128 fit int16; times the block's step
 * below 2^21, twice a block and lane, and BN_SCREEN_COLS are 512 blocks. */
#ifndef BN_KERNELS_NEON_SCREEN_H
#define BN_KERNELS_NEON_SCREEN_H

#include <arm_neon.h>

#include "scalar_screen.h"

BN_INLINE int32x4_t bn_screen_part_neon(int32x4_t sum, uint8x16_t first, uint8x16_t second,
                                        const int8_t *x, int16_t step) {
    int8x16_t a = vreinterpretq_s8_u8(first), b = vreinterpretq_s8_u8(second);
    int8x16_t xa = vld1q_s8(x), xb = vld1q_s8(x + 16);
    int16x8_t products = vmull_s8(vget_low_s8(a), vget_low_s8(xa));
    products = vmlal_s8(products, vget_high_s8(a), vget_high_s8(xa));
    products = vmlal_s8(products, vget_low_s8(b), vget_low_s8(xb));
    products = vmlal_s8(products, vget_high_s8(b), vget_high_s8(xb));
    sum = vmlal_n_s16(sum, vget_low_s16(products), step);
    return vmlal_n_s16(sum, vget_high_s16(products), step);
}

BN_INLINE void bn_screen_block_neon(int32x4_t sums[2], uint8x16_t first, uint8x16_t second,
                                    const int8_t *high, const int8_t *low, int16_t step) {
    sums[0] = bn_screen_part_neon(sums[0], first, second, high, step);
    sums[1] = bn_screen_part_neon(sums[1], first, second, low, step);
}

BN_INLINE void bn_screen_group_neon(int32x4_t sums[2], const uint8_t *codes, int bits,
                                    const uint8_t *steps, const int8_t *high, const int8_t *low) {
    const uint8x16_t low4 = vdupq_n_u8(15), low1 = vdupq_n_u8(1);
    if (bits == 4) {
        for (int i = 0; i < 4; i++) {
            uint8x16_t a = vld1q_u8(codes + 32 * i), b = vld1q_u8(codes + 32 * i + 16);
            bn_screen_block_neon(sums, vandq_u8(a, low4), vandq_u8(b, low4), high + 64 * i,
                                 low + 64 * i, steps[2 * i]);
            bn_screen_block_neon(sums, vshrq_n_u8(a, 4), vshrq_n_u8(b, 4), high + 64 * i + 32,
                                 low + 64 * i + 32, steps[2 * i + 1]);
        }
        return;
    }
    uint8x16_t a = vld1q_u8(codes), b = vld1q_u8(codes + 16);
    for (int j = 0; j < 8; j++, a = vshrq_n_u8(a, 1), b = vshrq_n_u8(b, 1))
        bn_screen_block_neon(sums, vandq_u8(a, low1), vandq_u8(b, low1), high + 32 * j,
                             low + 32 * j, steps[j]);
}

BN_INLINE void bn_screen_rows_neon(const uint8_t *codes, int bits, const uint8_t *steps, int rows,
                                   ptrdiff_t groups, const bn_screen_query *x,
                                   int64_t (*sums)[2]) {
    for (int r = 0; r < rows; r++) {
        int32x4_t sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)}, ones[2] = {sum[0], sum[0]};
        for (ptrdiff_t g = 0; g < groups; g++, steps += BN_SCREEN_BLOCKS) {
            int16x8_t words = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(steps)));
            int16x8_t high = vld1q_s16(x->high_sums + 8 * g), low = vld1q_s16(x->low_sums + 8 * g);
            ones[0] = vmlal_s16(ones[0], vget_low_s16(words), vget_low_s16(high));
            ones[0] = vmlal_s16(ones[0], vget_high_s16(words), vget_high_s16(high));
            ones[1] = vmlal_s16(ones[1], vget_low_s16(words), vget_low_s16(low));
            ones[1] = vmlal_s16(ones[1], vget_high_s16(words), vget_high_s16(low));
            bn_screen_group_neon(sum, codes, bits, steps, x->high + BN_SCREEN_GROUP * g,
                                 x->low + BN_SCREEN_GROUP * g);
            codes += BN_SCREEN_GROUP / 8 * bits;
        }
        sums[r][0] = vaddlvq_s32(sum[0]) * 128 + vaddlvq_s32(sum[1]);
        sums[r][1] = vaddlvq_s32(ones[0]) * 128 + vaddlvq_s32(ones[1]);
    }
}

static void bn_screen_nibbles_neon(const uint8_t *codes, const uint8_t *steps, int rows,
                                   ptrdiff_t groups, const bn_screen_query *x,
                                   int64_t (*sums)[2]) {
    bn_screen_rows_neon(codes, 4, steps, rows, groups, x, sums);
}

static void bn_screen_bits_neon(const uint8_t *codes, const uint8_t *steps, int rows,
                                ptrdiff_t groups, const bn_screen_query *x, int64_t (*sums)[2]) {
    bn_screen_rows_neon(codes, 1, steps, rows, groups, x, sums);
}

static void bn_screen_encode_neon(const float *w, ptrdiff_t groups, bn_screen_row *row) {
    bn_screen_encode_body(w, groups, row);
}

#endif
