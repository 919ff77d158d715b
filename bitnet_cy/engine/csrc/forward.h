/* One forward step, top to bottom: the stages in order, and how many units each has. */
#ifndef BN_FORWARD_H
#define BN_FORWARD_H

#include "attention.h"
#include "clock.h"
#include "queue.h"
#include "stages.h"

typedef enum bn_stage {
    BN_ATTN_PREPARE, BN_QKV, BN_ROPE, BN_ATTENTION, BN_O_PREPARE, BN_O, BN_ATTN_JOIN,
    BN_FFN_PREPARE, BN_GATE_UP, BN_DOWN_PREPARE, BN_DOWN, BN_FFN_JOIN,
    BN_LAYER_STAGES
} bn_stage;

/* Numbered: 0 the embedding; BN_LAYER_STAGES for each layer; the output norm; BN_HEAD_STAGES. */
static inline ptrdiff_t bn_n_stages(const bn_network *net) {
    return net->n_layers * BN_LAYER_STAGES + 2 + BN_HEAD_STAGES;
}

/* What is timed together: the embedding, each stage of a layer over all layers, and the rest. */
enum { BN_STAGE_KINDS = BN_LAYER_STAGES + 2 + BN_HEAD_STAGES };

static const char *bn_stage_kind_name(int kind) {
    static const char *const names[BN_STAGE_KINDS] = {
        "embedding", "attention_norm", "qkv", "rope", "attention", "o_norm", "o",
        "attention_post_norm", "ffn_norm", "gate_up", "down_norm", "down", "ffn_post_norm",
        "output_norm", "head", "head_begin", "head_estimate", "head_raise",
        "head_keep", "head_pack",
        "head_refine_1", "head_narrow_1", "head_refine_2", "head_narrow_2", "head_refine_3",
        "head_narrow_3", "head_finish"};
    return names[kind];
}

static ptrdiff_t bn_stage_kind(const bn_step *s, ptrdiff_t number) {
    const ptrdiff_t layer_stages = s->net->n_layers * BN_LAYER_STAGES;
    if (number > layer_stages) return number - layer_stages + BN_LAYER_STAGES;
    return number ? 1 + (number - 1) % BN_LAYER_STAGES : 0;
}

static ptrdiff_t bn_layer_stage_units(const bn_step *s, const bn_layer *layer, bn_stage stage) {
    switch (stage) {
    case BN_QKV: return bn_qkv_units(s, layer);
    case BN_ROPE: return s->tokens;
    case BN_ATTENTION: return bn_attention_units(s);
    case BN_O: return bn_linear_units(s, &layer->o);
    case BN_GATE_UP: return bn_linear_units(s, &layer->gate);
    case BN_DOWN: return bn_linear_units(s, &layer->down);
    case BN_ATTN_JOIN: return layer->attn_post_norm ? s->tokens : 0;
    case BN_FFN_JOIN: return layer->ffn_post_norm ? s->tokens : 0;
    default: return bn_prepare_units(s);
    }
}

static void bn_layer_stage_run(const bn_step *s, ptrdiff_t l, bn_stage stage, ptrdiff_t unit,
                               int thread) {
    const bn_network *net = s->net;
    const bn_layer *layer = &net->layers[l];
    const ptrdiff_t heads = net->n_heads * net->head_dim;
    const float *const none = NULL;
    switch (stage) {
    case BN_ATTN_PREPARE:
        bn_stage_prepare(s, s->x, net->hidden, layer->attn_norm, layer->qkv_norms, 3, unit,
                         thread);
        break;
    case BN_QKV: bn_stage_qkv(s, layer, unit, thread); break;
    case BN_ROPE: bn_stage_rope(s, l, unit); break;
    case BN_ATTENTION: bn_stage_attention(s, l, unit, thread); break;
    case BN_O_PREPARE:
        bn_stage_prepare(s, s->attended, heads, layer->attn_sub_norm, &none, 1, unit, thread);
        break;
    case BN_O: bn_stage_branch(s, &layer->o, layer->attn_post_norm, unit, thread); break;
    case BN_ATTN_JOIN: bn_stage_join(s, layer->attn_post_norm, unit, thread); break;
    case BN_FFN_PREPARE:
        bn_stage_prepare(s, s->x, net->hidden, layer->ffn_norm, layer->gate_up_norms, 2, unit,
                         thread);
        break;
    case BN_GATE_UP: bn_stage_gate_up(s, layer, unit, thread); break;
    case BN_DOWN_PREPARE:
        bn_stage_prepare(s, s->gated, net->ffn, layer->ffn_sub_norm, &none, 1, unit, thread);
        break;
    case BN_DOWN: bn_stage_branch(s, &layer->down, layer->ffn_post_norm, unit, thread); break;
    case BN_FFN_JOIN: bn_stage_join(s, layer->ffn_post_norm, unit, thread); break;
    default: break;
    }
}

static ptrdiff_t bn_stage_units(const bn_step *s, ptrdiff_t number) {
    const ptrdiff_t layer_stages = s->net->n_layers * BN_LAYER_STAGES;
    if (number == 0) return s->tokens;
    if (number == layer_stages + 1) return s->n_logits;
    if (number > layer_stages + 1) return bn_head_units(s, (int)(number - layer_stages - 2));
    return bn_layer_stage_units(s, &s->net->layers[(number - 1) / BN_LAYER_STAGES],
                                (bn_stage)((number - 1) % BN_LAYER_STAGES));
}

static void bn_stage_run(const bn_step *s, ptrdiff_t number, ptrdiff_t unit, int thread) {
    const ptrdiff_t layer_stages = s->net->n_layers * BN_LAYER_STAGES;
    if (number == 0) bn_stage_embed(s, unit);
    else if (number == layer_stages + 1) bn_stage_output_norm(s, unit);
    else if (number > layer_stages + 1)
        bn_head_run(s, (int)(number - layer_stages - 2), unit, thread);
    else
        bn_layer_stage_run(s, (number - 1) / BN_LAYER_STAGES,
                           (bn_stage)((number - 1) % BN_LAYER_STAGES), unit, thread);
}

/* Where the codes lie that a unit of a stage of ternary products reads first; NULL for another. */
static const uint8_t *bn_stage_codes(const bn_step *s, ptrdiff_t number, ptrdiff_t unit) {
    const bn_network *net = s->net;
    if (number == 0 || number > net->n_layers * BN_LAYER_STAGES) return NULL;
    const bn_layer *layer = &net->layers[(number - 1) / BN_LAYER_STAGES];
    const bn_linear *const qkv[3] = {&layer->q, &layer->k, &layer->v}, *linear;
    switch ((number - 1) % BN_LAYER_STAGES) {
    case BN_QKV: linear = qkv[bn_qkv_part(s, layer, &unit)]; break;
    case BN_O: linear = &layer->o; break;
    case BN_GATE_UP: linear = &layer->gate; break;
    case BN_DOWN: linear = &layer->down; break;
    default: return NULL;
    }
    return linear->codes + unit * bn_unit_rows(s, linear) * linear->blocks * BN_BLOCK_BYTES;
}

/* What a thread reads in the next stage of ternary products after this one, or NULL. */
static const uint8_t *bn_codes_ahead(const bn_step *s, ptrdiff_t number, int thread, int threads) {
    const ptrdiff_t end = s->net->n_layers * BN_LAYER_STAGES;
    while (++number <= end) {
        const ptrdiff_t units = bn_stage_units(s, number);
        const ptrdiff_t first = bn_share_first(units, threads, thread);
        const uint8_t *codes = first < units ? bn_stage_codes(s, number, first) : NULL;
        if (codes) return codes;
    }
    return NULL;
}

/* One thread's part of a step: do its share of a stage, help the others, wait for them. The first
 * thread keeps the time, from the end of one stage to the end of the next. */
static void bn_work(const bn_step *s, bn_share *shares, int thread, int threads) {
    const ptrdiff_t n_stages = bn_n_stages(s->net);
    const int decoding = !bn_step_uses_panels(s); /* bound by memory */
    int64_t *spent = thread == 0 ? s->stage_ns : NULL;
    int64_t before = spent ? bn_nanoseconds() : 0;
    for (ptrdiff_t number = 0; number < n_stages; number++) {
        const ptrdiff_t units = bn_stage_units(s, number);
        if (!units) continue;
        bn_share *stage = shares + number * threads;
        for (int i = 0; i < threads; i++) {
            const int owner = (thread + i) % threads;
            ptrdiff_t unit;
            while ((unit = bn_share_take(stage, units, threads, owner)) >= 0) {
                bn_stage_run(s, number, unit, thread);
                bn_counter_next(&stage[owner].done);
            }
        }
        bn_stage_wait(stage, units, threads,
                      decoding ? bn_codes_ahead(s, number, thread, threads) : NULL);
        if (spent) {
            const int64_t now = bn_nanoseconds();
            spent[bn_stage_kind(s, number)] += now - before;
            before = now;
        }
    }
}

#endif
