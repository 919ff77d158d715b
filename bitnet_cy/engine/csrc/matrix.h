/* Rows of the embedding and the output head, in any of their file types. */
#ifndef BN_MATRIX_H
#define BN_MATRIX_H

#include <string.h>

#include "half.h"
#include "kernels.h"
#include "network.h"

static inline uint16_t bn_read_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static void bn_decode_bf16(const uint8_t *row, ptrdiff_t n, float *y) {
    for (ptrdiff_t i = 0; i < n; i++) y[i] = bn_bf16_to_f32(bn_read_u16(row + 2 * i));
}

/* 34 bytes: float16 d, 32 int8; w = d * q */
static void bn_decode_q8_0(const uint8_t *row, ptrdiff_t n, float *y) {
    for (ptrdiff_t b = 0; b < n / 32; b++, row += 34) {
        float d = bn_f16_to_f32_one(bn_read_u16(row));
        for (int j = 0; j < 32; j++) y[32 * b + j] = d * (float)(int8_t)row[2 + j];
    }
}

/* 18 bytes: float16 d, 16 bytes of two 4-bit codes; w = d * (code - 8) */
static void bn_decode_q4_0(const uint8_t *row, ptrdiff_t n, float *y) {
    for (ptrdiff_t b = 0; b < n / 32; b++, row += 18) {
        float d = bn_f16_to_f32_one(bn_read_u16(row));
        for (int j = 0; j < 16; j++) {
            y[32 * b + j] = d * (float)((row[2 + j] & 15) - 8);
            y[32 * b + j + 16] = d * (float)((row[2 + j] >> 4) - 8);
        }
    }
}

/* 210 bytes: 128 of low 4 bits, 64 of high 2 bits, 16 int8 scales, float16 d; two halves of 128 */
static void bn_decode_q6_k(const uint8_t *row, ptrdiff_t n, float *y) {
    for (ptrdiff_t b = 0; b < n / 256; b++, row += 210) {
        float d = bn_f16_to_f32_one(bn_read_u16(row + 208));
        for (int h = 0; h < 2; h++) {
            const uint8_t *low = row + 64 * h, *high = row + 128 + 32 * h;
            const int8_t *scales = (const int8_t *)row + 192 + 8 * h;
            float *out = y + 256 * b + 128 * h;
            for (int j = 0; j < 128; j++) {
                int l = j & 31, quarter = j >> 5;
                int four = low[l + 32 * (quarter & 1)] >> 4 * (quarter >> 1) & 15;
                int two = high[l] >> 2 * quarter & 3;
                out[j] = d * (float)scales[j >> 4] * (float)((four | two << 4) - 32);
            }
        }
    }
}

static void bn_decode_row(const bn_kernels *kernels, const bn_matrix *m, ptrdiff_t row, float *y) {
    const uint8_t *data = m->data + row * m->row_bytes;
    switch (m->type) {
    case BN_F32: memcpy(y, data, (size_t)m->cols * sizeof *y); break;
    case BN_F16: kernels->f16_to_f32((const uint16_t *)(const void *)data, m->cols, y); break;
    case BN_BF16: bn_decode_bf16(data, m->cols, y); break;
    case BN_Q8_0: bn_decode_q8_0(data, m->cols, y); break;
    case BN_Q6_K: bn_decode_q6_k(data, m->cols, y); break;
    case BN_Q4_0: bn_decode_q4_0(data, m->cols, y); break;
    }
}

/* out[t][r] = row (first + r) . x[t], for tokens rows of x; decoded: scratch of cols floats */
static void bn_matrix_rows(const bn_kernels *kernels, const bn_matrix *m, ptrdiff_t first,
                           ptrdiff_t n_rows, const float *x, ptrdiff_t tokens, float *out,
                           ptrdiff_t out_stride, float *decoded) {
    const ptrdiff_t n = m->cols;
    for (ptrdiff_t r = 0; r < n_rows; r++) {
        const uint8_t *row = m->data + (first + r) * m->row_bytes;
        if (m->type == BN_F16) {
            int group = (int)(n_rows - r < 4 ? n_rows - r : 4);
            for (ptrdiff_t t = 0; t < tokens; t++)
                kernels->dot_rows_f16((const uint16_t *)(const void *)row, n, group, x + t * n, n,
                                      out + t * out_stride + r);
            r += group - 1;
            continue;
        }
        const float *values = decoded;
        if (m->type == BN_F32) values = (const float *)(const void *)row;
        else bn_decode_row(kernels, m, first + r, decoded);
        for (ptrdiff_t t = 0; t < tokens; t++)
            kernels->dot_rows_f32(values, n, 1, x + t * n, n, out + t * out_stride + r);
    }
}

#endif
