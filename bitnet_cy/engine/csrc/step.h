/* What one forward step over a block of tokens works with. Nothing here owns memory. */
#ifndef BN_STEP_H
#define BN_STEP_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "network.h"
#include "search.h"

/* Working memory of one thread. */
typedef struct bn_scratch {
    uint8_t *decoded;   /* what ternary_gemm wants, or BN_FLOAT_ROWS of K floats */
    uint8_t *unpacked;  /* where rows are dense: as many of I2_S as a product takes at once */
    int32_t *tile;      /* one integer tile */
    float *up;          /* one tile of the up projection, token by token */
    float *row;         /* one normalized row */
    float *input_row;   /* the same, normalized once more for one input */
    int8_t *row_q;      /* the same, quantized */
    float *attention;   /* see attention.h */
} bn_scratch;

typedef enum bn_kv_type { BN_KV_F32, BN_KV_F16, BN_KV_I8 } bn_kv_type;

/* Neighbouring rows of a step that continue one sequence: rows first .. first + tokens - 1 are its
 * positions start .. start + tokens - 1. Its cache is [kv head][context][head_dim] for each layer,
 * and for int8 a float scale beside each row: value = scale * int8. Layers are layer_stride rows
 * apart: 0 where no later step reads the cache, so that layers may share one. */
typedef struct bn_span {
    ptrdiff_t first, tokens, start, context, layer_stride;
    void *keys, *values;
    float *key_scales, *value_scales; /* NULL unless the cache is int8 */
    bn_kv_type type;
} bn_span;

/* What the next linear layers are multiplied with: int8 with its sums and scales, in panels or row
 * by row; in weight-only networks float32 [tokens][K padded to blocks]. */
typedef struct bn_input {
    int8_t *q;
    int32_t *sums;
    float *scales;
    float *values;
} bn_input;

/* Layers whose q, k and v (or gate and up) normalize their input each for itself need several. */
enum { BN_INPUTS = 3, BN_FLOAT_ROWS = 4 };

typedef struct bn_step {
    const bn_network *net;
    const bn_kernels *kernels;
    bn_scratch *scratch;          /* one per thread */
    int threads;                  /* that share the work */
    ptrdiff_t tokens, n_spans;
    const bn_span *spans;         /* in row order, together all rows */
    const int32_t *ids;
    float *x;                     /* [tokens][hidden] residual stream */
    float *branch;                /* [tokens][hidden] to be normalized and added to it; or NULL */
    float *rope;                  /* [n_ropes][tokens][head_dim / 2][2] cosine, sine */
    float *qkv;                   /* [tokens][(n_heads + 2 n_kv_heads) * head_dim] */
    float *attended;              /* [tokens][n_heads * head_dim] */
    float *gated;                 /* [tokens][ffn] */
    bn_input inputs[BN_INPUTS];
    ptrdiff_t n_logits;
    const int32_t *logit_rows;    /* the rows whose logits are wanted */
    float *normed, *logits;       /* [n_logits][hidden], [n_logits][vocab] or NULL */
    const bn_screen *screen;      /* NULL: all logits, else only what the searches find */
    bn_search *searches;          /* [n_logits] */
    int64_t *stage_ns;            /* nanoseconds per kind of stage, added to; NULL: not measured */
} bn_step;

#endif
