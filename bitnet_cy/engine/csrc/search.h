/* The rows of the output head with the largest logits, exactly, by way of the screen.
 *
 * Estimate all rows, compute the k logits that look largest, and keep the rows whose upper bound
 * reaches the least of those; with each plane of bits the bounds tighten and fewer rows remain; the
 * logits of the last are computed as the full head computes them. What the bounds allow for besides
 * the rest of a row: the rounding of the activations to 15 bits, and that of every float sum, at
 * most cols * 2^-22 * |w| * |x| for any order of its additions.
 */
#ifndef BN_SEARCH_H
#define BN_SEARCH_H

#include "queue.h"
#include "screen.h"

enum { BN_SEARCH_MOST = 64, BN_SEARCH_UNIT_ROWS = 256, BN_SEARCH_UNIT_LISTED = 32,
       BN_SEARCH_CROWDED = 32, BN_SEARCH_CROWD = 3, BN_SEARCH_AHEAD = 6, BN_SEARCH_START = 2 };
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
    double mean;             /* what the mean row adds to a logit, at most: no estimate has it */
    float bound;             /* no row whose upper bound is below it is among the k largest */
    float *estimate;         /* [rows] */
    float *unit_lowest, *unit_highest; /* of a unit's rows: the largest lower and upper bound */
    int32_t *unit_kept;      /* how many of a unit's rows remain after level 0 */
    int32_t *rows;           /* those that remain, ascending */
    ptrdiff_t count[BN_SCREEN_LEVELS]; /* how many remain after each level */
    int start;               /* level of the first estimates, at most BN_SEARCH_START */
    int next_start;          /* of the next search: higher where too many remained */
    int crowded;             /* so many searches to come do not try a lower one */
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

/* What the mean row adds to a logit beside the exact columns, rounded up. */
static inline double bn_search_mean(const bn_search *q, const bn_screen *screen) {
    double sum = 0, magnitude = 0;
    for (ptrdiff_t i = 0; i < screen->cols; i++) {
        const double product = (double)screen->mean[i] * q->rest[i];
        sum += product;
        magnitude += fabs(product);
    }
    return sum + magnitude * 1e-9;
}

/* x: the normalized activations [cols]. Where they are not finite no row is excluded. */
static inline void bn_search_begin(bn_search *q, const bn_screen *screen, const float *x) {
    const ptrdiff_t n = screen->cols, padded = screen->groups * BN_SCREEN_GROUP;
    if (q->crowded > 0) q->crowded--;
    else if (q->next_start > 0) q->next_start--;
    q->start = q->next_start;
    memcpy(q->rest, x, (size_t)n * sizeof *x);
    memset(q->rest + n, 0, (size_t)(padded - n) * sizeof *x);
    for (int i = 0; i < screen->n_exact; i++) {
        q->exact[i] = x[screen->exact_cols[i]];
        q->rest[screen->exact_cols[i]] = 0;
    }
    float largest = 0;
    int finite = 1;
    q->bound = -INFINITY;
    q->mean = bn_search_mean(q, screen);
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

static inline void bn_search_estimate(bn_search *q, const bn_screen *screen,
                                      const bn_kernels *kernels, ptrdiff_t unit) {
    const ptrdiff_t first = unit * BN_SEARCH_UNIT_ROWS, left = screen->rows - first;
    const ptrdiff_t rows = left < BN_SEARCH_UNIT_ROWS ? left : BN_SEARCH_UNIT_ROWS;
    const bn_screen_query x = {q->high, q->low, q->high_sums, q->low_sums};
    const bn_screen_row row = bn_screen_row_of(screen, first);
    int64_t sums[BN_SEARCH_UNIT_ROWS][2];
    float exact[BN_SEARCH_UNIT_ROWS], lowest = -INFINITY, highest = -INFINITY;
    memset(exact, 0, sizeof exact);
    const int start = q->start;
    kernels->screen_sums(row.nibbles, (const uint8_t *const *)row.planes, start, row.steps,
                         (int)rows, screen->groups, &x, sums);
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

/* What refining a row reads: rows that remain lie apart, and the CPU does not foresee them. */
static inline void bn_search_fetch(const bn_screen *screen, int plane, ptrdiff_t r) {
    const bn_screen_row row = bn_screen_row_of(screen, r);
    const ptrdiff_t bits = screen->groups * (BN_SCREEN_GROUP / 8);
    for (ptrdiff_t i = 0; i < bits; i += BN_LINE) bn_prefetch(row.planes[plane] + i);
    for (ptrdiff_t i = 0; i < bits / 4; i += BN_LINE) bn_prefetch(row.steps + i);
}

/* One more bit for listed rows of a unit: half a cell up or down. */
static inline void bn_search_refine(bn_search *q, const bn_screen *screen,
                                    const bn_kernels *kernels, int plane, ptrdiff_t unit) {
    const bn_screen_query x = {q->high, q->low, q->high_sums, q->low_sums};
    const ptrdiff_t first = unit * BN_SEARCH_UNIT_LISTED, left = q->count[plane] - first;
    const double cell = (double)q->unit / (2 << plane);
    const ptrdiff_t end = first + (left < BN_SEARCH_UNIT_LISTED ? left : BN_SEARCH_UNIT_LISTED);
    for (ptrdiff_t i = first; i < end; i++) {
        const ptrdiff_t r = q->rows[i];
        const bn_screen_row row = bn_screen_row_of(screen, r);
        int64_t sums[1][2];
        if (i + BN_SEARCH_AHEAD < q->count[plane])
            bn_search_fetch(screen, plane, q->rows[i + BN_SEARCH_AHEAD]);
        const uint8_t *bits = row.planes[plane];
        kernels->screen_sums(NULL, &bits, 1, row.steps, 1, screen->groups, &x, sums);
        double codes = (double)sums[0][0] - 0.5 * (double)sums[0][1];
        q->estimate[r] += (float)(codes * screen->step[r] * cell);
    }
}

/* ---- who remains ----------------------------------------------------------------------------- */

/* Rows by a value, the k with the largest as a heap with the least at [0]. */
typedef struct bn_ranked {
    float value;
    int32_t row;
} bn_ranked;

static inline void bn_heap_push(bn_ranked *heap, ptrdiff_t k, float value, ptrdiff_t row) {
    ptrdiff_t i = 0;
    if (!(value > heap[0].value)) return;
    for (ptrdiff_t child; (child = 2 * i + 1) < k; i = child) {
        if (child + 1 < k && heap[child + 1].value < heap[child].value) child++;
        if (value <= heap[child].value) break;
        heap[i] = heap[child];
    }
    heap[i].value = value;
    heap[i].row = (int32_t)row;
}

/* The k rows with the largest lower bounds, of those that remain; row -1 where there are fewer. */
static inline void bn_search_rank(const bn_search *q, const bn_screen *screen, int level,
                                  bn_ranked *heap) {
    const int bits = level > q->start ? level : q->start;
    for (ptrdiff_t i = 0; i < q->k; i++) heap[i].value = -INFINITY, heap[i].row = -1;
    const ptrdiff_t count = level ? q->count[level - 1] : screen->rows;
    for (ptrdiff_t i = 0; i < count; i++) {
        if (!level && i % BN_SEARCH_UNIT_ROWS == 0 &&
            !(q->unit_lowest[i / BN_SEARCH_UNIT_ROWS] > heap[0].value)) {
            i += BN_SEARCH_UNIT_ROWS - 1;
            continue;
        }
        const ptrdiff_t r = level ? q->rows[i] : i;
        if (q->listed && q->listed[r]) continue;
        bn_heap_push(heap, q->k, q->estimate[r] - bn_search_radius(q, screen, bits, r), r);
    }
}

/* Raise the bound to the k-th largest lower bound, and to the least of the logits of those rows:
 * a logit is known twice as well as a bound says. */
static inline void bn_search_raise(bn_search *q, const bn_screen *screen, const bn_kernels *kernels,
                                   const bn_matrix *head, const float *x, int level,
                                   float *decoded) {
    bn_ranked heap[BN_SEARCH_MOST];
    bn_search_rank(q, screen, level, heap);
    if (heap[0].value > q->bound) q->bound = heap[0].value;
    double least = INFINITY;
    for (ptrdiff_t i = 0; i < q->k; i++) {
        float logit = NAN;
        if (heap[i].row >= 0)
            bn_matrix_rows(kernels, head, heap[i].row, 1, x, 1, &logit, 0, decoded);
        if (isnan(logit)) return;
        if (logit < least) least = logit;
    }
    const double bound = least - q->mean;
    const float rounded_down = (float)(bound - fabs(bound) * 1e-6);
    if (rounded_down > q->bound) q->bound = rounded_down;
}

/* Whether a row can still be among the k largest, or is wanted beside them. */
static inline int bn_search_keeps(const bn_search *q, const bn_screen *screen, int bits,
                                  ptrdiff_t r) {
    const float upper = q->estimate[r] + bn_search_radius(q, screen, bits, r);
    return !(upper < q->bound) || (q->listed && q->listed[r]);
}

/* Of all rows: those of a unit that remain, where the unit's rows would stand. */
static inline void bn_search_keep(bn_search *q, const bn_screen *screen, ptrdiff_t unit) {
    const ptrdiff_t first = unit * BN_SEARCH_UNIT_ROWS, left = screen->rows - first;
    const ptrdiff_t end = first + (left < BN_SEARCH_UNIT_ROWS ? left : BN_SEARCH_UNIT_ROWS);
    int32_t kept = 0;
    if (!(q->unit_highest[unit] < q->bound))
        for (ptrdiff_t r = first; r < end; r++)
            if (bn_search_keeps(q, screen, q->start, r)) q->rows[first + kept++] = (int32_t)r;
    q->unit_kept[unit] = kept;
}

/* Move what every unit kept together. */
static inline void bn_search_pack(bn_search *q, const bn_screen *screen) {
    ptrdiff_t kept = 0;
    for (ptrdiff_t first = 0; first < screen->rows; first += BN_SEARCH_UNIT_ROWS) {
        const int32_t count = q->unit_kept[first / BN_SEARCH_UNIT_ROWS];
        memmove(q->rows + kept, q->rows + first, (size_t)count * sizeof *q->rows);
        kept += count;
    }
    q->count[0] = kept;
    if (q->start < BN_SEARCH_START && kept > screen->rows / BN_SEARCH_CROWD) {
        q->next_start = q->start + 1;
        q->crowded = BN_SEARCH_CROWDED;
    }
}

/* Keep the rows of the list that can still be among the k largest, and the listed ones. */
static inline void bn_search_narrow(bn_search *q, const bn_screen *screen,
                                    const bn_kernels *kernels, const bn_matrix *head,
                                    const float *x, int level, float *decoded) {
    const ptrdiff_t count = q->count[level - 1];
    q->count[level] = count;
    if (level <= q->start || count <= q->k + BN_SEARCH_UNIT_LISTED)
        return; /* nothing new is known, or they are few enough to compute */
    bn_search_raise(q, screen, kernels, head, x, level, decoded);
    ptrdiff_t kept = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        const int32_t r = q->rows[i];
        if (bn_search_keeps(q, screen, level, r)) q->rows[kept++] = r;
    }
    q->count[level] = kept;
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
