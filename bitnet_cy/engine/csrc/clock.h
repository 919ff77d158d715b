/* A clock that never goes back, in nanoseconds. */
#ifndef BN_CLOCK_H
#define BN_CLOCK_H

#include <stdint.h>

#ifdef _WIN32
#include <windows.h>
static inline int64_t bn_nanoseconds(void) {
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (int64_t)((double)ticks.QuadPart * 1e9 / (double)per_second.QuadPart);
}
#else
#include <time.h>
static inline int64_t bn_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#endif

#endif
