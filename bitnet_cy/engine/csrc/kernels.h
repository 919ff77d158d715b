/* The kernel table: every operation that touches many numbers, one row per instruction set.
 *
 * Ternary weights are rows of I2_S blocks: 32 bytes hold 128 codes (0, 1, 2 for -1, 0, +1); byte p
 * of a block holds elements p, p+32, p+64, p+96 from its high bits to its low bits. Rows are whole
 * blocks; where K is not a multiple of 128 the row is padded with code 1 and the activations with 0.
 *
 * Integer kernels return sum(code * q); the caller's q_sums turn that into sum(trit * q):
 * every kernel gives the same integers. Float kernels fix one order of additions per instruction
 * set, so that a result does not depend on threads, block sizes or the number of tokens.
 */
#ifndef BN_KERNELS_H
#define BN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* For the bodies of tiles: their loops have constant bounds once inlined. */
#if defined(_MSC_VER) && !defined(__clang__)
#define BN_INLINE static __forceinline
#define BN_UNROLL(n)
#else
#define BN_INLINE static inline __attribute__((always_inline))
#define BN_PRAGMA(words) _Pragma(#words)
#if defined(__clang__)
#define BN_UNROLL(n) BN_PRAGMA(unroll n)
#else
#define BN_UNROLL(n) BN_PRAGMA(GCC unroll n)
#endif
#endif

enum { BN_BLOCK = 128, BN_BLOCK_BYTES = 32, BN_GEMV_TOKENS = 6 };
enum { BN_GEMM_ROWS = 64, BN_GEMM_TILE_ROWS = 8 };
enum { BN_WIDE_LEAST = 25, BN_WIDE_ROWS = 1280, BN_WIDE_TOKENS = 64, BN_WIDE_SCRATCH = 246272 };
enum { BN_DENSE_BLOCK = 160, BN_DENSE_DIGITS = 5 }; /* also of BN_BLOCK_BYTES: dense.h */

/* One row of a head as the screen keeps it (screen.h): 4-bit codes, then one bit more a plane.
 * For columns in groups of 256: 128 bytes of codes (byte p of 64-byte half i: column 128 i + p in
 * its low and 128 i + 64 + p in its high bits), 32 bytes of each plane (bit j of byte p: column
 * 32 j + p), and 8 steps, one for each block of 32 columns. */
enum { BN_SCREEN_GROUP = 256, BN_SCREEN_PLANES = 3, BN_SCREEN_COLS = 8192 };
/* What the codes of screen_sums are made of, for the kernels' own use. */
enum { BN_SCREEN_NIBBLES = 1, BN_SCREEN_PLANE = 2, BN_SCREEN_SECOND = 4 };

typedef struct bn_screen_row {
    uint8_t *nibbles, *planes[BN_SCREEN_PLANES], *steps;
    float step;                        /* the unit of the steps */
    float error[BN_SCREEN_PLANES + 1]; /* norm of the rest after the codes and so many planes */
} bn_screen_row;

/* Activations in 15 bits, x = 128 high + low, and the sums of both over blocks of 32 columns. */
typedef struct bn_screen_query {
    const int8_t *high, *low;
    const int16_t *high_sums, *low_sums;
} bn_screen_query;

typedef struct bn_kernels {
    const char *name;
    const char *float_name; /* the instruction set of the float operations */

    /* out[r * tokens + t] = sum_k trit[r][k] * q[t][k]; q rows are blocks * 128 bytes,
     * 1 <= tokens <= BN_GEMV_TOKENS. */
    void (*ternary_gemv)(const uint8_t *codes, ptrdiff_t blocks, int rows, const int8_t *q,
                         int tokens, const int32_t *q_sums, int32_t *out);

    /* The same for any number of tokens, and for up to gemm_rows rows, at most BN_GEMM_ROWS.
     * panels: tokens in groups of `lanes`, each [K / 4][lanes][4] bytes. The tile is
     * out[r * out_stride + t] for t < panels * lanes, or, by_token, out[t * out_stride + r] for
     * r < gemm_rows, of which those past `rows` may be written; decoded: scratch of
     * BN_GEMM_ROWS * K bytes, 64-byte aligned. */
    int gemm_rows, lanes, by_token;
    void (*ternary_gemm)(const uint8_t *codes, ptrdiff_t blocks, int rows, const int8_t *panels,
                         int n_panels, const int32_t *q_sums, int32_t *out, ptrdiff_t out_stride,
                         uint8_t *decoded);

    /* The same for up to BN_WIDE_ROWS rows and BN_WIDE_TOKENS tokens at once: faster from
     * BN_WIDE_LEAST tokens on, or else NULL. decoded: of at least BN_WIDE_SCRATCH bytes too. */
    void (*ternary_gemm_wide)(const uint8_t *codes, ptrdiff_t blocks, int rows,
                              const int8_t *panels, int n_panels, const int32_t *q_sums,
                              int32_t *out, ptrdiff_t out_stride, uint8_t *decoded);

    /* As ternary_gemv, on dense rows: q rows are blocks * 160 bytes. */
    void (*dense_gemv)(const uint8_t *dense, ptrdiff_t blocks, int rows, const int8_t *q,
                       int tokens, const int32_t *q_sums, int32_t *out);

    /* I2_S rows without code 3 to rows of `dense_blocks` dense blocks, and back. What lies past
     * the end of the source's rows is filled with code 1. */
    void (*dense_pack)(const uint8_t *codes, ptrdiff_t blocks, int rows, uint8_t *dense,
                       ptrdiff_t dense_blocks);
    void (*dense_unpack)(const uint8_t *dense, ptrdiff_t dense_blocks, int rows, uint8_t *codes,
                         ptrdiff_t blocks);

    /* Per-token int8: s = 127 / max(|x|, 1e-5), q = round half to even (x * s). Returns s, or NaN
     * (and q = 0) when x holds a NaN or an infinity. n bytes of q are written. */
    float (*quantize)(const float *x, ptrdiff_t n, int8_t *q, int32_t *q_sum);

    /* y = x / sqrt(mean(x^2) + eps) * weight */
    void (*rms_norm)(const float *x, const float *weight, ptrdiff_t n, float eps, float *y);

    /* out[r] = row r (float16, row_stride elements apart) . x; same order of additions as dot_f32 */
    void (*dot_rows_f16)(const uint16_t *rows, ptrdiff_t row_stride, int n_rows, const float *x,
                         ptrdiff_t n, float *out);
    void (*dot_rows_f32)(const float *rows, ptrdiff_t row_stride, int n_rows, const float *x,
                         ptrdiff_t n, float *out);

    /* c[r][j] += sum over i < k of a[r * a_row + i * a_col] * b[i][j], for r < rows and j < n,
     * added in the order of i */
    void (*multiply_add)(const float *a, ptrdiff_t a_row, ptrdiff_t a_col, ptrdiff_t rows,
                         const float *b, ptrdiff_t b_stride, ptrdiff_t k, float *c,
                         ptrdiff_t c_stride, ptrdiff_t n);

    /* y[j * y_stride + i] = x[i * x_stride + j] for i < rows, j < cols */
    void (*transpose)(const float *x, ptrdiff_t x_stride, ptrdiff_t rows, ptrdiff_t cols, float *y,
                      ptrdiff_t y_stride);

    void (*f16_to_f32)(const uint16_t *x, ptrdiff_t n, float *y);
    void (*f32_to_f16)(const float *x, ptrdiff_t n, uint16_t *y);
    void (*i8_to_f32)(const int8_t *x, ptrdiff_t n, float *y);

    /* Folds n_keys rows of scores, score_stride apart, into a running softmax per lane (a multiple
     * of 8): maximum rises to the highest score, shrink = exp(old maximum - maximum), scores become
     * exp(score - maximum) and sum becomes sum * shrink + the scores, added in order. */
    void (*softmax_step)(float *scores, ptrdiff_t score_stride, ptrdiff_t n_keys, ptrdiff_t lanes,
                         float *maximum, float *sum, float *shrink);

    /* y[t * y_stride + r] = tile[r * tile_stride + t] * (scale / s[t]), or that added to it;
     * by_token: tile[t * tile_stride + r] */
    void (*scale_tile)(const int32_t *tile, ptrdiff_t tile_stride, int by_token, ptrdiff_t rows,
                       ptrdiff_t tokens, float scale, const float *s, float *y,
                       ptrdiff_t y_stride, int add);

    /* gate[i] = act(gate[i]) * up[i] */
    void (*relu2_mul)(float *gate, const float *up, ptrdiff_t n);
    void (*silu_mul)(float *gate, const float *up, ptrdiff_t n);
    void (*gelu_mul)(float *gate, const float *up, ptrdiff_t n); /* by tanh's approximation */

    /* A row of blocks as floats: y[c] = scales[c / 32 >> scale_shift] * trit */
    void (*decode_ternary)(const uint8_t *codes, ptrdiff_t blocks, const float *scales,
                           int scale_shift, float *y);

    /* sums[r][0] = sum over blocks of step * sum of code * x; sums[r][1] = the same with codes 1.
     * The code is the nibble followed by a bit of each plane, 4 to 6 bits, or where nibbles is NULL
     * the one plane's bit. Rows lie one after the other; at most BN_SCREEN_COLS columns. */
    void (*screen_sums)(const uint8_t *nibbles, const uint8_t *const *planes, int n_planes,
                        const uint8_t *steps, int rows, ptrdiff_t groups,
                        const bn_screen_query *x, int64_t (*sums)[2]);
    /* w: groups * 256 floats; fills the row */
    void (*screen_encode)(const float *w, ptrdiff_t groups, bn_screen_row *row);
} bn_kernels;

#endif
