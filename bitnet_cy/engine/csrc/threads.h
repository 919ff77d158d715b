/* Whether this build has OpenMP, and the barrier between the stages of a step.
 * (Cython gives a prange inside a parallel block no barrier of its own.) */
#ifndef BN_THREADS_H
#define BN_THREADS_H

#ifdef _OPENMP
static inline int bn_openmp(void) { return 1; }
#else
static inline int bn_openmp(void) { return 0; }
#endif

static inline void bn_barrier(void) {
#if defined(_OPENMP) && defined(_MSC_VER) && !defined(__clang__)
    __pragma(omp barrier)
#elif defined(_OPENMP)
    _Pragma("omp barrier")
#endif
}

#endif
