/* Whether this build has OpenMP. */
#ifndef BN_THREADS_H
#define BN_THREADS_H

#ifdef _OPENMP
static int bn_openmp(void) { return 1; }
#else
static int bn_openmp(void) { return 0; }
#endif

#endif
