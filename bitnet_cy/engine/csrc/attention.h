/* Rope, key-value cache, and attention with grouped queries, causal or not, with or without
 * a window.
 *
 * Keys are visited in chunks of BN_KEYS counted from position 0, with a running maximum and sum
 * (online softmax). A query's arithmetic depends on its own position only, not on how many queries
 * share the chunk, so prompts in one block, in blocks, or token by token agree to the last bit.
 */
#ifndef BN_ATTENTION_H
#define BN_ATTENTION_H

#include "stages.h"

enum { BN_KEYS = 32, BN_QUERY_TOKENS = 8 };

/* The row of the cache (head_dim values, one scale) of a position. */
static inline ptrdiff_t bn_cache_row(const bn_step *s, const bn_span *span, ptrdiff_t layer,
                                     ptrdiff_t kv_head, ptrdiff_t position) {
    (void)s;
    return layer * span->layer_stride + kv_head * span->context + position;
}

/* The keys that the query of a position sees: from the first to before the end. */
static inline ptrdiff_t bn_first_key(const bn_layer *layer, ptrdiff_t position) {
    return layer->window && position >= layer->window ? position - layer->window + 1 : 0;
}

static inline ptrdiff_t bn_end_of_keys(const bn_step *s, const bn_span *span,
                                       const bn_layer *layer, ptrdiff_t position) {
    if (s->net->causal) return position + 1;
    const ptrdiff_t all = span->start + span->tokens, seen = position + layer->window;
    return layer->window && seen < all ? seen : all;
}

static void bn_rotate(const bn_step *s, float *head, const float *rope, float factor) {
    const ptrdiff_t half = s->net->head_dim / 2;
    const ptrdiff_t step = s->net->rope_interleaved ? 2 : 1;
    const ptrdiff_t apart = s->net->rope_interleaved ? 1 : half;
    for (ptrdiff_t i = 0; i < half; i++) {
        float a = head[i * step], b = head[i * step + apart];
        float c = rope[2 * i], d = rope[2 * i + 1];
        head[i * step] = (a * c - b * d) * factor;
        head[i * step + apart] = (a * d + b * c) * factor;
    }
}

/* Int8 rows are quantized as activations are. What that rounds to nothing, magnitudes under 1e-5,
 * is nothing to the quantizer of the next layer either. */
static void bn_store_kv(const bn_step *s, bn_kv_type type, void *cache, float *scales,
                        ptrdiff_t row, const float *head) {
    const ptrdiff_t hd = s->net->head_dim, at = row * hd;
    int32_t sum;
    switch (type) {
    case BN_KV_F32: memcpy((float *)cache + at, head, (size_t)hd * sizeof *head); break;
    case BN_KV_F16: s->kernels->f32_to_f16(head, hd, (uint16_t *)cache + at); break;
    case BN_KV_I8:
        scales[row] = 1.0f / s->kernels->quantize(head, hd, (int8_t *)cache + at, &sum);
        break;
    }
}

/* The heads of a row, each normalized by itself unless there is no norm for them. */
static void bn_norm_heads(const bn_step *s, float *heads, ptrdiff_t count, const float *norm) {
    const ptrdiff_t hd = s->net->head_dim;
    if (!norm) return;
    for (ptrdiff_t h = 0; h < count; h++)
        s->kernels->rms_norm(heads + h * hd, norm, hd, s->net->norm_eps, heads + h * hd);
}

/* One unit per token: norm and rotate queries (scaled for the scores) and keys, fill the cache. */
static void bn_stage_rope(const bn_step *s, ptrdiff_t layer, ptrdiff_t t) {
    const bn_network *net = s->net;
    const bn_layer *weights = &net->layers[layer];
    const ptrdiff_t hd = net->head_dim;
    float *q = s->qkv + t * (net->n_heads + 2 * net->n_kv_heads) * hd;
    float *k = q + net->n_heads * hd, *v = k + net->n_kv_heads * hd;
    const float *rope = s->rope + (weights->rope * s->tokens + t) * hd;
    const bn_span *span = bn_span_of_row(s, t);
    bn_norm_heads(s, q, net->n_heads, weights->q_norm);
    bn_norm_heads(s, k, net->n_kv_heads, weights->k_norm);
    for (ptrdiff_t h = 0; h < net->n_heads; h++)
        bn_rotate(s, q + h * hd, rope, net->attention_scale);
    for (ptrdiff_t h = 0; h < net->n_kv_heads; h++) {
        ptrdiff_t row = bn_cache_row(s, span, layer, h, span->start + t - span->first);
        bn_rotate(s, k + h * hd, rope, 1.0f);
        bn_store_kv(s, span->type, span->keys, span->key_scales, row, k + h * hd);
        bn_store_kv(s, span->type, span->values, span->value_scales, row, v + h * hd);
    }
}

static ptrdiff_t bn_span_units(const bn_step *s, const bn_span *span) {
    return s->net->n_kv_heads * bn_ceil_div(span->tokens, BN_QUERY_TOKENS);
}

static ptrdiff_t bn_attention_units(const bn_step *s) {
    ptrdiff_t units = 0;
    for (ptrdiff_t i = 0; i < s->n_spans; i++) units += bn_span_units(s, &s->spans[i]);
    return units;
}

/* Floats of scratch one thread needs: a chunk of keys and of values, and per query its scores,
 * running maximum and running sum. */
static ptrdiff_t bn_attention_scratch(ptrdiff_t head_dim, ptrdiff_t group) {
    return 2 * BN_KEYS * head_dim + BN_QUERY_TOKENS * group * 2 + BN_KEYS;
}

/* n rows as float32; int8 ones are not multiplied by their scales yet. */
static const float *bn_load_kv(const bn_step *s, bn_kv_type type, const void *cache, ptrdiff_t row,
                               ptrdiff_t n, float *buffer) {
    const ptrdiff_t hd = s->net->head_dim, at = row * hd;
    if (type == BN_KV_F32) return (const float *)cache + at;
    if (type == BN_KV_F16) s->kernels->f16_to_f32((const uint16_t *)cache + at, n * hd, buffer);
    else s->kernels->i8_to_f32((const int8_t *)cache + at, n * hd, buffer);
    return buffer;
}

/* x[i] *= scales[i], where there are scales */
static void bn_apply_scales(const float *scales, int first, int n, float *x) {
    if (!scales) return;
    for (int i = 0; i < n; i++) x[i] *= scales[first + i];
}

/* A chunk of keys and values; the scales are NULL unless the cache is int8. */
typedef struct bn_kv_chunk {
    const float *keys, *values, *key_scales, *value_scales;
} bn_kv_chunk;

/* Fold the keys from `first` to before `end` of a chunk into one query's running softmax; out
 * accumulates the unnormalized sum of values. A row's scale multiplies its score or weight, not its head_dim values: less work, no rounding. */
static void bn_attend_chunk(const bn_step *s, const float *query, const bn_kv_chunk *kv, int first,
                            int end, float *scores, float *maximum, float *sum, float *out) {
    const ptrdiff_t hd = s->net->head_dim;
    const int n = end - first;
    s->kernels->dot_rows_f32(kv->keys + first * hd, hd, n, query, hd, scores);
    bn_apply_scales(kv->key_scales, first, n, scores);
    float highest = *maximum;
    for (int i = 0; i < n; i++) highest = scores[i] > highest ? scores[i] : highest;
    float shrink = expf(*maximum - highest); /* 0 for the first chunk, whose maximum is -inf */
    *sum = *sum * shrink + s->kernels->exp_sum(scores, n, highest);
    if (shrink != 1.0f)
        for (ptrdiff_t i = 0; i < hd; i++) out[i] *= shrink;
    bn_apply_scales(kv->value_scales, first, n, scores);
    s->kernels->add_rows_f32(kv->values + first * hd, hd, n, scores, hd, out);
    *maximum = highest;
}

/* One unit: the query heads of one kv head, for up to BN_QUERY_TOKENS tokens of one span. */
static void bn_stage_attention(const bn_step *s, ptrdiff_t layer, ptrdiff_t unit, int thread) {
    const bn_network *net = s->net;
    const bn_layer *weights = &net->layers[layer];
    const ptrdiff_t hd = net->head_dim, group = net->n_heads / net->n_kv_heads;
    const ptrdiff_t width = (net->n_heads + 2 * net->n_kv_heads) * hd;
    const bn_span *span = s->spans;
    while (unit >= bn_span_units(s, span)) unit -= bn_span_units(s, span++);
    const ptrdiff_t kv_head = unit % net->n_kv_heads;
    const ptrdiff_t first = span->first + unit / net->n_kv_heads * BN_QUERY_TOKENS;
    const ptrdiff_t left = span->first + span->tokens - first;
    const ptrdiff_t position = span->start + first - span->first; /* of the first of these tokens */
    const ptrdiff_t tokens = left < BN_QUERY_TOKENS ? left : BN_QUERY_TOKENS;
    float *key_buffer = s->scratch[thread].attention, *value_buffer = key_buffer + BN_KEYS * hd;
    float *scores = value_buffer + BN_KEYS * hd, *maximum = scores + BN_KEYS;
    float *sum = maximum + BN_QUERY_TOKENS * group;
    for (ptrdiff_t i = 0; i < tokens * group; i++) maximum[i] = -INFINITY, sum[i] = 0;
    for (ptrdiff_t t = first; t < first + tokens; t++)
        memset(s->attended + (t * net->n_heads + kv_head * group) * hd, 0,
               (size_t)(group * hd) * sizeof(float));
    const ptrdiff_t first_key = bn_first_key(weights, position);
    const ptrdiff_t n_keys = bn_end_of_keys(s, span, weights, position + tokens - 1);
    for (ptrdiff_t chunk = first_key / BN_KEYS * BN_KEYS; chunk < n_keys; chunk += BN_KEYS) {
        ptrdiff_t row = bn_cache_row(s, span, layer, kv_head, chunk);
        ptrdiff_t loaded = n_keys - chunk < BN_KEYS ? n_keys - chunk : BN_KEYS;
        bn_kv_chunk kv = {bn_load_kv(s, span->type, span->keys, row, loaded, key_buffer),
                          bn_load_kv(s, span->type, span->values, row, loaded, value_buffer),
                          span->key_scales ? span->key_scales + row : NULL,
                          span->value_scales ? span->value_scales + row : NULL};
        for (ptrdiff_t i = 0; i < tokens * group; i++) {
            ptrdiff_t t = first + i / group, head = kv_head * group + i % group;
            ptrdiff_t from = bn_first_key(weights, position + i / group) - chunk;
            ptrdiff_t to = bn_end_of_keys(s, span, weights, position + i / group) - chunk;
            from = from > 0 ? from : 0;
            to = to < BN_KEYS ? to : BN_KEYS;
            if (from >= to) continue;
            bn_attend_chunk(s, s->qkv + t * width + head * hd, &kv, (int)from, (int)to, scores, maximum + i, sum + i,
                            s->attended + (t * net->n_heads + head) * hd);
        }
    }
    for (ptrdiff_t i = 0; i < tokens * group; i++) {
        float *out = s->attended + ((first + i / group) * net->n_heads + kv_head * group +
                                    i % group) * hd;
        float inverse = 1.0f / sum[i];
        for (ptrdiff_t d = 0; d < hd; d++) out[d] *= inverse;
    }
}

#endif
