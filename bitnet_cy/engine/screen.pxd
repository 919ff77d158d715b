from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint16_t


cdef extern from "csrc/search.h" nogil:
    enum:
        BN_SCREEN_PLANES
        BN_SCREEN_LEVELS
        BN_SCREEN_GROUP
        BN_SCREEN_COLS
        BN_SCREEN_EXACT
        BN_SEARCH_MOST
        BN_SEARCH_UNIT_ROWS

    ctypedef struct bn_screen:
        ptrdiff_t rows
        ptrdiff_t cols
        ptrdiff_t groups
        const int32_t *exact_cols
        int n_exact
        const float *mean
        float mean_norm
        uint16_t *exact
        uint8_t *nibbles
        uint8_t *planes[BN_SCREEN_PLANES]
        uint8_t *steps
        float *step
        float *error[BN_SCREEN_LEVELS]
        float *norm

    ctypedef struct bn_search:
        ptrdiff_t k
        const uint8_t *listed
        float *rest
        int8_t *high
        int8_t *low
        int16_t *high_sums
        int16_t *low_sums
        float *estimate
        float *unit_lowest
        float *unit_highest
        int32_t *unit_kept
        int32_t *rows
        ptrdiff_t *count
        float *logits


cdef class Screen:
    cdef bn_screen native
    cdef list owned
    cdef readonly Py_ssize_t nbytes

    cdef void *_new(self, Py_ssize_t n_bytes) except NULL
    cdef _allocate(self)


cdef class Searches:
    cdef bn_search *native
    cdef list owned
    cdef Py_ssize_t room
    cdef readonly Py_ssize_t nbytes

    cdef void *_new(self, Py_ssize_t n_bytes) except NULL
    cdef _grow(self, const bn_screen *screen, Py_ssize_t count)
    cdef prepare(self, Screen screen, asks)
