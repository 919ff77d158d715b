from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

from bitnet_cy.engine.native cimport bn_kernels, bn_network
from bitnet_cy.engine.network cimport Network
from bitnet_cy.engine.screen cimport Searches, bn_screen, bn_search


cdef extern from "csrc/step.h" nogil:
    ctypedef enum bn_kv_type:
        BN_KV_F32
        BN_KV_F16
        BN_KV_I8

    ctypedef struct bn_span:
        ptrdiff_t first
        ptrdiff_t tokens
        ptrdiff_t start
        ptrdiff_t context
        ptrdiff_t layer_stride
        void *keys
        void *values
        float *key_scales
        float *value_scales
        bn_kv_type type

    ctypedef struct bn_scratch:
        uint8_t *decoded
        uint8_t *unpacked
        int32_t *tile
        float *up
        float *row
        float *input_row
        int8_t *row_q
        float *attention

    ctypedef struct bn_input:
        int8_t *q
        int32_t *sums
        float *scales
        float *values

    enum:
        BN_INPUTS
        BN_FLOAT_ROWS

    ctypedef struct bn_step:
        const bn_network *net
        const bn_kernels *kernels
        bn_scratch *scratch
        int threads
        ptrdiff_t tokens
        ptrdiff_t n_spans
        const bn_span *spans
        const int32_t *ids
        float *x
        float *branch
        float *rope
        float *qkv
        float *attended
        float *gated
        bn_input inputs[3]
        ptrdiff_t n_logits
        const int32_t *logit_rows
        float *normed
        float *logits
        const bn_screen *screen
        bn_search *searches
        int64_t *stage_ns

cdef extern from "csrc/queue.h" nogil:
    ctypedef struct bn_share:
        pass


cdef class Workspace:
    cdef bn_step step
    cdef bn_scratch *scratch
    cdef bn_span *spans
    cdef bn_share *shares
    cdef list owned
    cdef int32_t[::1] ids
    cdef int32_t[::1] logit_rows
    cdef int64_t[::1] stage_ns
    cdef Searches searches
    cdef readonly Network network
    cdef readonly int threads
    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t nbytes

    cdef time_stages(self, bint on)
    cdef dict stage_seconds(self)
    cdef void *_new(self, Py_ssize_t n_bytes) except NULL
    cdef _allocate(self)
    cdef _allocate_inputs(self, Py_ssize_t padded, Py_ssize_t k_max)
    cdef _allocate_scratch(self, Py_ssize_t padded, Py_ssize_t k_max)
    cdef run(self, Py_ssize_t n_spans, Py_ssize_t n_logits, float[:, ::1] out, int threads,
             bint hidden=*)
    cdef list search(self, Py_ssize_t n_spans, asks, int threads)
    cdef sample(self)
    cdef _forward(self, Py_ssize_t n_spans, Py_ssize_t n_logits, int threads)
