/* What one forward step over a block of tokens works with. Nothing here owns memory. */
#ifndef BN_STEP_H
#define BN_STEP_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "network.h"

/* Working memory of one thread. */
typedef struct bn_scratch {
    uint8_t *decoded;   /* BN_GEMM_ROWS rows of K codes */
    int32_t *tile;      /* one integer tile */
    float *up;          /* one tile of the up projection, token by token */
    float *row;         /* one normalized row */
    int8_t *row_q;      /* the same, quantized */
    float *attention;   /* see attention.h */
} bn_scratch;

typedef enum bn_kv_type { BN_KV_F32, BN_KV_F16, BN_KV_I8 } bn_kv_type;

/* Neighbouring rows of a step that continue one sequence: rows first .. first + tokens - 1 are its
 * positions start .. start + tokens - 1. Its cache is [layer][kv head][context][head_dim], and for
 * int8 a float scale beside each [layer][kv head][context] row: value = scale * int8. */
typedef struct bn_span {
    ptrdiff_t first, tokens, start, context;
    void *keys, *values;
    float *key_scales, *value_scales; /* NULL unless the cache is int8 */
    bn_kv_type type;
} bn_span;

typedef struct bn_step {
    const bn_network *net;
    const bn_kernels *kernels;
    bn_scratch *scratch;          /* one per thread */
    ptrdiff_t tokens, n_spans;
    const bn_span *spans;         /* in row order, together all rows */
    const int32_t *ids;
    float *x;                     /* [tokens][hidden] residual stream */
    float *rope;                  /* [tokens][head_dim / 2][2] cosine, sine */
    float *qkv;                   /* [tokens][(n_heads + 2 n_kv_heads) * head_dim] */
    float *attended;              /* [tokens][n_heads * head_dim] */
    float *gated;                 /* [tokens][ffn] */
    int8_t *q;                    /* quantized input of the next linear layers */
    int32_t *q_sums;              /* [tokens padded to panels] */
    float *q_scales;
    ptrdiff_t n_logits;
    const int32_t *logit_rows;    /* the rows whose logits are wanted */
    float *normed, *logits;       /* [n_logits][hidden], [n_logits][vocab] */
    int64_t *stage_ns;            /* nanoseconds per kind of stage, added to; NULL: not measured */
} bn_step;

#endif
