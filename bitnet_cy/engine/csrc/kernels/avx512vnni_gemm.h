/* Ternary products of many tokens by AVX-512 VNNI: rows are in the lanes of a vector, so that any
 * number of tokens fills it.
 *
 * Sixteen rows are transposed as they lie, in words of four bytes, and unpacked to one code a byte:
 * a step is 64 bytes, four columns of each of sixteen rows. vpdpbusd multiplies it by four columns
 * of one token, broadcast: a token's bytes are used as the quantizer leaves them. Four vectors of
 * rows by six tokens are 24 sums in registers, ten loads for 24 products. Columns are taken 512 at
 * a time, 32 KB unpacked, which the first cache holds; sums rest in the tile meanwhile. They are
 * int32: nothing overflows below K of eight million.
 */
#ifndef BN_KERNELS_AVX512VNNI_GEMM_H
#define BN_KERNELS_AVX512VNNI_GEMM_H

#include <immintrin.h>
#include <string.h>

#include "avx512vnni.h"

enum { BN_AVX512VNNI_GROUPS = 4, BN_AVX512VNNI_ROWS = 64, BN_AVX512VNNI_TOKENS = 6 };
enum { BN_AVX512VNNI_BLOCKS = 4 }; /* unpacked at a time */
enum { BN_AVX512VNNI_STEP = BN_AVX512VNNI_ROWS * 4, BN_AVX512VNNI_BLOCK_STEPS = BN_BLOCK / 4 };
/* Activations of more bytes do not stay in the second cache: they are fetched a tile ahead. */
enum { BN_AVX512VNNI_CACHED = 1 << 20 };

/* Sixteen rows of sixteen words become columns. */
BN_AVX512VNNI BN_INLINE void bn_transpose_words_avx512vnni(__m512i v[16]) {
    __m512i pair[16], four[16];
    for (int i = 0; i < 8; i++) {
        pair[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        pair[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            four[i + 2 * j] = _mm512_unpacklo_epi64(pair[i + j], pair[i + j + 2]);
            four[i + 2 * j + 1] = _mm512_unpackhi_epi64(pair[i + j], pair[i + j + 2]);
        }
    /* Quarter l of four[4 i + j] holds word 4 l + j of rows 4 i to 4 i + 3. */
    for (int j = 0; j < 4; j++) {
        __m512i low = _mm512_shuffle_i32x4(four[j], four[4 + j], 0x44);
        __m512i high = _mm512_shuffle_i32x4(four[j], four[4 + j], 0xEE);
        __m512i low2 = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0x44);
        __m512i high2 = _mm512_shuffle_i32x4(four[8 + j], four[12 + j], 0xEE);
        v[j] = _mm512_shuffle_i32x4(low, low2, 0x88);
        v[4 + j] = _mm512_shuffle_i32x4(low, low2, 0xDD);
        v[8 + j] = _mm512_shuffle_i32x4(high, high2, 0x88);
        v[12 + j] = _mm512_shuffle_i32x4(high, high2, 0xDD);
    }
}

/* Two blocks, or the last one, of up to sixteen rows to their steps; missing rows are 0. */
BN_AVX512VNNI static void bn_unpack_rows_avx512vnni(const uint8_t *codes, ptrdiff_t row_bytes,
                                                    ptrdiff_t rows, int two, uint8_t *unpacked) {
    const __m512i low2 = _mm512_set1_epi8(3);
    __m512i v[16];
    for (int r = 0; r < 16; r++) {
        const uint8_t *from = codes + r * row_bytes;
        if (r >= rows) v[r] = _mm512_setzero_si512();
        else if (two) v[r] = _mm512_loadu_si512(from);
        else v[r] = _mm512_inserti64x4(_mm512_setzero_si512(),
                                       _mm256_loadu_si256((const __m256i *)from), 0);
    }
    bn_transpose_words_avx512vnni(v);
    for (int j = 0; j < (two ? 16 : 8); j++) {
        uint8_t *to = unpacked + (j / 8 * BN_AVX512VNNI_BLOCK_STEPS + j % 8) * BN_AVX512VNNI_STEP;
        const ptrdiff_t plane = 8 * BN_AVX512VNNI_STEP;
        _mm512_store_si512(to, _mm512_and_si512(_mm512_srli_epi16(v[j], 6), low2));
        _mm512_store_si512(to + plane, _mm512_and_si512(_mm512_srli_epi16(v[j], 4), low2));
        _mm512_store_si512(to + 2 * plane, _mm512_and_si512(_mm512_srli_epi16(v[j], 2), low2));
        _mm512_store_si512(to + 3 * plane, _mm512_and_si512(v[j], low2));
    }
}

/* A tile's part of the columns: so many steps of 64 rows, against tokens k bytes apart, added to
 * what `out` holds, or the first ones to -q_sum. */
typedef struct bn_tile_avx512vnni {
    const uint8_t *unpacked;
    ptrdiff_t steps, k, out_stride;
    const int8_t *q;
    const int32_t *q_sums;
    int32_t *out;
    int first;
} bn_tile_avx512vnni;

/* Four vectors of rows by up to six tokens, a constant after inlining. */
BN_AVX512VNNI BN_INLINE void bn_gemm_tile_avx512vnni(const bn_tile_avx512vnni *tile, int tokens) {
    __m512i sum[BN_AVX512VNNI_TOKENS][BN_AVX512VNNI_GROUPS];
    BN_UNROLL(6)
    for (int t = 0; t < tokens; t++) {
        BN_UNROLL(4)
        for (int g = 0; g < BN_AVX512VNNI_GROUPS; g++)
            sum[t][g] = tile->first
                            ? _mm512_set1_epi32(-tile->q_sums[t])
                            : _mm512_loadu_si512(tile->out + t * tile->out_stride + 16 * g);
    }
    const uint8_t *unpacked = tile->unpacked;
    const int8_t *q = tile->q;
    const ptrdiff_t k = tile->k;
    for (ptrdiff_t i = 0; i < tile->steps; i++, unpacked += BN_AVX512VNNI_STEP, q += 4) {
        __m512i w[BN_AVX512VNNI_GROUPS];
        BN_UNROLL(4)
        for (int g = 0; g < BN_AVX512VNNI_GROUPS; g++) w[g] = _mm512_load_si512(unpacked + 64 * g);
        BN_UNROLL(6)
        for (int t = 0; t < tokens; t++) {
            int32_t four;
            memcpy(&four, q + t * k, sizeof four);
            __m512i x = _mm512_set1_epi32(four);
            BN_UNROLL(4)
            for (int g = 0; g < BN_AVX512VNNI_GROUPS; g++) {
                sum[t][g] = _mm512_dpbusd_epi32(sum[t][g], w[g], x);
                BN_KEEP_AVX512(sum[t][g]);
            }
        }
    }
    BN_UNROLL(6)
    for (int t = 0; t < tokens; t++) {
        BN_UNROLL(4)
        for (int g = 0; g < BN_AVX512VNNI_GROUPS; g++)
            _mm512_storeu_si512(tile->out + t * tile->out_stride + 16 * g, sum[t][g]);
    }
}

BN_AVX512VNNI static void bn_gemm_tokens_avx512vnni(const bn_tile_avx512vnni *tile, int tokens) {
    switch (tokens) {
    case 1: bn_gemm_tile_avx512vnni(tile, 1); break;
    case 2: bn_gemm_tile_avx512vnni(tile, 2); break;
    case 3: bn_gemm_tile_avx512vnni(tile, 3); break;
    case 4: bn_gemm_tile_avx512vnni(tile, 4); break;
    case 5: bn_gemm_tile_avx512vnni(tile, 5); break;
    default: bn_gemm_tile_avx512vnni(tile, 6); break;
    }
}

/* Unpack some blocks of all rows, and fetch what will be unpacked next: the blocks that follow, or
 * the first ones of as many rows further on. */
BN_AVX512VNNI static void bn_unpack_blocks_avx512vnni(const uint8_t *codes, ptrdiff_t blocks,
                                                      ptrdiff_t rows, ptrdiff_t first,
                                                      ptrdiff_t count, uint8_t *unpacked) {
    const ptrdiff_t row_bytes = blocks * BN_BLOCK_BYTES;
    for (ptrdiff_t b = 0; b < count; b += 2)
        for (ptrdiff_t r = 0; r < BN_AVX512VNNI_ROWS; r += 16)
            bn_unpack_rows_avx512vnni(
                codes + r * row_bytes + (first + b) * BN_BLOCK_BYTES, row_bytes, rows - r,
                b + 2 <= count,
                unpacked + b * BN_AVX512VNNI_BLOCK_STEPS * BN_AVX512VNNI_STEP + 4 * r);
    const ptrdiff_t next = first + count < blocks ? (first + count) * BN_BLOCK_BYTES
                                                  : rows * row_bytes;
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int line = 0; line < BN_AVX512VNNI_BLOCKS * BN_BLOCK_BYTES; line += 64)
            _mm_prefetch((const char *)(codes + next + r * row_bytes + line), _MM_HINT_T0);
}

/* The activations of the tile that follows. */
BN_AVX512VNNI static void bn_fetch_tile_avx512vnni(const bn_tile_avx512vnni *tile, int tokens) {
    for (int t = tokens; t < 2 * tokens; t++)
        for (ptrdiff_t i = 0; i < 4 * tile->steps; i += 64)
            _mm_prefetch((const char *)(tile->q + t * tile->k + i), _MM_HINT_T0);
}

/* Panels are tokens. Each tile has as many of them as the others, or one less. */
BN_AVX512VNNI static void bn_ternary_gemm_avx512vnni(const uint8_t *codes, ptrdiff_t blocks,
                                                     int rows, const int8_t *panels, int n_panels,
                                                     const int32_t *q_sums, int32_t *out,
                                                     ptrdiff_t out_stride, uint8_t *decoded) {
    const ptrdiff_t k = blocks * BN_BLOCK;
    const int tiles = (n_panels + BN_AVX512VNNI_TOKENS - 1) / BN_AVX512VNNI_TOKENS;
    for (ptrdiff_t b = 0; b < blocks; b += BN_AVX512VNNI_BLOCKS) {
        const ptrdiff_t left = blocks - b;
        const ptrdiff_t count = left < BN_AVX512VNNI_BLOCKS ? left : BN_AVX512VNNI_BLOCKS;
        bn_unpack_blocks_avx512vnni(codes, blocks, rows, b, count, decoded);
        for (int i = 0, t = 0, n; i < tiles; i++, t += n) {
            const bn_tile_avx512vnni tile = {
                .unpacked = decoded, .steps = count * BN_AVX512VNNI_BLOCK_STEPS, .k = k,
                .q = panels + t * k + b * BN_BLOCK, .q_sums = q_sums + t,
                .out = out + t * out_stride, .out_stride = out_stride, .first = b == 0};
            n = (n_panels - t + tiles - i - 1) / (tiles - i);
            if (n_panels * k > BN_AVX512VNNI_CACHED && i + 1 < tiles)
                bn_fetch_tile_avx512vnni(&tile, n);
            bn_gemm_tokens_avx512vnni(&tile, n);
        }
    }
}

#endif
