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

static inline int bn_step_uses_panels(const bn_step *s) { return s->tokens > BN_GEMV_TOKENS; }

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
    bn_decode_row(s->kernels, &net->embedding, s->ids[t], s->x + t * net->hidden);
    for (ptrdiff_t i = 0; i < half; i++) {
        double angle = position * net->rope_frequency[i];
        s->rope[(t * half + i) * 2] = (float)cos(angle);
        s->rope[(t * half + i) * 2 + 1] = (float)sin(angle);
    }
}

/* ---- norm and int8 quantization: one unit per token, or per panel of tokens --------------- */

static ptrdiff_t bn_prepare_units(const bn_step *s) {
    return bn_step_uses_panels(s) ? bn_step_panels(s) : s->tokens;
}

static void bn_prepare_row(const bn_step *s, const float *x, ptrdiff_t n, const float *norm,
                           ptrdiff_t t, int8_t *q, const bn_scratch *scratch) {
    const ptrdiff_t padded = bn_ceil_div(n, BN_BLOCK) * BN_BLOCK;
    if (norm) {
        s->kernels->rms_norm(x, norm, n, s->net->norm_eps, scratch->row);
        x = scratch->row;
    }
    s->q_scales[t] = s->kernels->quantize(x, n, q, &s->q_sums[t]);
    memset(q + n, 0, (size_t)(padded - n));
}

/* x: [tokens][n]; norm: n weights, or NULL */
static void bn_stage_prepare(const bn_step *s, const float *x, ptrdiff_t n, const float *norm,
                             ptrdiff_t unit, int thread) {
    const bn_scratch *scratch = &s->scratch[thread];
    const ptrdiff_t padded = bn_ceil_div(n, BN_BLOCK) * BN_BLOCK;
    if (!bn_step_uses_panels(s)) {
        bn_prepare_row(s, x + unit * n, n, norm, unit, s->q + unit * padded, scratch);
        return;
    }
    const ptrdiff_t lanes = s->kernels->lanes;
    int8_t *panel = s->q + unit * lanes * padded;
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        ptrdiff_t t = unit * lanes + lane;
        if (t < s->tokens) {
            bn_prepare_row(s, x + t * n, n, norm, t, scratch->row_q, scratch);
        } else {
            s->q_sums[t] = 0;
            memset(scratch->row_q, 0, (size_t)padded);
        }
        for (ptrdiff_t k4 = 0; k4 < padded / 4; k4++)
            memcpy(panel + (k4 * lanes + lane) * 4, scratch->row_q + k4 * 4, 4);
    }
}

/* ---- ternary linear layers: one unit per group of rows ------------------------------------ */

static ptrdiff_t bn_unit_rows(const bn_step *s, const bn_linear *linear) {
    if (bn_step_uses_panels(s)) return BN_GEMM_UNIT_ROWS;
    ptrdiff_t rows = 32768 / (linear->blocks * BN_BLOCK_BYTES) / 8 * 8;
    return rows < 8 ? 8 : rows > BN_GEMV_UNIT_ROWS ? BN_GEMV_UNIT_ROWS : rows;
}

static ptrdiff_t bn_linear_units(const bn_step *s, const bn_linear *linear) {
    return bn_ceil_div(linear->rows, bn_unit_rows(s, linear));
}

static ptrdiff_t bn_tile_stride(const bn_step *s) {
    return bn_step_uses_panels(s) ? bn_step_panels(s) * s->kernels->lanes : s->tokens;
}

/* tile[r * stride + t] = integer product of row first + r with token t */
static void bn_linear_tile(const bn_step *s, const bn_linear *linear, ptrdiff_t first,
                           ptrdiff_t rows, int32_t *tile, const bn_scratch *scratch) {
    const uint8_t *codes = linear->codes + first * linear->blocks * BN_BLOCK_BYTES;
    if (!bn_step_uses_panels(s)) {
        s->kernels->ternary_gemv(codes, linear->blocks, (int)rows, s->q, (int)s->tokens, s->q_sums,
                                 tile);
        return;
    }
    const ptrdiff_t stride = bn_tile_stride(s);
    for (ptrdiff_t r = 0; r < rows; r += BN_GEMM_ROWS)
        s->kernels->ternary_gemm(codes + r * linear->blocks * BN_BLOCK_BYTES, linear->blocks,
                                 (int)(rows - r < BN_GEMM_ROWS ? rows - r : BN_GEMM_ROWS), s->q,
                                 (int)bn_step_panels(s), s->q_sums, tile + r * stride, stride,
                                 scratch->decoded);
}

static void bn_stage_linear(const bn_step *s, const bn_linear *linear, ptrdiff_t unit, float *y,
                            ptrdiff_t y_stride, int add, int thread) {
    const bn_scratch *scratch = &s->scratch[thread];
    const ptrdiff_t size = bn_unit_rows(s, linear), first = unit * size;
    const ptrdiff_t rows = linear->rows - first < size ? linear->rows - first : size;
    bn_linear_tile(s, linear, first, rows, scratch->tile, scratch);
    s->kernels->scale_tile(scratch->tile, bn_tile_stride(s), rows, s->tokens, linear->scale,
                           s->q_scales, y + first, y_stride, add);
}

static ptrdiff_t bn_qkv_units(const bn_step *s, const bn_layer *layer) {
    return bn_linear_units(s, &layer->q) + bn_linear_units(s, &layer->k) +
           bn_linear_units(s, &layer->v);
}

static void bn_stage_qkv(const bn_step *s, const bn_layer *layer, ptrdiff_t unit, int thread) {
    const bn_linear *parts[3] = {&layer->q, &layer->k, &layer->v};
    const ptrdiff_t width = layer->q.rows + layer->k.rows + layer->v.rows;
    float *y = s->qkv;
    for (int i = 0; i < 3; i++) {
        ptrdiff_t units = bn_linear_units(s, parts[i]);
        if (unit < units) {
            bn_stage_linear(s, parts[i], unit, y, width, 0, thread);
            return;
        }
        unit -= units;
        y += parts[i]->rows;
    }
}

/* gate and up have the same shape: the unit computes both and stores act(gate) * up */
static void bn_stage_gate_up(const bn_step *s, const bn_layer *layer, ptrdiff_t unit, int thread) {
    const bn_scratch *scratch = &s->scratch[thread];
    const ptrdiff_t size = bn_unit_rows(s, &layer->gate), first = unit * size;
    const ptrdiff_t rows = layer->gate.rows - first < size ? layer->gate.rows - first : size;
    const ptrdiff_t stride = bn_tile_stride(s), ffn = s->net->ffn;
    float *gate = s->gated + first, *up = scratch->up;
    bn_linear_tile(s, &layer->gate, first, rows, scratch->tile, scratch);
    s->kernels->scale_tile(scratch->tile, stride, rows, s->tokens, layer->gate.scale, s->q_scales,
                           gate, ffn, 0);
    bn_linear_tile(s, &layer->up, first, rows, scratch->tile, scratch);
    s->kernels->scale_tile(scratch->tile, stride, rows, s->tokens, layer->up.scale, s->q_scales,
                           up, size, 0);
    for (ptrdiff_t t = 0; t < s->tokens; t++)
        if (s->net->activation == BN_RELU2)
            s->kernels->relu2_mul(gate + t * ffn, up + t * size, rows);
        else
            s->kernels->silu_mul(gate + t * ffn, up + t * size, rows);
}

/* ---- output norm and head: one unit per wanted token, then per group of vocabulary rows ----- */

static void bn_stage_output_norm(const bn_step *s, ptrdiff_t i) {
    const bn_network *net = s->net;
    s->kernels->rms_norm(s->x + s->logit_rows[i] * net->hidden, net->output_norm, net->hidden, net->norm_eps,
                         s->normed + i * net->hidden);
}

static ptrdiff_t bn_head_units(const bn_step *s) {
    return s->n_logits ? bn_ceil_div(s->net->vocab, BN_HEAD_UNIT_ROWS) : 0;
}

static void bn_stage_head(const bn_step *s, ptrdiff_t unit, int thread) {
    const ptrdiff_t first = unit * BN_HEAD_UNIT_ROWS;
    const ptrdiff_t left = s->net->vocab - first;
    bn_matrix_rows(s->kernels, &s->net->head, first,
                   left < BN_HEAD_UNIT_ROWS ? left : BN_HEAD_UNIT_ROWS, s->normed, s->n_logits,
                   s->logits + first, s->net->vocab, s->scratch[thread].row);
}

#endif
