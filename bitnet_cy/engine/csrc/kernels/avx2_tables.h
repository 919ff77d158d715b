/* AVX2 products of many rows with many tokens, without a multiplication.
 *
 * A byte of I2_S is the trits of four columns p, p+32, p+64, p+96. A table holds, for 32 tokens and
 * four such columns, all 81 sums of trit * q as int16: a row of weights then costs a load and an
 * addition for 16 tokens and four columns. The tables of eight bytes are 41 KB, and all rows pass
 * before the next eight; making them takes as long as some 140 rows. They may exceed the first
 * cache by a third: with twelve bytes against a cache of 48 KB a row was 3 % slower.
 *
 * A sum of four columns is at most 4 * 128 = 512 in magnitude: 56 of them stay inside int16, then
 * they are widened.
 *
 * A vector of 16 tokens holds tokens 0, 8, 1, 9, ... 7, 15: its even words are one panel, its odd
 * words the next, so that neither making nor widening it needs a permutation.
 */
#ifndef BN_KERNELS_AVX2_TABLES_H
#define BN_KERNELS_AVX2_TABLES_H

#include <immintrin.h>
#include <string.h>

#include "avx2.h"

enum {
    BN_TABLES_SUMS = 81, BN_TABLES_BYTES = 8, BN_TABLES_WIDEN = 7, /* tables of 8 bytes */
    BN_TABLES_PANELS = 4, BN_TABLES_TOKENS = BN_TABLES_PANELS * BN_AVX2_LANES, BN_TABLES_ROWS = 8,
    BN_TABLES_AHEAD = 2 * BN_BLOCK_BYTES /* how far codes are fetched, a row with each eight */
};

/* Working memory, BN_WIDE_SCRATCH bytes: the tables, [sum][vector of tokens]; int16 sums of all
 * rows; and for the bytes of a block which sum each row needs, [BN_BLOCK_BYTES / 8][rows][8]. */
typedef struct bn_tables_scratch {
    __m256i tables[BN_TABLES_BYTES][BN_TABLES_SUMS][2];
    __m256i parts[BN_WIDE_TOKENS / BN_TABLES_TOKENS][BN_WIDE_ROWS][2];
    uint8_t numbers[BN_WIDE_ROWS * BN_BLOCK_BYTES];
} bn_tables_scratch;

_Static_assert(sizeof(bn_tables_scratch) <= BN_WIDE_SCRATCH, "scratch for tables");

/* The bytes of a block of all rows to numbers of sums. */
BN_AVX2 BN_INLINE void bn_tables_numbers_avx2(const uint8_t *codes, ptrdiff_t row_bytes, int rows,
                                             uint8_t *numbers) {
    const __m256i low4 = _mm256_set1_epi8(15);
    const __m256i nines = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 9, 18, 0, 27, 36, 45, 0, 54, 63, 72, 0, 0, 0, 0, 0));
    const __m256i ones = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 0, 0, 0, 0));
    for (int r = 0; r < rows; r++) {
        const uint8_t *row = codes + r * row_bytes;
        __m256i packed = _mm256_loadu_si256((const __m256i *)row);
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low4);
        __m256i number = _mm256_add_epi8(_mm256_shuffle_epi8(nines, high),
                                         _mm256_shuffle_epi8(ones, _mm256_and_si256(packed, low4)));
        uint8_t bytes[BN_BLOCK_BYTES];
        _mm256_storeu_si256((__m256i *)bytes, number);
        BN_UNROLL(4)
        for (int i = 0; i < BN_BLOCK_BYTES; i += BN_TABLES_BYTES)
            memcpy(numbers + i * rows + r * BN_TABLES_BYTES, bytes + i, BN_TABLES_BYTES);
    }
}

/* Four columns of the tokens of two panels as int16, from one step of each. */
BN_AVX2 BN_INLINE void bn_tables_columns_avx2(const int8_t *first, const int8_t *second,
                                             __m256i columns[4]) {
    __m256i a = _mm256_loadu_si256((const __m256i *)first);
    __m256i b = _mm256_loadu_si256((const __m256i *)second);
    __m256i a_even = _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8), a_odd = _mm256_srai_epi16(a, 8);
    __m256i b_even = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), b_odd = _mm256_srai_epi16(b, 8);
    columns[0] = _mm256_blend_epi16(a_even, _mm256_slli_epi32(b_even, 16), 0xAA);
    columns[1] = _mm256_blend_epi16(a_odd, _mm256_slli_epi32(b_odd, 16), 0xAA);
    columns[2] = _mm256_blend_epi16(_mm256_srli_epi32(a_even, 16), b_even, 0xAA);
    columns[3] = _mm256_blend_epi16(_mm256_srli_epi32(a_odd, 16), b_odd, 0xAA);
}

/* The nine sums of two columns; a trit of the first counts three. */
BN_AVX2 BN_INLINE void bn_tables_pair_avx2(__m256i first, __m256i second, __m256i sums[9]) {
    sums[4] = _mm256_setzero_si256();
    sums[3] = _mm256_sub_epi16(sums[4], second);
    sums[5] = second;
    for (int i = 0; i < 3; i++) {
        sums[i] = _mm256_sub_epi16(sums[3 + i], first);
        sums[6 + i] = _mm256_add_epi16(sums[3 + i], first);
    }
}

/* The table of one byte from its four columns of 32 tokens. */
BN_AVX2 BN_INLINE void bn_tables_byte_avx2(__m256i columns[2][4], __m256i table[][2]) {
    __m256i high[2][9], low[2][9];
    for (int v = 0; v < 2; v++) {
        bn_tables_pair_avx2(columns[v][0], columns[v][1], high[v]);
        bn_tables_pair_avx2(columns[v][2], columns[v][3], low[v]);
    }
    BN_UNROLL(1)
    for (int h = 0; h < 9; h++)
        BN_UNROLL(9)
        for (int l = 0; l < 9; l++)
            for (int v = 0; v < 2; v++)
                _mm256_store_si256(&table[9 * h + l][v], _mm256_add_epi16(high[v][h], low[v][l]));
}

/* The tables of eight bytes of a block. panels: from the first step of the first byte. */
BN_AVX2 BN_INLINE void bn_tables_eight_avx2(const int8_t *panels, ptrdiff_t panel_bytes,
                                           __m256i tables[][BN_TABLES_SUMS][2]) {
    enum { STEP = 4 * BN_AVX2_LANES, PLANE = BN_BLOCK_BYTES / 4 * STEP };
    for (int four = 0; four < BN_TABLES_BYTES / 4; four++) {
        __m256i columns[4][2][4]; /* of each byte, for each vector of tokens */
        for (int v = 0; v < 2; v++)
            for (int plane = 0; plane < 4; plane++) {
                const int8_t *step = panels + 2 * v * panel_bytes + four * STEP + plane * PLANE;
                __m256i of_bytes[4];
                bn_tables_columns_avx2(step, step + panel_bytes, of_bytes);
                for (int i = 0; i < 4; i++) columns[i][v][plane] = of_bytes[i];
            }
        BN_UNROLL(1)
        for (int i = 0; i < 4; i++) bn_tables_byte_avx2(columns[i], tables[4 * four + i]);
    }
}

/* What a pass over all rows works with. ahead: codes of an eighth of the rows, row_bytes apart, for
 * a later block: they come from memory while tables are read, not all at once. */
typedef struct bn_tables_pass {
    const uint8_t *numbers, *ahead;
    ptrdiff_t row_bytes, out_stride;
    int rows;
    __m256i (*parts)[2];
    int32_t *out;
} bn_tables_pass;

/* Add to the int16 sums of row r what its eight bytes say. begin: the sums are zero before; end:
 * they are added to out instead of kept. Both are constant after inlining. */
BN_AVX2 BN_INLINE void bn_tables_row_avx2(__m256i tables[][BN_TABLES_SUMS][2],
                                          const bn_tables_pass *pass, ptrdiff_t r, int begin,
                                          int end) {
    __m256i sum[2], *part = pass->parts[r];
    for (int v = 0; v < 2; v++)
        sum[v] = begin ? _mm256_setzero_si256() : _mm256_load_si256(part + v);
    BN_UNROLL(8)
    for (int i = 0; i < BN_TABLES_BYTES; i++) {
        const __m256i *row = tables[i][pass->numbers[r * BN_TABLES_BYTES + i]];
        for (int v = 0; v < 2; v++) {
            sum[v] = _mm256_add_epi16(sum[v], _mm256_load_si256(row + v));
            BN_KEEP_AVX2(sum[v]);
        }
    }
    for (int v = 0; v < 2; v++) {
        if (!end) {
            _mm256_store_si256(part + v, sum[v]);
            continue;
        }
        __m256i *wide = (__m256i *)(pass->out + r * pass->out_stride + 2 * v * BN_AVX2_LANES);
        __m256i even = _mm256_srai_epi32(_mm256_slli_epi32(sum[v], 16), 16);
        __m256i odd = _mm256_srai_epi32(sum[v], 16);
        _mm256_storeu_si256(wide, _mm256_add_epi32(_mm256_loadu_si256(wide), even));
        _mm256_storeu_si256(wide + 1, _mm256_add_epi32(_mm256_loadu_si256(wide + 1), odd));
    }
}

BN_AVX2 BN_INLINE void bn_tables_rows_avx2(__m256i tables[][BN_TABLES_SUMS][2],
                                           const bn_tables_pass *all, int begin, int end) {
    const bn_tables_pass pass = *all; /* which the stores cannot change */
    const uint8_t *ahead = pass.ahead;
    for (ptrdiff_t first = 0; first < pass.rows; first += BN_TABLES_ROWS) {
        const ptrdiff_t last = first + BN_TABLES_ROWS < pass.rows ? first + BN_TABLES_ROWS : pass.rows;
        _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        ahead += pass.row_bytes;
        for (ptrdiff_t r = first; r < last; r++) bn_tables_row_avx2(tables, &pass, r, begin, end);
    }
}

/* Eight bytes of all rows for four panels. */
BN_AVX2 static void bn_tables_pass_avx2(const int8_t *panels, ptrdiff_t panel_bytes,
                                        __m256i tables[][BN_TABLES_SUMS][2],
                                        const bn_tables_pass *pass, int begin, int end) {
    bn_tables_eight_avx2(panels, panel_bytes, tables);
    if (begin && end) bn_tables_rows_avx2(tables, pass, 1, 1);
    else if (begin) bn_tables_rows_avx2(tables, pass, 1, 0);
    else if (end) bn_tables_rows_avx2(tables, pass, 0, 1);
    else bn_tables_rows_avx2(tables, pass, 0, 0);
}

/* Panels in fours; the sums are those of trits, so that no q_sums are needed. */
BN_AVX2 static void bn_tables_panels_avx2(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                         const int8_t *panels, int n_panels, int32_t *out,
                                         ptrdiff_t out_stride, bn_tables_scratch *scratch) {
    const ptrdiff_t panel_bytes = blocks * BN_BLOCK * BN_AVX2_LANES;
    const ptrdiff_t steps = blocks * (BN_BLOCK_BYTES / BN_TABLES_BYTES);
    bn_tables_pass pass = {.rows = rows, .row_bytes = blocks * BN_BLOCK_BYTES,
                           .out_stride = out_stride};
    int passes = 0;
    for (int r = 0; r < rows; r++)
        memset(out + r * out_stride, 0, (size_t)(n_panels * BN_AVX2_LANES) * sizeof *out);
    for (ptrdiff_t step = 0; step < steps; step++) {
        const ptrdiff_t block = step * BN_TABLES_BYTES / BN_BLOCK_BYTES;
        const ptrdiff_t byte = step * BN_TABLES_BYTES % BN_BLOCK_BYTES;
        const ptrdiff_t column = block * BN_BLOCK + byte;
        const uint8_t *of_block = codes + block * BN_BLOCK_BYTES;
        const int begin = step % BN_TABLES_WIDEN == 0;
        const int end = step % BN_TABLES_WIDEN == BN_TABLES_WIDEN - 1 || step == steps - 1;
        if (byte == 0) bn_tables_numbers_avx2(of_block, pass.row_bytes, rows, scratch->numbers);
        pass.numbers = scratch->numbers + byte * rows;
        for (int p = 0; p < n_panels; p += BN_TABLES_PANELS) {
            pass.ahead = of_block + BN_TABLES_AHEAD +
                         passes++ % BN_TABLES_ROWS * (rows / BN_TABLES_ROWS) * pass.row_bytes;
            pass.parts = scratch->parts[p / BN_TABLES_PANELS];
            pass.out = out + p * BN_AVX2_LANES;
            bn_tables_pass_avx2(panels + p * panel_bytes + column * BN_AVX2_LANES, panel_bytes,
                                scratch->tables, &pass, begin, end);
        }
    }
}

/* Panels that are left over are multiplied: for fewer than 25 tokens that is no slower. */
BN_AVX2 static void bn_ternary_gemm_wide_avx2(const uint8_t *codes, ptrdiff_t blocks, int rows,
                                              const int8_t *panels, int n_panels,
                                              const int32_t *q_sums, int32_t *out,
                                              ptrdiff_t out_stride, uint8_t *decoded) {
    const int whole = n_panels / BN_TABLES_PANELS * BN_TABLES_PANELS;
    const ptrdiff_t lanes = (ptrdiff_t)whole * BN_AVX2_LANES;
    if (whole)
        bn_tables_panels_avx2(codes, blocks, rows, panels, whole, out, out_stride,
                             (bn_tables_scratch *)(void *)decoded);
    for (int r = 0; r < rows && whole < n_panels; r += BN_GEMM_TILE_ROWS)
        bn_ternary_gemm_avx2(codes + r * blocks * BN_BLOCK_BYTES, blocks,
                             rows - r < BN_GEMM_TILE_ROWS ? rows - r : BN_GEMM_TILE_ROWS,
                             panels + lanes * blocks * BN_BLOCK, n_panels - whole, q_sums + lanes,
                             out + r * out_stride + lanes, out_stride, decoded);
}

#endif
