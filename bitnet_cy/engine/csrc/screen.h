/* A small copy of the output head that bounds every logit, so that few rows need exact ones.
 *
 * Row r of the head is w = mean + exact columns + codes + rest: the mean row adds the same to all
 * logits and is left out; columns whose activations are largest keep their values; the others are
 * 4-bit codes and planes of one bit more each, and the norm of the rest after each is kept. For
 * activations x then |w . x - estimate| <= error * |x|, by Cauchy-Schwarz. Nothing here owns memory.
 */
#ifndef BN_SCREEN_H
#define BN_SCREEN_H

#include <math.h>
#include <string.h>

#include "kernels.h"
#include "matrix.h"

enum { BN_SCREEN_EXACT = 32, BN_SCREEN_LEVELS = BN_SCREEN_PLANES + 1 };

typedef struct bn_screen {
    ptrdiff_t rows, cols, groups;
    const int32_t *exact_cols;  /* [n_exact] */
    int n_exact;                /* 0 or BN_SCREEN_EXACT */
    const float *mean;          /* [cols] */
    float mean_norm;
    uint16_t *exact;            /* [rows][n_exact] float16 */
    uint8_t *nibbles, *planes[BN_SCREEN_PLANES], *steps;
    float *step;                      /* [rows] */
    float *error[BN_SCREEN_LEVELS];   /* [rows] each */
    float *norm;                      /* [rows]: at least |w|, |codes| and |mean| together */
} bn_screen;

static inline bn_screen_row bn_screen_row_of(const bn_screen *screen, ptrdiff_t r) {
    const ptrdiff_t groups = screen->groups;
    bn_screen_row row;
    memset(&row, 0, sizeof row);
    row.nibbles = screen->nibbles + r * groups * (BN_SCREEN_GROUP / 2);
    for (int p = 0; p < BN_SCREEN_PLANES; p++)
        row.planes[p] = screen->planes[p] + r * groups * (BN_SCREEN_GROUP / 8);
    row.steps = screen->steps + r * groups * (BN_SCREEN_GROUP / 32);
    return row;
}

static inline float bn_norm(const float *x, ptrdiff_t n) {
    double sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return (float)sqrt(sum);
}

/* Encode row r of the head; w: scratch of groups * BN_SCREEN_GROUP floats. */
static inline void bn_screen_add(const bn_screen *screen, const bn_kernels *kernels, const bn_matrix *head,
                          ptrdiff_t r, float *w) {
    bn_screen_row row = bn_screen_row_of(screen, r);
    const ptrdiff_t n = screen->cols;
    bn_decode_row(kernels, head, r, w);
    const float norm = bn_norm(w, n);
    uint16_t *exact = screen->exact + r * screen->n_exact;
    for (int i = 0; i < screen->n_exact; i++)
        exact[i] = bn_f32_to_f16_one(w[screen->exact_cols[i]]);
    for (ptrdiff_t i = 0; i < n; i++) w[i] -= screen->mean[i];
    for (int i = 0; i < screen->n_exact; i++) w[screen->exact_cols[i]] = 0;
    memset(w + n, 0, (size_t)(screen->groups * BN_SCREEN_GROUP - n) * sizeof *w);
    kernels->screen_encode(w, screen->groups, &row);
    screen->step[r] = row.step;
    for (int level = 0; level < BN_SCREEN_LEVELS; level++) screen->error[level][r] = row.error[level];
    screen->norm[r] = (2 * (norm + screen->mean_norm) + row.error[0]) * 1.001f;
}

#endif
