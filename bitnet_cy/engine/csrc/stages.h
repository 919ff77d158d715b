/* A forward step as stages. Each stage is split into units that any thread may run: units of one
 * stage touch no common output, and a unit's arithmetic does not depend on the split, so the
 * result is the same for every number of threads.
 */
#ifndef BN_STAGES_H
#define BN_STAGES_H

#include <math.h>
#include <string.h>

#include "kernels.h"
#include "matrix.h"
#include "step.h"

enum { BN_GEMM_UNIT_ROWS = 32, BN_GEMV_UNIT_ROWS = 256, BN_HEAD_UNIT_ROWS = 64 };
enum { BN_WIDE_COST = 140 }; /* so many rows more is what a call of ternary_gemm_wide costs */

static inline int bn_step_uses_panels(const bn_step *s) { return s->tokens > BN_GEMV_TOKENS; }

/* Whether tokens have to be packed into panels: one of a single lane is a row as it is. */
static inline int bn_step_packs(const bn_step *s) {
    return bn_step_uses_panels(s) && s->kernels->lanes > 1;
}

static inline ptrdiff_t bn_ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

static inline const bn_span *bn_span_of_row(const bn_step *s, ptrdiff_t row) {
    const bn_span *span = s->spans;
    while (row >= span->first + span->tokens) span++;
    return span;
}

static inline ptrdiff_t bn_step_panels(const bn_step *s) {
    return bn_ceil_div(s->tokens, s->kernels->lanes);
}

/* ---- embedding and rope angles: one unit per token -------------------------------------- */

static void bn_stage_embed(const bn_step *s, ptrdiff_t t) {
    const bn_network *net = s->net;
    const ptrdiff_t half = net->head_dim / 2;
    const bn_span *span = bn_span_of_row(s, t);
    const double position = (double)(span->start + t - span->first);
    float *x = s->x + t * net->hidden;
    bn_decode_row(s->kernels, &net->embedding, s->ids[t], x);
    if (net->embedding_scale != 1.0f)
        for (ptrdiff_t i = 0; i < net->hidden; i++) x[i] *= net->embedding_scale;
    for (ptrdiff_t r = 0; r < net->n_ropes; r++) {
        float *rope = s->rope + (r * s->tokens + t) * net->head_dim;
        for (ptrdiff_t i = 0; i < half; i++) {
            double angle = position * net->rope_frequency[r * half + i];
            rope[2 * i] = (float)(net->rope_factor[r] * cos(angle));
            rope[2 * i + 1] = (float)(net->rope_factor[r] * sin(angle));
        }
    }
}

/* Columns of a quantized input of n: whole blocks of the rows that it meets. */
static inline ptrdiff_t bn_padded_columns(const bn_step *s, ptrdiff_t n) {
    const ptrdiff_t block =
        s->net->dense && !bn_step_uses_panels(s) ? BN_DENSE_BLOCK : BN_BLOCK;
    return bn_ceil_div(n, block) * block;
}

/* ---- norm and int8 quantization: one unit per token, or per panel of tokens --------------- */

static ptrdiff_t bn_prepare_units(const bn_step *s) {
    return bn_step_uses_panels(s) ? bn_step_panels(s) : s->tokens;
}

/* Lane t % lanes of a panel: four columns of every token lie together. */
static void bn_store_lane(const bn_step *s, const bn_input *input, ptrdiff_t t, ptrdiff_t padded,
                          const int8_t *row_q) {
    const ptrdiff_t lanes = s->kernels->lanes;
    int8_t *panel = input->q + t / lanes * lanes * padded;
    for (ptrdiff_t k4 = 0; k4 < padded / 4; k4++)
        memcpy(panel + (k4 * lanes + t % lanes) * 4, row_q + k4 * 4, 4);
}

static void bn_store_input(const bn_step *s, const bn_input *input, const float *x, ptrdiff_t n,
                           ptrdiff_t t, const bn_scratch *scratch) {
    const ptrdiff_t padded = bn_padded_columns(s, n);
    if (s->net->weight_only) {
        float *values = input->values + t * padded;
        memcpy(values, x, (size_t)n * sizeof *x);
        memset(values + n, 0, (size_t)(padded - n) * sizeof *x);
        return;
    }
    int8_t *q = bn_step_packs(s) ? scratch->row_q : input->q + t * padded;
    input->scales[t] = s->kernels->quantize(x, n, q, &input->sums[t]);
    memset(q + n, 0, (size_t)(padded - n));
    if (bn_step_packs(s)) bn_store_lane(s, input, t, padded, q);
}

/* A lane of the last panel that no token fills. */
static void bn_store_nothing(const bn_step *s, const bn_input *input, ptrdiff_t n, ptrdiff_t t,
                             const bn_scratch *scratch) {
    const ptrdiff_t padded = bn_padded_columns(s, n);
    if (s->net->weight_only) return;
    input->sums[t] = 0;
    memset(scratch->row_q, 0, (size_t)padded);
    bn_store_lane(s, input, t, padded, scratch->row_q);
}

/* Row t of x [tokens][n], normalized unless norm is NULL, to the first input; or, normalized by
 * each of norms, to as many inputs. */
static void bn_prepare_row(const bn_step *s, const float *x, ptrdiff_t n, const float *norm,
                           const float *const *norms, int count, ptrdiff_t t,
                           const bn_scratch *scratch) {
    if (t >= s->tokens) {
        for (int i = 0; i < count; i++) bn_store_nothing(s, &s->inputs[i], n, t, scratch);
        return;
    }
    x += t * n;
    if (norm) {
        s->kernels->rms_norm(x, norm, n, s->net->norm_eps, scratch->row);
        x = scratch->row;
    }
    if (!norms) {
        bn_store_input(s, &s->inputs[0], x, n, t, scratch);
        return;
    }
    for (int i = 0; i < count; i++) {
        s->kernels->rms_norm(x, norms[i], n, s->net->norm_eps, scratch->input_row);
        bn_store_input(s, &s->inputs[i], scratch->input_row, n, t, scratch);
    }
}

/* norms: `count` further norms, one for each input, or one NULL: all share the first */
static void bn_stage_prepare(const bn_step *s, const float *x, ptrdiff_t n, const float *norm,
                             const float *const *norms, int count, ptrdiff_t unit, int thread) {
    const ptrdiff_t size = bn_step_uses_panels(s) ? s->kernels->lanes : 1;
    if (!norms[0]) norms = NULL, count = 1;
    for (ptrdiff_t t = unit * size; t < (unit + 1) * size; t++)
        bn_prepare_row(s, x, n, norm, norms, count, t, &s->scratch[thread]);
}

/* The input of the i-th of several matrices that `norms` belong to. */
static const bn_input *bn_input_of(const bn_step *s, const float *const *norms, int i) {
    return &s->inputs[norms[0] ? i : 0];
}

/* ---- what a branch adds to the stream, where it is normalized first: one unit per token ----- */

static void bn_stage_join(const bn_step *s, const float *norm, ptrdiff_t t, int thread) {
    const ptrdiff_t hidden = s->net->hidden;
    const float *row = s->scratch[thread].row;
    float *x = s->x + t * hidden;
    s->kernels->rms_norm(s->branch + t * hidden, norm, hidden, s->net->norm_eps,
                         s->scratch[thread].row);
    for (ptrdiff_t i = 0; i < hidden; i++) x[i] += row[i];
}

/* ---- ternary linear layers: one unit per group of rows and, if wide, of tokens ------------ */

typedef struct bn_unit {
    ptrdiff_t first, rows;   /* of the matrix */
    ptrdiff_t token, tokens; /* of the step */
} bn_unit;

static int bn_step_is_wide(const bn_step *s) {
    return s->kernels->ternary_gemm_wide && s->tokens >= BN_WIDE_LEAST && !s->net->weight_only;
}

static ptrdiff_t bn_token_groups(const bn_step *s) {
    return bn_step_is_wide(s) ? bn_ceil_div(s->tokens, BN_WIDE_TOKENS) : 1;
}

/* The rows of a wide unit with which all threads are done soonest. */
static ptrdiff_t bn_wide_rows(const bn_step *s, const bn_linear *linear) {
    const ptrdiff_t groups = bn_token_groups(s);
    ptrdiff_t best = 0, least = 0;
    for (ptrdiff_t parts = bn_ceil_div(linear->rows, BN_WIDE_ROWS);; parts++) {
        const ptrdiff_t rows = bn_ceil_div(bn_ceil_div(linear->rows, parts), 8) * 8;
        const ptrdiff_t time = bn_ceil_div(parts * groups, s->threads) * (rows + BN_WIDE_COST);
        if (best && rows < BN_WIDE_ROWS / 4) return best;
        if (!best || time < least) best = rows, least = time;
    }
}

static inline ptrdiff_t bn_gemm_unit_rows(const bn_kernels *kernels) {
    return kernels->gemm_rows < BN_GEMM_UNIT_ROWS ? BN_GEMM_UNIT_ROWS : kernels->gemm_rows;
}

static ptrdiff_t bn_unit_rows(const bn_step *s, const bn_linear *linear) {
    if (bn_step_is_wide(s)) return bn_wide_rows(s, linear);
    if (bn_step_uses_panels(s)) return bn_gemm_unit_rows(s->kernels);
    ptrdiff_t rows = 32768 / (linear->blocks * BN_BLOCK_BYTES) / 8 * 8;
    return rows < 8 ? 8 : rows > BN_GEMV_UNIT_ROWS ? BN_GEMV_UNIT_ROWS : rows;
}

static ptrdiff_t bn_linear_units(const bn_step *s, const bn_linear *linear) {
    return bn_ceil_div(linear->rows, bn_unit_rows(s, linear)) * bn_token_groups(s);
}

static bn_unit bn_linear_unit(const bn_step *s, const bn_linear *linear, ptrdiff_t number) {
    const ptrdiff_t groups = bn_token_groups(s), rows = bn_unit_rows(s, linear);
    bn_unit unit = {number / groups * rows, rows, number % groups * BN_WIDE_TOKENS, s->tokens};
    if (linear->rows - unit.first < rows) unit.rows = linear->rows - unit.first;
    unit.tokens -= unit.token;
    if (bn_step_is_wide(s) && unit.tokens > BN_WIDE_TOKENS) unit.tokens = BN_WIDE_TOKENS;
    return unit;
}

static ptrdiff_t bn_unit_panels(const bn_step *s, const bn_unit *unit) {
    return bn_ceil_div(unit->tokens, s->kernels->lanes);
}

static inline int bn_tile_is_by_token(const bn_step *s) {
    return bn_step_uses_panels(s) && s->kernels->by_token;
}

static ptrdiff_t bn_tile_stride(const bn_step *s, const bn_unit *unit) {
    if (bn_tile_is_by_token(s)) return bn_gemm_unit_rows(s->kernels);
    return bn_step_uses_panels(s) ? bn_unit_panels(s, unit) * s->kernels->lanes : unit->tokens;
}

/* The I2_S rows of a matrix from r on, for panels: as they lie, or unpacked. */
static const uint8_t *bn_linear_codes(const bn_step *s, const bn_linear *linear, ptrdiff_t r,
                                      int rows, const bn_scratch *scratch) {
    const uint8_t *codes = linear->codes + r * linear->blocks * BN_BLOCK_BYTES;
    if (!s->net->dense) return codes;
    s->kernels->dense_unpack(codes, linear->blocks, rows, scratch->unpacked,
                             bn_ceil_div(linear->cols, BN_BLOCK));
    return scratch->unpacked;
}

/* tile[r * stride + t], or by token tile[t * stride + r], = integer product of row r of the unit
 * with its token t */
static void bn_linear_tile(const bn_step *s, const bn_input *input, const bn_linear *linear,
                           const bn_unit *unit, int32_t *tile, const bn_scratch *scratch) {
    const bn_kernels *kernels = s->kernels;
    if (!bn_step_uses_panels(s)) {
        const uint8_t *codes = linear->codes + unit->first * linear->blocks * BN_BLOCK_BYTES;
        (s->net->dense ? kernels->dense_gemv : kernels->ternary_gemv)(
            codes, linear->blocks, (int)unit->rows, input->q, (int)s->tokens, input->sums, tile);
        return;
    }
    const ptrdiff_t stride = bn_tile_stride(s, unit), blocks = bn_ceil_div(linear->cols, BN_BLOCK);
    const int wide = bn_step_is_wide(s);
    const ptrdiff_t size = wide ? BN_WIDE_ROWS : kernels->gemm_rows;
    for (ptrdiff_t r = 0; r < unit->rows; r += size) {
        const int n = (int)(unit->rows - r < size ? unit->rows - r : size);
        (wide ? kernels->ternary_gemm_wide : kernels->ternary_gemm)(
            bn_linear_codes(s, linear, unit->first + r, n, scratch), blocks, n,
            input->q + unit->token * blocks * BN_BLOCK, (int)bn_unit_panels(s, unit),
            input->sums + unit->token, kernels->by_token ? tile + r : tile + r * stride, stride,
            scratch->decoded);
    }
}

/* y[t][r] (+)= row first + r . input[t], in float32: weights become floats a few rows at a time,
 * which all tokens share */
static void bn_linear_floats(const bn_step *s, const bn_input *input, const bn_linear *linear,
                             ptrdiff_t first, ptrdiff_t rows, float *y, ptrdiff_t y_stride, int add,
                             const bn_scratch *scratch) {
    const ptrdiff_t k = linear->blocks * BN_BLOCK;
    float *weights = (float *)(void *)scratch->decoded, products[BN_FLOAT_ROWS];
    for (ptrdiff_t start = 0; start < rows; start += BN_FLOAT_ROWS) {
        const ptrdiff_t count = rows - start < BN_FLOAT_ROWS ? rows - start : BN_FLOAT_ROWS;
        for (ptrdiff_t r = 0; r < count; r++) {
            const ptrdiff_t row = first + start + r;
            s->kernels->decode_ternary(linear->codes + row * linear->blocks * BN_BLOCK_BYTES,
                                       linear->blocks, linear->scales + row * linear->scale_stride,
                                       linear->scale_shift, weights + r * k);
        }
        for (ptrdiff_t t = 0; t < s->tokens; t++) {
            float *out = y + t * y_stride + start;
            s->kernels->dot_rows_f32(weights, k, (int)count, input->values + t * k, k, products);
            for (ptrdiff_t r = 0; r < count; r++) out[r] = add ? out[r] + products[r] : products[r];
        }
    }
}

/* y[t][r] (+)= row r . input[t] for the unit's rows and tokens */
static void bn_linear_rows(const bn_step *s, const bn_input *input, const bn_linear *linear,
                           const bn_unit *unit, float *y, ptrdiff_t y_stride, int add,
                           const bn_scratch *scratch) {
    if (s->net->weight_only) {
        bn_linear_floats(s, input, linear, unit->first, unit->rows, y, y_stride, add, scratch);
        return;
    }
    bn_linear_tile(s, input, linear, unit, scratch->tile, scratch);
    s->kernels->scale_tile(scratch->tile, bn_tile_stride(s, unit), bn_tile_is_by_token(s),
                           unit->rows, unit->tokens, linear->scale, input->scales + unit->token, y,
                           y_stride, add);
}

static void bn_stage_linear(const bn_step *s, const bn_input *input, const bn_linear *linear,
                            ptrdiff_t number, float *y, ptrdiff_t y_stride, int add, int thread) {
    const bn_unit unit = bn_linear_unit(s, linear, number);
    bn_linear_rows(s, input, linear, &unit, y + unit.token * y_stride + unit.first, y_stride, add,
                   &s->scratch[thread]);
}

/* What a branch of a layer ends with: to the stream, or to where a post norm takes it from. */
static void bn_stage_branch(const bn_step *s, const bn_linear *linear, const float *post_norm,
                            ptrdiff_t unit, int thread) {
    bn_stage_linear(s, &s->inputs[0], linear, unit, post_norm ? s->branch : s->x, s->net->hidden,
                    post_norm == NULL, thread);
}

static ptrdiff_t bn_qkv_units(const bn_step *s, const bn_layer *layer) {
    return bn_linear_units(s, &layer->q) + bn_linear_units(s, &layer->k) +
           bn_linear_units(s, &layer->v);
}

/* Which of q, k and v (0, 1, 2) a unit of their stage belongs to; unit becomes that matrix's own. */
static int bn_qkv_part(const bn_step *s, const bn_layer *layer, ptrdiff_t *unit) {
    const bn_linear *parts[3] = {&layer->q, &layer->k, &layer->v};
    int i = 0;
    for (; i < 2 && *unit >= bn_linear_units(s, parts[i]); i++)
        *unit -= bn_linear_units(s, parts[i]);
    return i;
}

static void bn_stage_qkv(const bn_step *s, const bn_layer *layer, ptrdiff_t unit, int thread) {
    const bn_linear *parts[3] = {&layer->q, &layer->k, &layer->v};
    const ptrdiff_t width = layer->q.rows + layer->k.rows + layer->v.rows;
    const int part = bn_qkv_part(s, layer, &unit);
    float *y = s->qkv;
    for (int i = 0; i < part; i++) y += parts[i]->rows;
    bn_stage_linear(s, bn_input_of(s, layer->qkv_norms, part), parts[part], unit, y, width, 0,
                    thread);
}

static void bn_activate(const bn_step *s, float *gate, const float *up, ptrdiff_t n) {
    switch (s->net->activation) {
    case BN_RELU2: s->kernels->relu2_mul(gate, up, n); break;
    case BN_SILU: s->kernels->silu_mul(gate, up, n); break;
    case BN_GELU: s->kernels->gelu_mul(gate, up, n); break;
    }
}

/* gate and up have the same shape: the unit computes both and stores act(gate) * up */
static void bn_stage_gate_up(const bn_step *s, const bn_layer *layer, ptrdiff_t number,
                             int thread) {
    const bn_scratch *scratch = &s->scratch[thread];
    const bn_unit unit = bn_linear_unit(s, &layer->gate, number);
    const ptrdiff_t ffn = s->net->ffn;
    float *gate = s->gated + unit.token * ffn + unit.first, *up = scratch->up;
    bn_linear_rows(s, bn_input_of(s, layer->gate_up_norms, 0), &layer->gate, &unit, gate, ffn, 0,
                   scratch);
    bn_linear_rows(s, bn_input_of(s, layer->gate_up_norms, 1), &layer->up, &unit, up, unit.rows, 0,
                   scratch);
    for (ptrdiff_t t = 0; t < unit.tokens; t++)
        bn_activate(s, gate + t * ffn, up + t * unit.rows, unit.rows);
}

/* ---- output norm and head: one unit per wanted token, then per group of vocabulary rows ----- */

static void bn_stage_output_norm(const bn_step *s, ptrdiff_t i) {
    const bn_network *net = s->net;
    s->kernels->rms_norm(s->x + s->logit_rows[i] * net->hidden, net->output_norm, net->hidden, net->norm_eps,
                         s->normed + i * net->hidden);
}

static void bn_stage_head(const bn_step *s, ptrdiff_t unit, int thread) {
    const ptrdiff_t first = unit * BN_HEAD_UNIT_ROWS;
    const ptrdiff_t left = s->net->vocab - first;
    bn_matrix_rows(s->kernels, &s->net->head, first,
                   left < BN_HEAD_UNIT_ROWS ? left : BN_HEAD_UNIT_ROWS, s->normed, s->n_logits,
                   s->logits + first, s->net->vocab, s->scratch[thread].row);
}

/* The stages of a head: all logits in one, or a search (search.h), where each plane of the screen
 * is a stage that refines and one that narrows. */
enum {
    BN_HEAD_ALL, BN_HEAD_BEGIN, BN_HEAD_ESTIMATE, BN_HEAD_RAISE, BN_HEAD_KEEP, BN_HEAD_PACK,
    BN_HEAD_PLANES,
    BN_HEAD_FINISH = BN_HEAD_PLANES + 2 * BN_SCREEN_PLANES, BN_HEAD_STAGES
};

static ptrdiff_t bn_listed_units(const bn_step *s, int level) {
    ptrdiff_t units = 0;
    for (ptrdiff_t i = 0; i < s->n_logits; i++) units += bn_search_units(&s->searches[i], level);
    return units;
}

static ptrdiff_t bn_head_units(const bn_step *s, int stage) {
    if (!s->n_logits || (stage == BN_HEAD_ALL) != !s->screen) return 0;
    if (!s->screen && !s->logits) return 0; /* only what the head is given is wanted */
    if (stage == BN_HEAD_ALL) return bn_ceil_div(s->net->vocab, BN_HEAD_UNIT_ROWS);
    if (stage == BN_HEAD_ESTIMATE || stage == BN_HEAD_KEEP)
        return bn_ceil_div(s->net->vocab, BN_SEARCH_UNIT_ROWS);
    if (stage == BN_HEAD_FINISH) return bn_listed_units(s, BN_SCREEN_PLANES);
    if (stage < BN_HEAD_PLANES || (stage - BN_HEAD_PLANES) % 2) return s->n_logits;
    return bn_listed_units(s, (stage - BN_HEAD_PLANES) / 2);
}

/* A stage of the search for one token. */
static void bn_search_run(const bn_step *s, int stage, ptrdiff_t token, ptrdiff_t unit,
                          int thread) {
    bn_search *search = &s->searches[token];
    const bn_matrix *head = &s->net->head;
    const float *x = s->normed + token * s->net->hidden;
    float *decoded = s->scratch[thread].row;
    const int plane = (stage - BN_HEAD_PLANES) / 2;
    switch (stage) {
    case BN_HEAD_BEGIN: bn_search_begin(search, s->screen, x); break;
    case BN_HEAD_ESTIMATE: bn_search_estimate(search, s->screen, s->kernels, unit); break;
    case BN_HEAD_RAISE:
        bn_search_raise(search, s->screen, s->kernels, head, x, 0, decoded);
        break;
    case BN_HEAD_KEEP: bn_search_keep(search, s->screen, unit); break;
    case BN_HEAD_PACK: bn_search_pack(search, s->screen); break;
    case BN_HEAD_FINISH: bn_search_finish(search, s->kernels, head, x, unit, decoded); break;
    default:
        if ((stage - BN_HEAD_PLANES) % 2)
            bn_search_narrow(search, s->screen, s->kernels, head, x, plane + 1, decoded);
        else bn_search_refine(search, s->screen, s->kernels, plane, unit);
    }
}

static void bn_head_run(const bn_step *s, int stage, ptrdiff_t unit, int thread) {
    if (stage == BN_HEAD_ALL) {
        bn_stage_head(s, unit, thread);
    } else if (stage == BN_HEAD_ESTIMATE || stage == BN_HEAD_KEEP) { /* of all tokens */
        for (ptrdiff_t token = 0; token < s->n_logits; token++)
            bn_search_run(s, stage, token, unit, thread);
    } else if (stage == BN_HEAD_FINISH ||
               (stage >= BN_HEAD_PLANES && (stage - BN_HEAD_PLANES) % 2 == 0)) {
        const int level =
            stage == BN_HEAD_FINISH ? BN_SCREEN_PLANES : (stage - BN_HEAD_PLANES) / 2;
        ptrdiff_t token = 0;
        for (; unit >= bn_search_units(&s->searches[token], level); token++)
            unit -= bn_search_units(&s->searches[token], level);
        bn_search_run(s, stage, token, unit, thread);
    } else {
        bn_search_run(s, stage, unit, 0, thread);
    }
}

#endif
