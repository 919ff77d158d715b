/* The rows of the output head with the largest logits, exactly, by way of the screen.
 *
 * Estimate all rows, and keep those whose upper bound reaches the k-th largest lower bound; with
 * each plane of bits the bounds of those tighten and fewer remain; the logits of the last are
 * computed as the full head computes them. What the bounds allow for besides the rest of a row:
 * the rounding of the activations to 15 bits, and that of every float sum, at most
 * cols * 2^-22 * |w| * |x| for any order of its additions.
 */
#ifndef BN_SEARCH_H
#define BN_SEARCH_H

#include "screen.h"

enum { BN_SEARCH_MOST = 64, BN_SEARCH_UNIT_ROWS = 256, BN_SEARCH_UNIT_LISTED = 32,
       BN_SEARCH_CROWDED = 32 };
#define BN_SEARCH_RANGE 16256.0f /* 128 * 127: activations become integers up to this */

/* The search for one token. */
typedef struct bn_search {
    ptrdiff_t k;             /* how many of the largest, 1 to BN_SEARCH_MOST */
    const uint8_t *listed;   /* [rows]: not 0 where a row is wanted beside those; or NULL */
    float *rest;             /* activations without the exact columns, [groups * 256] */
    float exact[BN_SCREEN_EXACT];
    int8_t *high, *low;      /* rest = unit * (128 high + low) */
    int16_t *high_sums, *low_sums;
    float unit, reach, slack;
    float *estimate;         /* [rows] */
    float *unit_lowest, *unit_highest; /* of a unit's rows: the largest lower and upper bound */
    int32_t *rows;           /* those that remain, ascending */
    ptrdiff_t count[BN_SCREEN_LEVELS]; /* how many remain after each level */
    int start;               /* level of the first estimates: 1 where level 0 told little of late */
    int crowded;             /* so many searches to come start at level 1 */
    float *logits;           /* of those that remain at the end */
} bn_search;

static inline ptrdiff_t bn_search_units(const bn_search *search, int level) {
    if (level < search->start) return 0;
    return (search->count[level] + BN_SEARCH_UNIT_LISTED - 1) / BN_SEARCH_UNIT_LISTED;
}

/* ---- the query: one unit per wanted token -------------------------------------------------- */

static inline void bn_search_split(const bn_search *q, float largest, ptrdiff_t padded) {
    const float inverse = largest > 0 ? BN_SEARCH_RANGE / largest : 0;
    for (ptrdiff_t b = 0; b < padded / 32; b++) {
        int high_sum = 0, low_sum = 0;
        for (ptrdiff_t i = 32 * b; i < 32 * b + 32; i++) {
            int value = (int)lrintf(q->rest[i] * inverse), high = (value + 64) >> 7;
            q->high[i] = (int8_t)high;
            q->low[i] = (int8_t)(value - 128 * high);
            high_sum += q->high[i];
            low_sum += q->low[i];
        }
        q->high_sums[b] = (int16_t)high_sum;
        q->low_sums[b] = (int16_t)low_sum;
    }
}

/* x: the normalized activations [cols]. Where they are not finite no row is excluded. */
static inline void bn_search_begin(bn_search *q, const bn_screen *screen, const float *x) {
    const ptrdiff_t n = screen->cols, padded = screen->groups * BN_SCREEN_GROUP;
    q->start = q->crowded > 0;
    q->crowded -= q->start;
    memcpy(q->rest, x, (size_t)n * sizeof *x);
    memset(q->rest + n, 0, (size_t)(padded - n) * sizeof *x);
    for (int i = 0; i < screen->n_exact; i++) {
        q->exact[i] = x[screen->exact_cols[i]];
        q->rest[screen->exact_cols[i]] = 0;
    }
    float largest = 0;
    int finite = 1;
    for (ptrdiff_t i = 0; i < n; i++) {
        finite &= fabsf(x[i]) < 1e30f;
        largest = fabsf(q->rest[i]) > largest ? fabsf(q->rest[i]) : largest;
    }
    if (!finite || largest < 1e-30f) { /* too small to divide by: bounded like a rounding */
        bn_search_split(q, 0, padded);
        q->unit = 0;
        q->reach = finite ? bn_norm(x, n) * 2 : INFINITY;
        q->slack = q->reach;
        return;
    }
    bn_search_split(q, largest, padded);
    q->unit = largest / BN_SEARCH_RANGE;
    q->reach = bn_norm(q->rest, n) * 1.001f;
    q->slack = q->unit * sqrtf((float)n) + (float)n * 0x1p-22f * bn_norm(x, n);
}

/* ---- estimates ------------------------------------------------------------------------------ */

static inline float bn_search_radius(const bn_search *q, const bn_screen *screen, int level,
                                     ptrdiff_t row) {
    return (screen->error[level][row] * q->reach + screen->norm[row] * q->slack) * 1.001f;
}

static inline void bn_search_estimate(bn_search *q, const bn_screen *screen, const bn_kernels *kernels,
                               ptrdiff_t unit) {
    const ptrdiff_t first = unit * BN_SEARCH_UNIT_ROWS, left = screen->rows - first;
    const ptrdiff_t rows = left < BN_SEARCH_UNIT_ROWS ? left : BN_SEARCH_UNIT_ROWS;
    const bn_screen_query x = {q->high, q->low, q->high_sums, q->low_sums};
    const bn_screen_row row = bn_screen_row_of(screen, first);
    int64_t sums[BN_SEARCH_UNIT_ROWS][2];
    float exact[BN_SEARCH_UNIT_ROWS], lowest = -INFINITY, highest = -INFINITY;
    memset(exact, 0, sizeof exact);
    const int start = q->start;
    kernels->screen_sums(row.nibbles, start ? row.planes[0] : NULL, row.steps, (int)rows,
                         screen->groups, &x, sums);
    const double cell = (double)q->unit / (1 << start), middle = (double)(8 << start) - 0.5;
    if (screen->n_exact)
        kernels->dot_rows_f16(screen->exact + first * screen->n_exact, screen->n_exact, (int)rows,
                              q->exact, screen->n_exact, exact);
    for (ptrdiff_t i = 0; i < rows; i++) {
        double codes = (double)sums[i][0] - middle * (double)sums[i][1];
        float estimate = (float)(codes * screen->step[first + i] * cell) + exact[i];
        float radius = bn_search_radius(q, screen, start, first + i);
        int listed = q->listed && q->listed[first + i];
        q->estimate[first + i] = estimate;
        if (listed || !(estimate + radius < INFINITY)) highest = INFINITY;
        if (!listed && estimate - radius > lowest) lowest = estimate - radius;
        if (estimate + radius > highest) highest = estimate + radius;
    }
    q->unit_lowest[unit] = lowest;
    q->unit_highest[unit] = highest;
}

/* One more bit for listed rows of a unit: half a cell up or down. */
static inline void bn_search_refine(bn_search *q, const bn_screen *screen, const bn_kernels *kernels,
                             int plane, ptrdiff_t unit) {
    const bn_screen_query x = {q->high, q->low, q->high_sums, q->low_sums};
    const ptrdiff_t first = unit * BN_SEARCH_UNIT_LISTED, left = q->count[plane] - first;
    const double cell = (double)q->unit / (2 << plane);
    const ptrdiff_t end = first + (left < BN_SEARCH_UNIT_LISTED ? left : BN_SEARCH_UNIT_LISTED);
    for (ptrdiff_t i = first; i < end; i++) {
        const ptrdiff_t r = q->rows[i];
        const bn_screen_row row = bn_screen_row_of(screen, r);
        int64_t sums[1][2];
        kernels->screen_sums(NULL, row.planes[plane], row.steps, 1, screen->groups, &x, sums);
        double codes = (double)sums[0][0] - 0.5 * (double)sums[0][1];
        q->estimate[r] += (float)(codes * screen->step[r] * cell);
    }
}

/* ---- who remains ----------------------------------------------------------------------------- */

/* The k largest of what is pushed, as a heap with the least at [0]. */
static inline void bn_heap_push(float *heap, ptrdiff_t k, float value) {
    ptrdiff_t i = 0;
    if (!(value > heap[0])) return;
    for (ptrdiff_t child; (child = 2 * i + 1) < k; i = child) {
        if (child + 1 < k && heap[child + 1] < heap[child]) child++;
        if (value <= heap[child]) break;
        heap[i] = heap[child];
    }
    heap[i] = value;
}

static inline float bn_search_bound(const bn_search *q, const bn_screen *screen, int level) {
    const int bits = level > q->start ? level : q->start;
    float heap[BN_SEARCH_MOST];
    for (ptrdiff_t i = 0; i < q->k; i++) heap[i] = -INFINITY;
    const ptrdiff_t count = level ? q->count[level - 1] : screen->rows;
    for (ptrdiff_t i = 0; i < count; i++) {
        if (!level && i % BN_SEARCH_UNIT_ROWS == 0 &&
            !(q->unit_lowest[i / BN_SEARCH_UNIT_ROWS] > heap[0])) {
            i += BN_SEARCH_UNIT_ROWS - 1;
            continue;
        }
        const ptrdiff_t r = level ? q->rows[i] : i;
        if (q->listed && q->listed[r]) continue;
        bn_heap_push(heap, q->k, q->estimate[r] - bn_search_radius(q, screen, bits, r));
    }
    return heap[0];
}

/* Keep the rows that can still be among the k largest, and the listed ones. */
static inline void bn_search_narrow(bn_search *q, const bn_screen *screen, int level) {
    const ptrdiff_t count = level ? q->count[level - 1] : screen->rows;
    const int bits = level > q->start ? level : q->start;
    if (level && (level == q->start || count <= q->k + BN_SEARCH_UNIT_LISTED)) {
        q->count[level] = count; /* nothing new is known, or they are few enough to compute */
        return;
    }
    const float bound = bn_search_bound(q, screen, level);
    ptrdiff_t kept = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        if (!level && i % BN_SEARCH_UNIT_ROWS == 0 &&
            q->unit_highest[i / BN_SEARCH_UNIT_ROWS] < bound) {
            i += BN_SEARCH_UNIT_ROWS - 1;
            continue;
        }
        const ptrdiff_t r = level ? q->rows[i] : i;
        const float upper = q->estimate[r] + bn_search_radius(q, screen, bits, r);
        if (!(upper < bound) || (q->listed && q->listed[r])) q->rows[kept++] = (int32_t)r;
    }
    q->count[level] = kept;
    if (!bits && kept > screen->rows / 4) q->crowded = BN_SEARCH_CROWDED;
}

/* Exact logits of the rows that remain. */
static inline void bn_search_finish(bn_search *q, const bn_kernels *kernels, const bn_matrix *head,
                             const float *x, ptrdiff_t unit, float *decoded) {
    const ptrdiff_t first = unit * BN_SEARCH_UNIT_LISTED, left = q->count[BN_SCREEN_PLANES] - first;
    const ptrdiff_t end = first + (left < BN_SEARCH_UNIT_LISTED ? left : BN_SEARCH_UNIT_LISTED);
    for (ptrdiff_t i = first; i < end; i++)
        bn_matrix_rows(kernels, head, q->rows[i], 1, x, 1, &q->logits[i], 0, decoded);
}

#endif
