/* A model's shape and weights as the engine runs them. Nothing here owns memory. */
#ifndef BN_NETWORK_H
#define BN_NETWORK_H

#include <stddef.h>
#include <stdint.h>

/* y = scale * trits . q / s; rows of whole blocks, I2_S (kernels.h) or dense (dense.h). In a
 * weight-only network, whose rows are I2_S,
 * y = weights . x with weight[r][c] = scales[r * scale_stride + (c / 32 >> scale_shift)] * trit. */
typedef struct bn_linear {
    const uint8_t *codes;
    ptrdiff_t rows, cols, blocks;
    float scale;
    const float *scales;
    ptrdiff_t scale_stride;
    int scale_shift;
} bn_linear;

typedef enum bn_matrix_type {
    BN_F32, BN_F16, BN_BF16, BN_Q8_0, BN_Q6_K, BN_Q4_0
} bn_matrix_type;

/* The embedding or output head in the file's own type, row after row. */
typedef struct bn_matrix {
    const uint8_t *data;
    ptrdiff_t rows, cols, row_bytes;
    bn_matrix_type type;
} bn_matrix;

typedef struct bn_layer {
    bn_linear q, k, v, o, gate, up, down;
    const float *attn_norm, *ffn_norm;
    const float *attn_sub_norm, *ffn_sub_norm; /* NULL: the input is quantized as it is */
    const float *qkv_norms[3], *gate_up_norms[2]; /* one more for each input, or all NULL */
    const float *q_norm, *k_norm;               /* head_dim weights, for every head; or NULL */
    const float *attn_post_norm, *ffn_post_norm; /* of what is added to the stream; or NULL */
    ptrdiff_t window; /* keys that a query sees to its left, itself included; 0: all */
    ptrdiff_t rope;   /* the number of the layer's rope */
} bn_layer;

typedef enum bn_activation { BN_RELU2, BN_SILU, BN_GELU } bn_activation;

typedef struct bn_network {
    ptrdiff_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, vocab;
    float norm_eps, embedding_scale, attention_scale;
    int rope_interleaved;          /* pairs (2i, 2i+1) instead of (i, i + head_dim / 2) */
    ptrdiff_t n_ropes;
    const double *rope_frequency;  /* [n_ropes][head_dim / 2] radians per position */
    const double *rope_factor;     /* [n_ropes] of what is rotated */
    int causal;                    /* else a query sees all keys of its sequence */
    int weight_only;               /* inputs of linear layers are floats, not int8 */
    bn_activation activation;
    int dense; /* every linear layer has dense rows; else all have I2_S ones */
    const bn_layer *layers;
    bn_matrix embedding, head;
    const float *output_norm;
} bn_network;

#endif
