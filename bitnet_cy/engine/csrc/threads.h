/* Whether this build has OpenMP. */
#ifndef BN_THREADS_H
#define BN_THREADS_H

#ifdef _OPENMP
static inline int bn_openmp(void) { return 1; }
#else
static inline int bn_openmp(void) { return 0; }
#endif

#endif
