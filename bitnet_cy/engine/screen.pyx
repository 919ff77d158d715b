# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Screen: a small copy of the output head that finds the largest logits, exactly (csrc/screen.h)."""

import threading

import numpy as np

from cython.parallel cimport parallel, prange, threadid

from libc.math cimport sqrt
from libc.stdlib cimport calloc, free

from bitnet_cy.engine.kernels cimport active_kernels
from bitnet_cy.engine.native cimport *
from bitnet_cy.engine.network cimport Network

from bitnet_cy.engine.weights import aligned_bytes
from bitnet_cy.errors import ResourceError


cdef extern from "csrc/search.h" nogil:
    void bn_screen_add(const bn_screen *, const bn_kernels *, const bn_matrix *, ptrdiff_t,
                       float *) noexcept
    void bn_decode_row(const bn_kernels *, const bn_matrix *, ptrdiff_t, float *) noexcept

_making = threading.Lock()
MOST = BN_SEARCH_MOST  # rows a search can be asked for
_SAMPLED_ROWS = 1024  # for the mean row: any vector is right, this one is near
_SHARE = 0.1  # columns keep their values if together they hold this share of a sample's energy


def supports(Network network not None):
    """Whether a head is of a type and width that a screen can be made of."""
    cdef const bn_matrix *head = &network.native.head
    if head.data == NULL or head.cols > BN_SCREEN_COLS:
        return False
    return head.type in (BN_F16, BN_BF16, BN_F32)


def nbytes(Network network not None):
    """The size a screen of the network's head has, but for some padding."""
    cdef const bn_matrix *head = &network.native.head
    codes = -(-head.cols // BN_SCREEN_GROUP) * BN_SCREEN_GROUP
    row = codes // 2 + BN_SCREEN_PLANES * codes // 8 + codes // 32 + 2 * BN_SCREEN_EXACT
    return head.rows * (row + 4 * (BN_SCREEN_LEVELS + 2))


def make(Network network not None, sample, int threads):
    """Give a network its screen, unless it has one. Sessions use it from their next step on."""
    with _making:
        if network.screen is None:
            network.screen = Screen(network, sample, threads)


cdef class Screen:
    """The screen of a network's head; nbytes are its size.

    sample: float32 [hidden_size], activations that the head saw, or zeros. The columns where they
    are largest are kept as they are; what is found does not depend on it, only how soon.
    """

    def __cinit__(self, Network network not None, sample, int threads):
        cdef bn_screen *s = &self.native
        cdef const bn_matrix *head = &network.native.head
        cdef Py_ssize_t r
        s.rows, s.cols = head.rows, head.cols
        s.groups = (head.cols + BN_SCREEN_GROUP - 1) // BN_SCREEN_GROUP
        self.owned = []
        cdef float[::1] mean = _mean_row(head)
        self.owned.append(mean)
        s.mean, s.mean_norm = &mean[0], sqrt(np.square(mean, dtype=np.float64).sum())
        cdef int32_t[::1] columns = _largest_columns(sample) if head.type == BN_F16 else None
        if columns is not None:
            self.owned.append(columns)
            s.exact_cols, s.n_exact = &columns[0], columns.shape[0]
        try:
            self._allocate()
        except MemoryError:
            raise ResourceError("no memory for the screen of the output head; load the model with "
                                "head='full'") from None
        cdef float[:, ::1] scratch = np.empty((threads, s.groups * BN_SCREEN_GROUP), np.float32)
        with nogil, parallel(num_threads=threads):
            for r in prange(s.rows, schedule="dynamic", chunksize=256):
                bn_screen_add(s, active_kernels(), head, r, &scratch[threadid(), 0])

    cdef void *_new(self, Py_ssize_t n_bytes) except NULL:
        cdef uint8_t[::1] view = aligned_bytes(max(n_bytes, 64))
        self.owned.append(view)
        self.nbytes += view.shape[0]
        return &view[0]

    cdef _allocate(self):
        cdef bn_screen *s = &self.native
        cdef Py_ssize_t codes = s.rows * s.groups * BN_SCREEN_GROUP
        cdef int i
        s.nibbles = <uint8_t *>self._new(codes // 2)
        for i in range(BN_SCREEN_PLANES):
            s.planes[i] = <uint8_t *>self._new(codes // 8)
        s.steps = <uint8_t *>self._new(codes // 32)
        s.exact = <uint16_t *>self._new(s.rows * s.n_exact * 2)
        s.step = <float *>self._new(s.rows * 4)
        s.norm = <float *>self._new(s.rows * 4)
        for i in range(BN_SCREEN_LEVELS):
            s.error[i] = <float *>self._new(s.rows * 4)


cdef _mean_row(const bn_matrix *head):
    """float32 [cols]: the mean of rows from all over the head, zeros where it is not finite."""
    cdef Py_ssize_t count = min(head.rows, _SAMPLED_ROWS), i
    rows = np.empty((count, head.cols), np.float32)
    cdef float[:, ::1] view = rows
    for i in range(count):
        bn_decode_row(active_kernels(), head, i * head.rows // count, &view[i, 0])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.where(np.abs(mean) < 1e18, mean, np.float32(0))


def _largest_columns(sample):
    """int32: the columns that hold much of a sample's energy, or None."""
    energy = np.square(sample, dtype=np.float64)
    if len(energy) < 8 * BN_SCREEN_EXACT or not np.isfinite(energy.sum()):
        return None
    columns = np.argpartition(energy, -BN_SCREEN_EXACT)[-BN_SCREEN_EXACT:]
    if not energy[columns].sum() > _SHARE * energy.sum():
        return None
    return np.sort(columns).astype(np.int32)


cdef class Searches:
    """Memory for the searches of a step, one for each token; grows when more are needed."""

    def __cinit__(self):
        self.owned = []

    def __dealloc__(self):
        free(self.native)

    cdef void *_new(self, Py_ssize_t n_bytes) except NULL:
        cdef uint8_t[::1] view = aligned_bytes(max(n_bytes, 64))
        self.owned.append(view)
        self.nbytes += view.shape[0]
        return &view[0]

    cdef prepare(self, Screen screen, asks):
        """Set up one search for each (k, listed): the k largest rows, and those where listed,
        uint8 [rows] or None, is not 0."""
        cdef const uint8_t[::1] flags
        cdef Py_ssize_t i
        self._grow(&screen.native, len(asks))
        for i, (k, listed) in enumerate(asks):
            flags = listed
            self.native[i].k = min(k, screen.native.rows)
            self.native[i].listed = &flags[0] if listed is not None else NULL

    cdef _grow(self, const bn_screen *screen, Py_ssize_t count):
        cdef Py_ssize_t padded = screen.groups * BN_SCREEN_GROUP, i
        cdef Py_ssize_t units = (screen.rows + BN_SEARCH_UNIT_ROWS - 1) // BN_SEARCH_UNIT_ROWS
        cdef bn_search *q
        if count <= self.room:
            return
        free(self.native)
        self.owned, self.nbytes, self.room = [], 0, 0
        self.native = <bn_search *>calloc(count, sizeof(bn_search))
        if self.native == NULL:
            raise ResourceError(f"no memory for the searches of {count} tokens")
        for i in range(count):
            q = &self.native[i]
            q.rest = <float *>self._new(padded * 4)
            q.high = <int8_t *>self._new(padded)
            q.low = <int8_t *>self._new(padded)
            q.high_sums = <int16_t *>self._new(padded // 32 * 2)
            q.low_sums = <int16_t *>self._new(padded // 32 * 2)
            q.estimate = <float *>self._new(screen.rows * 4)
            q.unit_lowest = <float *>self._new(units * 4)
            q.unit_highest = <float *>self._new(units * 4)
            q.unit_kept = <int32_t *>self._new(units * 4)
            q.rows = <int32_t *>self._new(screen.rows * 4)
            q.logits = <float *>self._new(screen.rows * 4)
        self.room = count
