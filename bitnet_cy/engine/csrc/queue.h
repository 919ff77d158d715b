/* Units of work that threads share, stage after stage, without a barrier.
 *
 * Every thread has a share of a stage's units, neighbours in memory, and when it has done them it
 * takes what is left of the others' shares. A stage is over when its units are done, not when every
 * thread has arrived: a thread that the system keeps from running (another program has its core)
 * delays the others only by the one unit it holds, and skips what was done meanwhile. Waiting
 * threads spin briefly, then give up the core.
 */
#ifndef BN_QUEUE_H
#define BN_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#include <windows.h>
typedef volatile LONG bn_counter;
static inline int32_t bn_counter_next(bn_counter *c) { return InterlockedIncrement(c) - 1; }
static inline int32_t bn_counter_read(bn_counter *c) { return InterlockedOr(c, 0); }
static inline void bn_relax(void) { YieldProcessor(); }
static inline void bn_give_up_core(void) { SwitchToThread(); }
#if defined(_M_X64)
static inline void bn_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
#else
static inline void bn_prefetch(const void *p) { __prefetch(p); }
#endif
#else
#include <sched.h>
typedef int32_t bn_counter;
static inline int32_t bn_counter_next(bn_counter *c) {
    return __atomic_fetch_add(c, 1, __ATOMIC_ACQ_REL);
}
static inline int32_t bn_counter_read(bn_counter *c) {
    return __atomic_load_n(c, __ATOMIC_ACQUIRE);
}
static inline void bn_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
static inline void bn_give_up_core(void) { sched_yield(); }
static inline void bn_prefetch(const void *p) { __builtin_prefetch(p, 0, 2); }
#endif

enum { BN_SPINS = 300 }; /* some microseconds */
enum { BN_LINE = 64, BN_AHEAD_LINES = 8, BN_AHEAD_FIRST = 8192, BN_AHEAD_BYTES = 65536 };

/* A thread's share of a stage: how many of its units were taken, how many are done. Zeroed before
 * the step; alone in its cache line, since mostly its own thread counts in it. */
typedef struct bn_share {
    bn_counter taken, done;
    char rest_of_line[64 - 2 * sizeof(bn_counter)];
} bn_share;

/* The first unit of thread t's share; that of thread t + 1 is its end. */
static inline ptrdiff_t bn_share_first(ptrdiff_t units, int threads, int t) {
    return units * t / threads;
}

/* The next unit of the share of `owner`, or -1. */
static inline ptrdiff_t bn_share_take(bn_share *stage, ptrdiff_t units, int threads, int owner) {
    const ptrdiff_t first = bn_share_first(units, threads, owner);
    const ptrdiff_t size = bn_share_first(units, threads, owner + 1) - first;
    if (bn_counter_read(&stage[owner].taken) >= size) return -1;
    const ptrdiff_t unit = bn_counter_next(&stage[owner].taken);
    return unit < size ? first + unit : -1;
}

/* Whether all units of a stage are done, by whichever threads. */
static inline int bn_stage_done(bn_share *stage, ptrdiff_t units, int threads) {
    for (int t = 0; t < threads; t++)
        if (bn_counter_read(&stage[t].done) <
            bn_share_first(units, threads, t + 1) - bn_share_first(units, threads, t))
            return 0;
    return 1;
}

/* Wait until a stage is done, and meanwhile bring what comes next from memory: at once so much that
 * its first loads do not wait, more while there is time. ahead: BN_AHEAD_BYTES, or NULL */
static inline void bn_stage_wait(bn_share *stage, ptrdiff_t units, int threads,
                                 const uint8_t *ahead) {
    ptrdiff_t fetched = ahead ? 0 : BN_AHEAD_BYTES;
    for (; fetched < BN_AHEAD_FIRST; fetched += BN_LINE) bn_prefetch(ahead + fetched);
    for (int spins = 0; !bn_stage_done(stage, units, threads); spins++) {
        if (fetched < BN_AHEAD_BYTES) {
            for (int i = 0; i < BN_AHEAD_LINES; i++, fetched += BN_LINE)
                bn_prefetch(ahead + fetched);
        } else if (spins < BN_SPINS) bn_relax();
        else bn_give_up_core();
    }
}

#endif
