# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Workspace: scratch memory for a block of tokens, and the forward step that runs in it."""

import numpy as np

from cython.parallel cimport prange

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from bitnet_cy.engine.kernels cimport active_kernels, has_wide
from bitnet_cy.engine.native cimport *
from bitnet_cy.engine.network cimport Network
from bitnet_cy.engine.screen cimport BN_SCREEN_PLANES, Screen, Searches, bn_search

from bitnet_cy.engine.weights import aligned_bytes
from bitnet_cy.errors import ResourceError


cdef extern from "csrc/forward.h" nogil:
    enum:
        BN_GEMV_UNIT_ROWS
        BN_STAGE_KINDS

    ptrdiff_t bn_attention_scratch(const bn_network *) noexcept
    ptrdiff_t bn_n_stages(const bn_network *) noexcept
    const char *bn_stage_kind_name(int) noexcept
    void bn_work(const bn_step *, bn_share *, int, int) noexcept


cdef void forward(const bn_step *s, bn_share *shares, int threads) noexcept nogil:
    """One block of tokens through the whole network, in one parallel region.

    The workers share the row tiles of one stage after the other (csrc/forward.h); which one computes
    a tile makes no difference to it.
    """
    cdef int worker
    memset(shares, 0, bn_n_stages(s.net) * threads * sizeof(bn_share))
    for worker in prange(threads, num_threads=threads, schedule="static", chunksize=1):
        bn_work(s, shares, worker, threads)


cdef class Workspace:
    """Scratch memory for up to `rows` tokens in one step, of any number of sequences.

    Nothing is allocated while a step runs. It serves one step at a time.
    """

    def __cinit__(self, Network network not None, int threads, Py_ssize_t rows):
        self.network, self.threads, self.rows = network, threads, rows
        self.owned = []
        self.searches = Searches()
        self.scratch = <bn_scratch *>calloc(threads, sizeof(bn_scratch))
        self.spans = <bn_span *>calloc(rows, sizeof(bn_span))
        if self.scratch == NULL or self.spans == NULL:
            raise ResourceError(f"no memory for {threads} threads and {rows} tokens")
        self._allocate()

    def __dealloc__(self):
        free(self.scratch)
        free(self.spans)

    cdef void *_new(self, Py_ssize_t n_bytes) except NULL:
        cdef uint8_t[::1] view = aligned_bytes(max(n_bytes, 64))
        self.owned.append(view)
        self.nbytes += view.shape[0]
        return &view[0]

    cdef _allocate(self):
        cdef bn_step *s = &self.step
        cdef const bn_network *n = &self.network.native
        cdef Py_ssize_t heads = n.n_heads * n.head_dim, rows = self.rows
        cdef Py_ssize_t widest = max(n.hidden, heads, n.ffn)
        cdef Py_ssize_t k_max = (widest + BN_BLOCK - 1) // BN_BLOCK * BN_BLOCK
        cdef Py_ssize_t padded = (rows + 63) // 64 * 64
        s.net, s.scratch, s.spans = n, self.scratch, self.spans
        self.shares = <bn_share *>self._new(bn_n_stages(n) * self.threads * sizeof(bn_share))
        self.ids = np.zeros(rows, dtype=np.int32)
        self.logit_rows = np.zeros(rows, dtype=np.int32)
        s.ids, s.logit_rows = &self.ids[0], &self.logit_rows[0]
        s.x = <float *>self._new(rows * n.hidden * 4)
        s.rope = <float *>self._new(n.n_ropes * rows * n.head_dim * 4)
        s.qkv = <float *>self._new(rows * (heads + 2 * n.n_kv_heads * n.head_dim) * 4)
        s.attended = <float *>self._new(rows * heads * 4)
        s.gated = <float *>self._new(rows * n.ffn * 4)
        s.normed = <float *>self._new(rows * n.hidden * 4)
        cdef ptrdiff_t l
        for l in range(n.n_layers):
            if s.branch == NULL and (n.layers[l].attn_post_norm != NULL
                                     or n.layers[l].ffn_post_norm != NULL):
                s.branch = <float *>self._new(rows * n.hidden * 4)
        self._allocate_inputs(padded, k_max)
        self._allocate_scratch(padded, k_max)

    cdef _allocate_inputs(self, Py_ssize_t padded, Py_ssize_t k_max):
        cdef const bn_network *n = &self.network.native
        cdef int i, wanted = 1
        cdef ptrdiff_t l
        for l in range(n.n_layers):
            if n.layers[l].qkv_norms[0] != NULL:
                wanted = BN_INPUTS
        for i in range(wanted):
            if n.weight_only:
                self.step.inputs[i].values = <float *>self._new(padded * k_max * 4)
                continue
            self.step.inputs[i].q = <int8_t *>self._new(padded * k_max)
            self.step.inputs[i].sums = <int32_t *>self._new(padded * 4)
            self.step.inputs[i].scales = <float *>self._new(padded * 4)

    cdef _allocate_scratch(self, Py_ssize_t padded, Py_ssize_t k_max):
        cdef const bn_network *n = &self.network.native
        cdef int thread
        # Room for every kernel of the table: which one runs is chosen anew for each step.
        cdef bint wide = has_wide() and self.rows >= BN_WIDE_LEAST and not n.weight_only
        at_once = BN_WIDE_ROWS if wide else BN_GEMM_ROWS
        tile = max(BN_GEMM_ROWS * padded, BN_GEMV_UNIT_ROWS * BN_GEMV_TOKENS,
                   BN_WIDE_ROWS * BN_WIDE_TOKENS if wide else 0)
        for thread in range(self.threads):
            self.scratch[thread].decoded = <uint8_t *>self._new(
                max(max(BN_GEMM_ROWS, 4 * BN_FLOAT_ROWS if n.weight_only else 0) * k_max,
                    BN_WIDE_SCRATCH if wide else 0))
            if n.dense:
                self.scratch[thread].unpacked = <uint8_t *>self._new(at_once * k_max // 4)
            self.scratch[thread].tile = <int32_t *>self._new(tile * 4)
            self.scratch[thread].up = <float *>self._new(tile * 4)
            self.scratch[thread].row = <float *>self._new(k_max * 4)
            self.scratch[thread].input_row = <float *>self._new(k_max * 4)
            self.scratch[thread].row_q = <int8_t *>self._new(k_max)
            self.scratch[thread].attention = <float *>self._new(bn_attention_scratch(n) * 4)

    cdef time_stages(self, bint on):
        self.stage_ns = np.zeros(BN_STAGE_KINDS, dtype=np.int64)
        self.step.stage_ns = &self.stage_ns[0] if on else NULL

    cdef dict stage_seconds(self):
        cdef int kind
        if self.step.stage_ns == NULL:
            return {}
        return {bn_stage_kind_name(kind).decode(): self.stage_ns[kind] * 1e-9
                for kind in range(BN_STAGE_KINDS)}

    cdef run(self, Py_ssize_t n_spans, Py_ssize_t n_logits, float[:, ::1] out, int threads,
             bint hidden=False):
        """Run the first n_spans spans; the logits of the first n_logits logit_rows go to out.

        hidden: instead of their logits, what the head would be given.
        """
        cdef bn_step *s = &self.step
        cdef float *normed = s.normed
        s.screen, s.logits = NULL, NULL
        if n_logits and hidden:
            s.normed = &out[0, 0]
        elif n_logits:
            s.logits = &out[0, 0]
        self._forward(n_spans, n_logits, threads)
        s.normed = normed

    cdef list search(self, Py_ssize_t n_spans, asks, int threads):
        """Like run, with one (k, listed) for each of the logit_rows; what their searches find.

        [(ids, logits)]: ids, int32, ascend; they hold those of the k largest logits, those listed
        (uint8 [vocab], or None), and maybe more.
        """
        cdef Screen screen = self.network.screen
        cdef const bn_search *q
        cdef Py_ssize_t i, n
        self.searches.prepare(screen, asks)
        self.step.screen, self.step.searches = &screen.native, self.searches.native
        self._forward(n_spans, len(asks), threads)
        found = []
        for i in range(len(asks)):
            q = &self.searches.native[i]
            n = q.count[BN_SCREEN_PLANES]
            found.append((np.array(<int32_t[:n]>q.rows), np.array(<float[:n]>q.logits)))
        return found

    cdef sample(self):
        """float32 [hidden]: what the head saw last, or zeros."""
        cdef Py_ssize_t hidden = self.network.native.hidden
        return np.array(<float[:hidden]>(self.step.normed + max(self.step.n_logits - 1, 0) * hidden))

    cdef _forward(self, Py_ssize_t n_spans, Py_ssize_t n_logits, int threads):
        cdef bn_step *s = &self.step
        cdef const bn_span *last = &self.spans[n_spans - 1]
        s.kernels = active_kernels()
        s.n_spans, s.tokens = n_spans, last.first + last.tokens
        s.threads = threads
        s.n_logits = n_logits
        with nogil:
            forward(s, self.shares, threads)
