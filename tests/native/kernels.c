/* Every row of the kernel table against the scalar one, in plain C: for CPUs that run under an
 * emulator, and for instructions that SIMDe emulates.
 *
 * Usage: kernels [NAME...]: the rows to check (default: those this CPU can run). Prints one line
 * for each, and fails on the first difference. With BN_EMULATED, SIMDe stands for AVX-VNNI and
 * AVX-512: the target attributes vanish, so that no real instruction of theirs is compiled in.
 */
#ifdef BN_EMULATED
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
/* Names that SIMDe 0.7 lacks. */
#define _mm512_srai_epi32 bn_srai_emulated
static simde__m512i bn_srai_emulated(simde__m512i v, int bits) {
    int lanes[16];
    simde_mm512_storeu_si512(lanes, v);
    for (int l = 0; l < 16; l++) lanes[l] >>= bits;
    return simde_mm512_loadu_si512(lanes);
}
#define _mm512_reduce_add_epi32 bn_reduce_add_emulated
static int bn_reduce_add_emulated(simde__m512i v) {
    int lanes[16], sum = 0;
    simde_mm512_storeu_si512(lanes, v);
    for (int l = 0; l < 16; l++) sum += lanes[l];
    return sum;
}
#define _mm512_cvtps_epi32 bn_cvtps_emulated
static simde__m512i bn_cvtps_emulated(simde__m512 v) {
    float lanes[16];
    int rounded[16];
    simde_mm512_storeu_ps(lanes, v);
    for (int l = 0; l < 16; l += 8)
        _mm256_storeu_si256((__m256i *)(rounded + l), _mm256_cvtps_epi32(_mm256_loadu_ps(lanes + l)));
    return simde_mm512_loadu_si512(rounded);
}
#define target(words)
#endif

#include <stdio.h>
#include <stdlib.h>

#include "dense.h"
#include "dispatch.h"

enum { MAX_ROWS = 66, GUARD = 0x5A5A5A5A };

static uint32_t random_state = 1;

static uint32_t random_bits(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

/* Exactly as many bytes as a kernel may touch: the address sanitizer sees one more. */
static void *allocate(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes)) abort();
    return memory;
}

/* pattern 0: random; then trits all 1, all -1, alternating, against activations all 127, all -128,
 * alternating 127 and -128 */
enum { PATTERNS = 10 };

static void fill_codes(uint8_t *codes, ptrdiff_t n, int pattern) {
    static const uint8_t same[3] = {0xAA, 0x00, 0x88};
    for (ptrdiff_t i = 0; i < n; i++) {
        codes[i] = 0;
        for (int g = 0; g < 4; g++) codes[i] |= (uint8_t)(random_bits() % 3 << 2 * g);
        if (pattern) codes[i] = (uint8_t)(same[(pattern - 1) % 3] >> (pattern % 3 == 0 && i % 2) * 2);
    }
}

static void fill_activations(int8_t *q, ptrdiff_t n, int pattern) {
    for (ptrdiff_t i = 0; i < n; i++) {
        int extreme = (pattern - 1) / 3 == 0 ? 127 : (pattern - 1) / 3 == 1 || i % 2 ? -128 : 127;
        q[i] = (int8_t)(pattern ? extreme : (int)(random_bits() >> 9) % 256 - 128);
    }
}

static void make_panels(const int8_t *q, ptrdiff_t k, int tokens, int lanes, int8_t *panels) {
    for (int t = 0; t < (tokens + lanes - 1) / lanes * lanes; t++)
        for (ptrdiff_t i = 0; i < k; i++)
            panels[(t / lanes) * lanes * k + (i / 4 * lanes + t % lanes) * 4 + i % 4] =
                (int8_t)(t < tokens ? q[t * k + i] : 0);
}

static int product_case(const bn_kernels *kernels, ptrdiff_t blocks, int rows, int tokens,
                        int pattern) {
    const ptrdiff_t k = blocks * BN_BLOCK;
    const int lanes = kernels->lanes, panels = (tokens + lanes - 1) / lanes;
    const ptrdiff_t padded = panels * lanes, most = kernels->gemm_rows;
    const ptrdiff_t groups = (rows + most - 1) / most;
    const ptrdiff_t stride = kernels->by_token ? groups * most : padded;
    const ptrdiff_t size = kernels->by_token ? tokens * stride : rows * stride;
    const ptrdiff_t larger = size > rows * padded ? size : rows * padded;
    uint8_t *codes = allocate((size_t)(rows * blocks * BN_BLOCK_BYTES));
    int8_t *q = allocate((size_t)(tokens * k)), *panel = allocate((size_t)(padded * k));
    int32_t *sums = allocate((size_t)padded * 4), *expected = allocate((size_t)(rows * tokens) * 4);
    int32_t *found = allocate((size_t)(larger + 1) * 4);
    uint8_t *decoded = allocate((size_t)(BN_GEMM_ROWS * k));
    int wrong = 0;
    fill_codes(codes, rows * blocks * BN_BLOCK_BYTES, pattern);
    fill_activations(q, tokens * k, pattern);
    for (int t = 0; t < padded; t++) {
        sums[t] = 0;
        for (ptrdiff_t i = 0; i < k && t < tokens; i++) sums[t] += q[t * k + i];
    }
    bn_ternary_gemv_scalar(codes, blocks, rows, q, tokens, sums, expected);
    for (int t = 0; t < tokens; t += BN_GEMV_TOKENS) {
        int group = tokens - t < BN_GEMV_TOKENS ? tokens - t : BN_GEMV_TOKENS;
        found[rows * group] = GUARD;
        kernels->ternary_gemv(codes, blocks, rows, q + t * k, group, sums + t, found);
        for (int i = 0; i < rows * group; i++)
            wrong += found[i] != expected[i / group * tokens + t + i % group];
        wrong += found[rows * group] != GUARD;
    }
    make_panels(q, k, tokens, lanes, panel);
    found[size] = GUARD;
    for (ptrdiff_t r = 0; r < rows; r += most)
        kernels->ternary_gemm(codes + r * blocks * BN_BLOCK_BYTES, blocks,
                              (int)(rows - r < most ? rows - r : most), panel, panels, sums,
                              kernels->by_token ? found + r : found + r * stride, stride, decoded);
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            wrong += found[kernels->by_token ? t * stride + r : r * stride + t] !=
                     expected[r * tokens + t];
    wrong += found[size] != GUARD;
    if (wrong)
        printf("%s: %d wrong products: %td blocks, %d rows, %d tokens, pattern %d\n", kernels->name,
               wrong, blocks, rows, tokens, pattern);
    free(codes), free(q), free(panel), free(sums), free(expected), free(found), free(decoded);
    return wrong;
}

/* Rows are alike from the 41st on: the scalar kernel computes the first of them only. */
static int wide_case(const bn_kernels *kernels, ptrdiff_t blocks, int rows, int tokens,
                     int pattern) {
    const ptrdiff_t k = blocks * BN_BLOCK, row_bytes = blocks * BN_BLOCK_BYTES;
    const int lanes = kernels->lanes, panels = (tokens + lanes - 1) / lanes;
    const int stride = panels * lanes, other = rows < 41 ? rows : 41;
    const ptrdiff_t scratch = BN_GEMM_ROWS * k;
    uint8_t *codes = allocate((size_t)(rows * row_bytes));
    int8_t *q = allocate((size_t)(tokens * k)), *panel = allocate((size_t)(stride * k));
    int32_t *sums = allocate((size_t)stride * 4), *expected = allocate((size_t)(other * tokens) * 4);
    int32_t *found = allocate((size_t)(rows * stride + 1) * 4);
    uint8_t *decoded = allocate((size_t)(scratch > BN_WIDE_SCRATCH ? scratch : BN_WIDE_SCRATCH));
    int wrong = 0;
    fill_codes(codes, other * row_bytes, pattern);
    for (int r = other; r < rows; r++)
        memcpy(codes + r * row_bytes, codes + r % other * row_bytes, (size_t)row_bytes);
    fill_activations(q, tokens * k, pattern);
    for (int t = 0; t < stride; t++) {
        sums[t] = 0;
        for (ptrdiff_t i = 0; i < k && t < tokens; i++) sums[t] += q[t * k + i];
    }
    bn_ternary_gemv_scalar(codes, blocks, other, q, tokens, sums, expected);
    make_panels(q, k, tokens, lanes, panel);
    found[rows * stride] = GUARD;
    kernels->ternary_gemm_wide(codes, blocks, rows, panel, panels, sums, found, stride, decoded);
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tokens; t++)
            wrong += found[r * stride + t] != expected[r % other * tokens + t];
    wrong += found[rows * stride] != GUARD;
    if (wrong)
        printf("%s: %d wrong products at once: %td blocks, %d rows, %d tokens, pattern %d\n",
               kernels->name, wrong, blocks, rows, tokens, pattern);
    free(codes), free(q), free(panel), free(sums), free(expected), free(found), free(decoded);
    return wrong;
}

static int check_wide(const bn_kernels *kernels) {
    static const int some_blocks[] = {1, 2, 3, 7, 8, 14, 15, 54};
    static const int some_tokens[] = {1, 8, 24, 25, 31, 32, 33, 40, 56, 57, 63, 64};
    int wrong = 0;
    if (!kernels->ternary_gemm_wide) return 0;
    for (size_t i = 0; i < sizeof some_tokens / sizeof *some_tokens; i++)
        wrong += wide_case(kernels, 3, 19, some_tokens[i], 0);
    for (size_t i = 0; i < sizeof some_blocks / sizeof *some_blocks; i++)
        for (int pattern = 0; pattern < PATTERNS; pattern++)
            wrong += wide_case(kernels, some_blocks[i], 1 + (int)i, 32 + 5 * (pattern % 2), pattern);
    return wrong + wide_case(kernels, 2, BN_WIDE_ROWS, BN_WIDE_TOKENS, 0);
}

static int check_products(const bn_kernels *kernels) {
    static const int some_blocks[] = {1, 2, 3, 7, 8, 15, 16, 17, 33, 68};
    static const int some_tokens[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  15, 16, 17,
                                      24, 31, 32, 33, 40, 47, 48, 49, 80, 129};
    int wrong = 0;
    for (int rows = 1; rows <= MAX_ROWS; rows++)
        for (int tokens = 1; tokens <= 9; tokens++) wrong += product_case(kernels, 2, rows, tokens, 0);
    for (size_t i = 0; i < sizeof some_tokens / sizeof *some_tokens; i++)
        wrong += product_case(kernels, 5, 9, some_tokens[i], 0) +
                 product_case(kernels, 3, 130, some_tokens[i], 0);
    for (size_t i = 0; i < sizeof some_blocks / sizeof *some_blocks; i++)
        for (int pattern = 0; pattern < PATTERNS; pattern++)
            for (int tokens = 1; tokens <= 9; tokens += 4)
                wrong += product_case(kernels, some_blocks[i], 13, tokens, pattern);
    return wrong;
}

/* Dense rows made from I2_S ones: the same products, and the same I2_S rows back. Both hold
 * `planes` planes of 32 elements, filled up to whole blocks with code 1. */
static int dense_case(const bn_kernels *kernels, ptrdiff_t planes, int rows, int tokens,
                      int pattern) {
    const ptrdiff_t blocks = (planes + 3) / 4, dense_blocks = (planes + 4) / 5;
    const ptrdiff_t k = blocks * BN_BLOCK, dense_k = dense_blocks * BN_DENSE_BLOCK;
    const ptrdiff_t row = blocks * BN_BLOCK_BYTES, dense_row = dense_blocks * BN_BLOCK_BYTES;
    uint8_t *codes = allocate((size_t)(rows * row)), *back = allocate((size_t)(rows * row));
    uint8_t *dense = allocate((size_t)(rows * dense_row));
    uint8_t *packed = allocate((size_t)(rows * dense_row));
    int8_t *q = allocate((size_t)(tokens * k)), *dense_q = allocate((size_t)(tokens * dense_k));
    int32_t sums[BN_GEMV_TOKENS] = {0}, *expected = allocate((size_t)(rows * tokens) * 4);
    int32_t *found = allocate((size_t)(rows * tokens + 1) * 4);
    int wrong = 0;
    fill_codes(codes, rows * row, pattern);
    fill_activations(q, tokens * k, pattern);
    for (int r = 0; r < rows; r++) {
        for (ptrdiff_t plane = planes; plane < 4 * blocks; plane++)
            for (int p = 0; p < BN_BLOCK_BYTES; p++) {
                uint8_t *c = codes + r * row + plane / 4 * BN_BLOCK_BYTES + p;
                const int shift = 6 - 2 * (int)(plane % 4);
                *c = (uint8_t)((*c & ~(3 << shift)) | 1 << shift);
            }
    }
    bn_dense_pack_scalar(codes, blocks, rows, dense, dense_blocks);
    kernels->dense_pack(codes, blocks, rows, packed, dense_blocks);
    wrong += memcmp(dense, packed, (size_t)(rows * dense_row)) != 0;
    wrong += bn_dense_is_damaged(dense, rows * dense_row);
    kernels->dense_unpack(dense, dense_blocks, rows, back, blocks);
    wrong += memcmp(codes, back, (size_t)(rows * row)) != 0;
    memset(dense_q, 0, (size_t)(tokens * dense_k));
    for (int t = 0; t < tokens; t++) {
        memset(q + t * k + 32 * planes, 0, (size_t)(k - 32 * planes));
        memcpy(dense_q + t * dense_k, q + t * k, (size_t)(32 * planes));
        for (ptrdiff_t i = 0; i < k; i++) sums[t] += q[t * k + i];
    }
    bn_ternary_gemv_scalar(codes, blocks, rows, q, tokens, sums, expected);
    found[rows * tokens] = GUARD;
    kernels->dense_gemv(dense, dense_blocks, rows, dense_q, tokens, sums, found);
    wrong += memcmp(expected, found, (size_t)(rows * tokens) * 4) || found[rows * tokens] != GUARD;
    if (wrong)
        printf("%s: dense rows wrong: %td planes, %d rows, %d tokens, pattern %d\n", kernels->name,
               planes, rows, tokens, pattern);
    free(codes), free(back), free(dense), free(packed), free(q), free(dense_q), free(expected);
    free(found);
    return wrong;
}

static int check_dense(const bn_kernels *kernels) {
    static const int some_planes[] = {1, 4, 5, 6, 9, 20, 25, 59, 60, 61, 65, 130, 216};
    int wrong = 0;
    for (int rows = 1; rows <= 9; rows++)
        for (int tokens = 1; tokens <= BN_GEMV_TOKENS; tokens++)
            wrong += dense_case(kernels, 27, rows, tokens, 0);
    for (size_t i = 0; i < sizeof some_planes / sizeof *some_planes; i++)
        for (int pattern = 0; pattern < PATTERNS; pattern++)
            wrong += dense_case(kernels, some_planes[i], 5, 1 + pattern % 3, pattern);
    return wrong;
}

static float random_float(void) {
    return ((float)(random_bits() >> 8) / (1 << 23) - 1) * expf((float)(random_bits() % 20) - 10);
}

/* Bit for bit the scalar kernel, whose definition has one answer. */
static int check_quantize(const bn_kernels *kernels) {
    float x[100];
    int8_t expected[100], found[100];
    int wrong = 0;
    for (int n = 1; n <= 100; n++)
        for (int kind = 0; kind < 6; kind++) {
            int32_t expected_sum, found_sum;
            for (int i = 0; i < n; i++) x[i] = kind == 1 ? 0 : random_float();
            if (kind == 2) x[random_bits() % (uint32_t)n] = NAN;
            if (kind == 3) x[random_bits() % (uint32_t)n] = -INFINITY;
            if (kind == 4) x[0] = 127, x[n / 2] = 2.5f, x[n - 1] = -126.5f;
            if (kind == 5) x[n / 2] = -3.4e38f;
            float a = bn_quantize_scalar(x, n, expected, &expected_sum);
            float b = kernels->quantize(x, n, found, &found_sum);
            wrong += memcmp(&a, &b, sizeof a) && !(a != a && b != b);
            wrong += memcmp(expected, found, (size_t)n) || expected_sum != found_sum;
        }
    return wrong;
}

/* Every float16 to float32 as the scalar conversion; float32 patterns of every exponent back. */
static int check_f16(const bn_kernels *kernels) {
    enum { MANY = 1 << 16 };
    uint16_t *half = allocate(MANY * 2), *expected = allocate(MANY * 2), *found = allocate(MANY * 2);
    float *wide = allocate(MANY * 4), *scalar = allocate(MANY * 4);
    int wrong = 0;
    for (int i = 0; i < MANY; i++) half[i] = (uint16_t)i;
    bn_f16_to_f32_scalar(half, MANY, scalar);
    kernels->f16_to_f32(half, MANY - 3, wide);
    kernels->f16_to_f32(half + MANY - 3, 3, wide + MANY - 3);
    wrong += memcmp(wide, scalar, MANY * 4) != 0;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < MANY; i++) {
            wide[i] = bn_bits_to_float(random_bits());
            if (round == 0) wide[i] = scalar[i]; /* and halfway between neighbours */
            if (round == 1) wide[i] = bn_bits_to_float(bn_float_to_bits(scalar[i]) + 0x1000);
        }
        bn_f32_to_f16_scalar(wide, MANY, expected);
        kernels->f32_to_f16(wide, MANY - 5, found);
        kernels->f32_to_f16(wide + MANY - 5, 5, found + MANY - 5);
        for (int i = 0; i < MANY; i++)
            wrong += wide[i] != wide[i] ? (found[i] & 0x7FFF) <= 0x7C00 : expected[i] != found[i];
    }
    free(half), free(expected), free(found), free(wide), free(scalar);
    return wrong;
}

/* Every int8, in rows of every length: an integer has one float32. */
static int check_i8(const bn_kernels *kernels) {
    int8_t x[256];
    float found[256];
    int wrong = 0;
    for (int i = 0; i < 256; i++) x[i] = (int8_t)(i - 128);
    for (int n = 1; n <= 256; n++) {
        memset(found, 0xFF, sizeof found);
        kernels->i8_to_f32(x, n, found);
        for (int i = 0; i < n; i++) wrong += found[i] != (float)(i - 128);
        for (int i = n; i < 256; i++) wrong += found[i] == found[i];
    }
    return wrong;
}

static int far_apart(float a, float b, float bound) {
    return a != b && !(a != a && b != b) && !(fabsf(a - b) <= bound);
}

/* float16 and float32 rows give the same bits; float operations are near the scalar ones. */
static int check_floats(const bn_kernels *kernels) {
    float rows[7 * 100], x[100], a[100], b[100], sums[7];
    uint16_t half[7 * 100];
    int wrong = 0;
    for (int n = 1; n <= 100; n++) {
        float magnitude = 0;
        for (int i = 0; i < 7 * n; i++) half[i] = bn_f32_to_f16_one(random_float() / 100);
        bn_f16_to_f32_scalar(half, 7 * n, rows);
        for (int i = 0; i < n; i++) x[i] = random_float() / 1000, magnitude += fabsf(x[i]);
        kernels->dot_rows_f16(half, n, 7, x, n, a);
        kernels->dot_rows_f32(rows, n, 7, x, n, b);
        wrong += memcmp(a, b, 7 * sizeof *a) != 0;
        bn_dot_rows_f32_scalar(rows, n, 7, x, n, sums);
        for (int r = 0; r < 7; r++) wrong += far_apart(a[r], sums[r], magnitude * 220 * 1e-5f);
        kernels->rms_norm(x, rows, n, 1e-5f, a);
        bn_rms_norm_scalar(x, rows, n, 1e-5f, b);
        for (int i = 0; i < n; i++) wrong += far_apart(a[i], b[i], 3e-6f * fabsf(b[i]) + 1e-12f);
        for (int kind = 1; kind < 4; kind++) {
            for (int i = 0; i < n; i++) a[i] = b[i] = fmodf(x[i], 60);
            if (kind == 2) a[n - 1] = b[n - 1] = NAN;
            if (kind == 1) kernels->silu_mul(a, rows, n), bn_silu_mul_scalar(b, rows, n);
            if (kind == 2) kernels->relu2_mul(a, rows, n), bn_relu2_mul_scalar(b, rows, n);
            if (kind == 3) kernels->gelu_mul(a, rows, n), bn_gelu_mul_scalar(b, rows, n);
            for (int i = 0; i < n; i++)
                wrong += far_apart(a[i], b[i], 2e-6f * fabsf(b[i]) + (kind == 3 ? 1e-5f : 1e-37f));
        }
        for (int i = 0; i < n; i++) a[i] = NAN;
        kernels->silu_mul(a, rows, n);
        for (int i = 0; i < n; i++) wrong += a[i] == a[i], a[i] = NAN;
        kernels->gelu_mul(a, rows, n);
        for (int i = 0; i < n; i++) wrong += a[i] == a[i];
    }
    return wrong;
}

/* Bit for bit the scalar operation, and nothing beside the tile is touched. */
static int check_scale_tile(const bn_kernels *kernels) {
    enum { STRIDE = 40, WIDTH = 37, SIZE = 40 * 40 };
    int32_t tile[SIZE];
    float s[STRIDE], a[SIZE], b[SIZE];
    int wrong = 0;
    for (int i = 0; i < SIZE; i++) tile[i] = (int32_t)(random_bits() >> 8) - (1 << 23);
    for (int i = 0; i < STRIDE; i++) s[i] = fabsf(random_float());
    for (int rows = 1; rows <= 33; rows++)
        for (int tokens = 1; tokens <= 35; tokens++) {
            for (int i = 0; i < SIZE; i++) a[i] = b[i] = random_float();
            const int by_token = rows % 4 == 3, add = tokens % 2;
            bn_scale_tile_scalar(tile, STRIDE, by_token, rows, tokens, 0.37f, s, a, WIDTH, add);
            kernels->scale_tile(tile, STRIDE, by_token, rows, tokens, 0.37f, s, b, WIDTH, add);
            wrong += memcmp(a, b, sizeof a) != 0;
        }
    return wrong;
}

/* Ternary rows as floats: one product each, so bit for bit the scalar kernel's. */
static int check_decode(const bn_kernels *kernels) {
    enum { MOST = 9 };
    int wrong = 0;
    for (int blocks = 1; blocks <= MOST; blocks++)
        for (int shift = 0; shift < 6; shift++) {
            const int groups = (4 * blocks + (1 << shift) - 1) >> shift;
            const size_t n = (size_t)blocks * BN_BLOCK;
            uint8_t *codes = allocate((size_t)blocks * BN_BLOCK_BYTES);
            float *scales = allocate((size_t)groups * 4);
            float *expected = allocate(n * 4), *found = allocate(n * 4);
            fill_codes(codes, blocks * BN_BLOCK_BYTES, 0);
            for (int g = 0; g < groups; g++) scales[g] = fabsf(random_float());
            bn_decode_ternary_scalar(codes, blocks, scales, shift, expected);
            kernels->decode_ternary(codes, blocks, scales, shift, found);
            wrong += memcmp(expected, found, n * 4) != 0;
            free(codes), free(scales), free(expected), free(found);
        }
    return wrong;
}

/* Every number is near the scalar one, has the bits it has when computed alone, and has no
 * neighbour that was written. */
static int check_multiply_add(const bn_kernels *kernels) {
    enum { MOST = 40, WIDE = 101, ROW = 101, SIZE = 101 * 41 };
    float a[SIZE], b[SIZE], c[SIZE], together[SIZE], scalar[SIZE];
    int wrong = 0;
    for (int i = 0; i < SIZE; i++) a[i] = (float)(i % 19) / 19 - 0.4f, b[i] = (float)(i % 23) / 23;
    for (int rows = 1; rows <= 13; rows++)
        for (int n = 1; n <= WIDE; n += n < MOST ? 1 : 7) {
            const int k = 1 + (rows * n) % MOST, a_row = n % 2 ? ROW : 1, a_col = n % 2 ? 1 : ROW;
            for (int i = 0; i < SIZE; i++) c[i] = together[i] = scalar[i] = (float)i / SIZE;
            kernels->multiply_add(a, a_row, a_col, rows, b, ROW, k, together, ROW, n);
            bn_multiply_add_scalar(a, a_row, a_col, rows, b, ROW, k, scalar, ROW, n);
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < n; j++)
                    kernels->multiply_add(a + r * a_row, a_row, a_col, 1, b + j, ROW, k,
                                          c + r * ROW + j, ROW, 1);
            wrong += memcmp(c, together, sizeof c) != 0;
            for (int i = 0; i < SIZE; i++) wrong += far_apart(c[i], scalar[i], 1e-5f);
        }
    return wrong;
}

static int check_transpose(const bn_kernels *kernels) {
    enum { ROW = 35, SIZE = 35 * 35 };
    float x[SIZE], a[SIZE], b[SIZE];
    int wrong = 0;
    for (int i = 0; i < SIZE; i++) x[i] = random_float();
    for (int rows = 1; rows <= 33; rows++)
        for (int cols = 1; cols <= 33; cols++) {
            memset(a, 0, sizeof a), memset(b, 0, sizeof b);
            bn_transpose_scalar(x, ROW, rows, cols, a, ROW);
            kernels->transpose(x, ROW, rows, cols, b, ROW);
            wrong += memcmp(a, b, sizeof a) != 0;
        }
    return wrong;
}

/* Near the scalar one after several steps, with hidden keys, and with a NaN in one lane. */
static int check_softmax_step(const bn_kernels *kernels) {
    enum { LANES = 24, STRIDE = 26, KEYS = 33 };
    float a[KEYS * STRIDE], b[KEYS * STRIDE], state[2][3][LANES];
    int wrong = 0;
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < 2; i++) state[i][0][l] = -3.4e38f, state[i][1][l] = 0;
    for (int step = 0; step < 8; step++) {
        for (int i = 0; i < KEYS * STRIDE; i++) {
            a[i] = (float)(random_bits() % 1000) / 20 - 10;
            if (i % STRIDE == 3 || random_bits() % 5 == 0) a[i] = -INFINITY;
        }
        if (step == 6) a[7] = NAN;
        memcpy(b, a, sizeof a);
        const int n = step ? KEYS - step : 1;
        kernels->softmax_step(a, STRIDE, n, LANES, state[0][0], state[0][1], state[0][2]);
        bn_softmax_step_scalar(b, STRIDE, n, LANES, state[1][0], state[1][1], state[1][2]);
        for (int i = 0; i < KEYS * STRIDE; i++)
            wrong += far_apart(a[i], b[i], 2e-6f * fabsf(b[i]) + 1e-37f);
        for (int l = 0; l < 3 * LANES; l++) {
            float found = state[0][l / LANES][l % LANES], expected = state[1][l / LANES][l % LANES];
            wrong += far_apart(found, expected, 3e-6f * fabsf(expected) + 1e-37f);
        }
    }
    return wrong || state[0][1][7] == state[0][1][7];
}

/* Sums of a screen against the scalar ones, also at the largest codes, steps and activations; and
 * codes that, as sums and errors say, are as near to the row as the scalar ones. */
static int screen_case(const bn_kernels *kernels, ptrdiff_t groups, int rows, int extreme) {
    const ptrdiff_t cols = groups * BN_SCREEN_GROUP, blocks = cols / 32;
    uint8_t *bytes = allocate((size_t)(rows * cols));
    int8_t *x = allocate((size_t)(2 * cols));
    int16_t *x_sums = allocate((size_t)(2 * blocks) * 2);
    const uint8_t *const planes[2] = {bytes + rows * cols / 2, bytes + rows * cols * 5 / 8};
    const uint8_t *steps = bytes + rows * cols * 3 / 4;
    int64_t expected[MAX_ROWS][2], found[MAX_ROWS][2];
    int wrong = 0;
    for (ptrdiff_t i = 0; i < rows * cols; i++) bytes[i] = extreme ? 255 : (uint8_t)random_bits();
    memset(x_sums, 0, (size_t)(2 * blocks) * 2);
    for (ptrdiff_t i = 0; i < 2 * cols; i++) {
        x[i] = (int8_t)(extreme == 1 ? 127 : extreme == 2 ? -128 : (int)(random_bits() % 256) - 128);
        x_sums[i / 32] = (int16_t)(x_sums[i / 32] + x[i]);
    }
    const bn_screen_query query = {x, x + cols, x_sums, x_sums + blocks};
    for (int n_planes = 0; n_planes <= 3; n_planes++) { /* 3: one without the nibbles */
        const uint8_t *nibbles = n_planes < 3 ? bytes : NULL;
        const int n = n_planes < 3 ? n_planes : 1;
        bn_screen_sums_scalar(nibbles, planes, n, steps, rows, groups, &query, expected);
        kernels->screen_sums(nibbles, planes, n, steps, rows, groups, &query, found);
        wrong += memcmp(expected, found, (size_t)rows * sizeof *found) != 0;
    }
    free(bytes), free(x), free(x_sums);
    return wrong;
}

static int encode_case(const bn_kernels *kernels, ptrdiff_t groups, int kind) {
    const ptrdiff_t cols = groups * BN_SCREEN_GROUP;
    float *w = allocate((size_t)cols * 4);
    bn_screen_row row[2];
    int wrong = 0;
    for (ptrdiff_t i = 0; i < cols; i++) w[i] = kind == 1 ? 0 : random_float();
    if (kind == 2) w[random_bits() % (uint32_t)cols] = NAN;
    if (kind == 3) w[random_bits() % (uint32_t)cols] = -INFINITY;
    for (int i = 0; i < 2; i++) {
        row[i].nibbles = allocate((size_t)cols / 2);
        row[i].steps = allocate((size_t)cols / 32);
        for (int p = 0; p < BN_SCREEN_PLANES; p++) row[i].planes[p] = allocate((size_t)cols / 8);
        if (i) kernels->screen_encode(w, groups, &row[i]);
        else bn_screen_encode_scalar(w, groups, &row[i]);
    }
    wrong += row[0].step != row[1].step || memcmp(row[0].steps, row[1].steps, (size_t)cols / 32);
    for (int level = 0; level <= BN_SCREEN_PLANES; level++)
        wrong += far_apart(row[1].error[level], row[0].error[level], row[0].error[level] * 1e-3f);
    for (int level = 0; level <= BN_SCREEN_PLANES && row[1].error[0] < INFINITY; level++) {
        double rest = 0;
        for (ptrdiff_t i = 0; i < cols; i++) {
            const ptrdiff_t g = i / BN_SCREEN_GROUP, c = i % BN_SCREEN_GROUP;
            int code = bn_nibble_of(row[1].nibbles + g * BN_SCREEN_GROUP / 2, (int)c);
            for (int p = 0; p < level; p++)
                code = 2 * code + bn_bit_of(row[1].planes[p] + g * BN_SCREEN_GROUP / 8, (int)c);
            double cell = (double)row[1].steps[i / 32] * row[1].step / (1 << level);
            double value = (code + 0.5 - (8 << level)) * cell;
            rest += (w[i] - value) * (w[i] - value);
        }
        wrong += !(sqrt(rest) <= row[1].error[level]);
    }
    for (int i = 0; i < 2; i++) {
        free(row[i].nibbles), free(row[i].steps);
        for (int p = 0; p < BN_SCREEN_PLANES; p++) free(row[i].planes[p]);
    }
    free(w);
    return wrong;
}

static int check_screen(const bn_kernels *kernels) {
    int wrong = 0;
    for (int groups = 1; groups <= 4; groups++)
        for (int extreme = 0; extreme < 3; extreme++)
            for (int rows = 1; rows <= 5; rows++)
                wrong += screen_case(kernels, groups, rows, extreme);
    for (int extreme = 0; extreme < 3; extreme++)
        wrong += screen_case(kernels, BN_SCREEN_COLS / BN_SCREEN_GROUP, 1, extreme);
    for (int i = 0; i < 40; i++) wrong += encode_case(kernels, 1 + i % 5, i % 4);
    return wrong;
}

static int check(const bn_kernels *kernels) {
    int products = check_products(kernels) + check_wide(kernels), quantize = check_quantize(kernels);
    int f16 = check_f16(kernels), i8 = check_i8(kernels), dense = check_dense(kernels);
    int screen = check_screen(kernels);
    int floats = check_floats(kernels) + check_scale_tile(kernels) + check_decode(kernels);
    floats += check_multiply_add(kernels) + check_transpose(kernels) + check_softmax_step(kernels);
    printf("%s: products %d, dense %d, screen %d, quantize %d, float16 %d, int8 %d, floats (%s) %d wrong\n",
           kernels->name, products, dense, screen, quantize, f16, i8, kernels->float_name, floats);
    return products || dense || screen || quantize || f16 || i8 || floats;
}

int main(int count, char **names) {
    int wrong = 0, checked = 0;
    for (int row = 0; row < BN_TABLE_ROWS; row++) {
        int wanted = count == 1 && bn_runnable(row) != NULL;
        for (int i = 1; i < count; i++) wanted |= !strcmp(names[i], bn_table_name(row));
        if (!wanted) continue;
        wrong |= check(&bn_table[row].kernels);
        checked++;
    }
    return wrong || checked < count - 1 || !checked;
}
