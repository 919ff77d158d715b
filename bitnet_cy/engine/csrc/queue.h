/* Units of work that threads take in turn, stage after stage, without a barrier.
 *
 * A stage is over when its units are done, not when every thread has arrived: a thread that the
 * system keeps from running (another program has its core) delays the others only by the one unit
 * it holds, and skips what was done meanwhile. Waiting threads spin briefly, then give up the core.
 */
#ifndef BN_QUEUE_H
#define BN_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <windows.h>
typedef volatile LONG bn_counter;
static inline int32_t bn_counter_next(bn_counter *c) { return InterlockedIncrement(c) - 1; }
static inline int32_t bn_counter_read(bn_counter *c) { return InterlockedOr(c, 0); }
static inline void bn_relax(void) { YieldProcessor(); }
static inline void bn_give_up_core(void) { SwitchToThread(); }
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
#endif

enum { BN_SPINS = 300 }; /* some microseconds */

/* One stage's units: how many were taken, how many are done. Zeroed before the step. */
typedef struct bn_stage_queue {
    bn_counter taken, done;
} bn_stage_queue;

/* Wait until all units of a stage are done, by whichever threads. */
static inline void bn_queue_wait(bn_stage_queue *queue, ptrdiff_t units) {
    for (int spins = 0; bn_counter_read(&queue->done) < units; spins++) {
        if (spins < BN_SPINS) bn_relax();
        else bn_give_up_core();
    }
}

#endif
