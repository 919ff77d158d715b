/* Rope, key-value cache, and attention with grouped queries, causal or not, with or without
 * a window.
 *
 * Keys are visited in chunks of BN_KEYS counted from position 0, with a running maximum and sum
 * (online softmax). The queries that share a kv head, of some neighbouring tokens, are the lanes
 * of a unit. Every number is a chain of operations in the order of dimensions or of keys, whatever
 * its neighbours: prompts in one block, in blocks, or token by token agree to the last bit.
 */
#ifndef BN_ATTENTION_H
#define BN_ATTENTION_H

#include <float.h>

#include "stages.h"

enum { BN_KEYS = 32, BN_QUERIES = 64, BN_LANES = 32 };

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

/* Tokens whose queries share a unit: a power of two up to BN_LANES, up to BN_QUERIES queries. */
static ptrdiff_t bn_query_tokens(const bn_network *net) {
    ptrdiff_t tokens = BN_LANES;
    while (tokens > 1 && tokens * (net->n_heads / net->n_kv_heads) > BN_QUERIES) tokens /= 2;
    return tokens;
}

static ptrdiff_t bn_span_units(const bn_step *s, const bn_span *span) {
    return s->net->n_kv_heads * bn_ceil_div(span->tokens, bn_query_tokens(s->net));
}

static ptrdiff_t bn_attention_units(const bn_step *s) {
    ptrdiff_t units = 0;
    for (ptrdiff_t i = 0; i < s->n_spans; i++) units += bn_span_units(s, &s->spans[i]);
    return units;
}

/* The queries of one unit. Head h of the kv head's group and token first + t have lane
 * h * apart + t; lanes lie in groups of BN_LANES, which no head crosses. */
typedef struct bn_queries {
    const bn_layer *layer;
    const bn_span *span;
    ptrdiff_t kv_head, group, first, tokens, apart, lanes;
    ptrdiff_t position;              /* of the first token */
    float *transposed;               /* [group of lanes][head_dim][BN_LANES] */
    float *scores;                   /* [group of lanes][BN_KEYS][BN_LANES] */
    float *keys, *values;            /* buffers of BN_KEYS rows */
    float *maximum, *sum, *shrink;   /* [lanes] */
} bn_queries;

static ptrdiff_t bn_most_lanes(const bn_network *net) {
    const ptrdiff_t queries = bn_query_tokens(net) * (net->n_heads / net->n_kv_heads);
    return bn_ceil_div(queries, BN_LANES) * BN_LANES;
}

/* Floats of scratch one thread needs. */
static ptrdiff_t bn_attention_scratch(const bn_network *net) {
    return bn_most_lanes(net) * (net->head_dim + BN_KEYS + 3) + 2 * BN_KEYS * net->head_dim;
}

static bn_queries bn_queries_of_unit(const bn_step *s, ptrdiff_t layer, ptrdiff_t unit,
                                     float *scratch) {
    const bn_network *net = s->net;
    const ptrdiff_t most = bn_query_tokens(net);
    bn_queries q = {.layer = &net->layers[layer], .span = s->spans};
    q.group = net->n_heads / net->n_kv_heads;
    while (unit >= bn_span_units(s, q.span)) unit -= bn_span_units(s, q.span++);
    q.kv_head = unit % net->n_kv_heads;
    const ptrdiff_t before = unit / net->n_kv_heads * most, left = q.span->tokens - before;
    q.first = q.span->first + before;
    q.position = q.span->start + before;
    q.tokens = left < most ? left : most;
    for (q.apart = 1; q.apart < q.tokens;) q.apart *= 2;
    q.lanes = bn_ceil_div(q.apart * q.group, 8) * 8;
    const ptrdiff_t allocated = bn_most_lanes(net);
    q.transposed = scratch;
    q.scores = q.transposed + net->head_dim * allocated;
    q.maximum = q.scores + BN_KEYS * allocated;
    q.sum = q.maximum + allocated;
    q.shrink = q.sum + allocated;
    q.keys = q.shrink + allocated;
    q.values = q.keys + BN_KEYS * net->head_dim;
    return q;
}

static inline float *bn_lane_of(const bn_queries *q, float *rows, ptrdiff_t n_rows, ptrdiff_t t,
                                ptrdiff_t h) {
    const ptrdiff_t lane = h * q->apart + t;
    return rows + lane / BN_LANES * n_rows * BN_LANES + lane % BN_LANES;
}

static inline float *bn_attended(const bn_step *s, const bn_queries *q, ptrdiff_t t, ptrdiff_t h) {
    const ptrdiff_t head = q->kv_head * q->group + h;
    return s->attended + ((q->first + t) * s->net->n_heads + head) * s->net->head_dim;
}

/* Lanes that no query fills are 0. The lowest maximum is finite: a lane whose keys are all hidden
 * from it adds exp(-inf) = 0. */
static void bn_begin_queries(const bn_step *s, const bn_queries *q) {
    const bn_network *net = s->net;
    const ptrdiff_t hd = net->head_dim, width = (net->n_heads + 2 * net->n_kv_heads) * hd;
    const float *first = s->qkv + q->first * width + q->kv_head * q->group * hd;
    if (q->lanes > q->tokens * q->group)
        memset(q->transposed, 0, (size_t)(hd * bn_most_lanes(net)) * sizeof(float));
    for (ptrdiff_t h = 0; h < q->group; h++)
        s->kernels->transpose(first + h * hd, width, q->tokens, hd,
                              bn_lane_of(q, q->transposed, hd, 0, h), BN_LANES);
    for (ptrdiff_t i = 0; i < q->lanes; i++) q->maximum[i] = -FLT_MAX, q->sum[i] = 0;
    for (ptrdiff_t t = 0; t < q->tokens; t++)
        memset(bn_attended(s, q, t, 0), 0, (size_t)(q->group * hd) * sizeof(float));
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

/* scores[key][lane] *= scales[key], where there are scales */
static void bn_apply_scales(const bn_queries *q, const float *scales, ptrdiff_t n) {
    if (!scales) return;
    for (ptrdiff_t l = 0; l < q->lanes; l += BN_LANES)
        for (ptrdiff_t key = 0; key < n; key++)
            for (ptrdiff_t i = 0; i < BN_LANES; i++)
                q->scores[l * BN_KEYS + key * BN_LANES + i] *= scales[key];
}

/* A chunk of n keys and values from position `start` on; the scales are NULL unless the cache is
 * int8. */
typedef struct bn_kv_chunk {
    ptrdiff_t start, n;
    const float *keys, *values, *key_scales, *value_scales;
} bn_kv_chunk;

/* The keys of a chunk that a token sees: from the first to before the end. */
typedef struct bn_keys {
    ptrdiff_t first, end;
} bn_keys;

static bn_keys bn_seen_keys(const bn_step *s, const bn_queries *q, ptrdiff_t t,
                            const bn_kv_chunk *kv) {
    const ptrdiff_t first = bn_first_key(q->layer, q->position + t) - kv->start;
    const ptrdiff_t end = bn_end_of_keys(s, q->span, q->layer, q->position + t) - kv->start;
    bn_keys seen = {first > 0 ? first : 0, end < kv->n ? end : kv->n};
    if (seen.end < seen.first) seen.end = seen.first = 0;
    return seen;
}

static void bn_hide_keys(const bn_queries *q, ptrdiff_t t, ptrdiff_t first, ptrdiff_t end) {
    for (ptrdiff_t key = first; key < end; key++)
        for (ptrdiff_t h = 0; h < q->group; h++)
            bn_lane_of(q, q->scores, BN_KEYS, t, h)[key * BN_LANES] = -INFINITY;
}

/* Fold the scores of a chunk into the running softmax, a group of lanes at a time; hidden keys
 * score -inf. */
static void bn_score_keys(const bn_step *s, const bn_queries *q, const bn_kv_chunk *kv) {
    const ptrdiff_t hd = s->net->head_dim;
    for (ptrdiff_t l = 0; l < q->lanes; l += BN_LANES) {
        float *scores = q->scores + l * BN_KEYS;
        memset(scores, 0, (size_t)(kv->n * BN_LANES) * sizeof(float));
        s->kernels->multiply_add(kv->keys, hd, 1, kv->n, q->transposed + l * hd, BN_LANES, hd,
                                 scores, BN_LANES,
                                 q->lanes - l < BN_LANES ? q->lanes - l : BN_LANES);
    }
    bn_apply_scales(q, kv->key_scales, kv->n);
    for (ptrdiff_t t = 0; t < q->tokens; t++) {
        const bn_keys seen = bn_seen_keys(s, q, t, kv);
        bn_hide_keys(q, t, 0, seen.first);
        bn_hide_keys(q, t, seen.end, kv->n);
    }
    for (ptrdiff_t l = 0; l < q->lanes; l += BN_LANES)
        s->kernels->softmax_step(q->scores + l * BN_KEYS, BN_LANES, kv->n,
                                 q->lanes - l < BN_LANES ? q->lanes - l : BN_LANES,
                                 q->maximum + l, q->sum + l, q->shrink + l);
}

/* Add the weighted values of a chunk. Those a token does not see are left out, not multiplied by
 * 0: they could be infinite. Tokens that see all of them are neighbours and go together. */
static void bn_add_values(const bn_step *s, const bn_queries *q, const bn_kv_chunk *kv) {
    const ptrdiff_t hd = s->net->head_dim, stride = s->net->n_heads * hd;
    bn_apply_scales(q, kv->value_scales, kv->n);
    for (ptrdiff_t t = 0, together; t < q->tokens; t += together) {
        const bn_keys seen = bn_seen_keys(s, q, t, kv);
        const ptrdiff_t n = seen.end - seen.first;
        for (together = 1; n == kv->n && t + together < q->tokens; together++) {
            const bn_keys next = bn_seen_keys(s, q, t + together, kv);
            if (next.end - next.first < n) break;
        }
        for (ptrdiff_t h = 0; h < q->group; h++)
            s->kernels->multiply_add(
                bn_lane_of(q, q->scores, BN_KEYS, t, h) + seen.first * BN_LANES, 1, BN_LANES,
                together, kv->values + seen.first * hd, hd, n, bn_attended(s, q, t, h), stride, hd);
    }
}

/* The sums so far times factor[lane] */
static void bn_scale_queries(const bn_step *s, const bn_queries *q, const float *factor) {
    for (ptrdiff_t t = 0; t < q->tokens; t++)
        for (ptrdiff_t h = 0; h < q->group; h++) {
            const float by = factor[h * q->apart + t];
            float *out = bn_attended(s, q, t, h);
            if (by != 1.0f)
                for (ptrdiff_t d = 0; d < s->net->head_dim; d++) out[d] *= by;
        }
}

/* One unit: the query heads of one kv head, for some tokens of one span. */
static void bn_stage_attention(const bn_step *s, ptrdiff_t layer, ptrdiff_t unit, int thread) {
    const bn_queries q = bn_queries_of_unit(s, layer, unit, s->scratch[thread].attention);
    const bn_span *span = q.span;
    const ptrdiff_t first_key = bn_first_key(q.layer, q.position) / BN_KEYS * BN_KEYS;
    const ptrdiff_t end = bn_end_of_keys(s, span, q.layer, q.position + q.tokens - 1);
    bn_begin_queries(s, &q);
    for (ptrdiff_t start = first_key; start < end; start += BN_KEYS) {
        const ptrdiff_t row = bn_cache_row(s, span, layer, q.kv_head, start);
        const ptrdiff_t n = end - start < BN_KEYS ? end - start : BN_KEYS;
        const bn_kv_chunk kv = {start,
                                n,
                                bn_load_kv(s, span->type, span->keys, row, n, q.keys),
                                bn_load_kv(s, span->type, span->values, row, n, q.values),
                                span->key_scales ? span->key_scales + row : NULL,
                                span->value_scales ? span->value_scales + row : NULL};
        bn_score_keys(s, &q, &kv);
        bn_scale_queries(s, &q, q.shrink);
        bn_add_values(s, &q, &kv);
    }
    for (ptrdiff_t i = 0; i < q.lanes; i++) q.shrink[i] = 1.0f / q.sum[i];
    bn_scale_queries(s, &q, q.shrink);
}

#endif
