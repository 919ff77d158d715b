# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Session: the key-value cache and scratch memory of one generation, and the forward step."""

import numpy as np

from cython.parallel cimport parallel, prange, threadid

from libc.stdlib cimport calloc, free

from bitnet_cy.engine.kernels cimport active_kernels
from bitnet_cy.engine.native cimport *
from bitnet_cy.engine.network cimport Network

from bitnet_cy.engine.weights import aligned_bytes
from bitnet_cy.errors import BitNetError, ContextError, OptionError, ResourceError


cdef extern from "csrc/attention.h" nogil:
    enum:
        BN_GEMM_UNIT_ROWS
        BN_GEMV_UNIT_ROWS

    ctypedef struct bn_scratch:
        uint8_t *decoded
        int32_t *tile
        float *row
        int8_t *row_q
        float *attention

    ctypedef struct bn_step:
        const bn_network *net
        const bn_kernels *kernels
        bn_scratch *scratch
        ptrdiff_t tokens
        ptrdiff_t start
        ptrdiff_t context
        ptrdiff_t k_max
        const int32_t *ids
        float *x
        float *rope
        float *qkv
        float *attended
        float *gated
        int8_t *q
        int32_t *q_sums
        float *q_scales
        void *keys
        void *values
        int kv_f16
        ptrdiff_t n_logits
        float *normed
        float *logits

    void bn_stage_embed(const bn_step *, ptrdiff_t) noexcept
    ptrdiff_t bn_prepare_units(const bn_step *) noexcept
    void bn_stage_prepare(const bn_step *, const float *, ptrdiff_t, const float *, ptrdiff_t,
                          int) noexcept
    ptrdiff_t bn_linear_units(const bn_step *, const bn_linear *) noexcept
    void bn_stage_linear(const bn_step *, const bn_linear *, ptrdiff_t, float *, ptrdiff_t, int,
                         int) noexcept
    ptrdiff_t bn_qkv_units(const bn_step *, const bn_layer *) noexcept
    void bn_stage_qkv(const bn_step *, const bn_layer *, ptrdiff_t, int) noexcept
    void bn_stage_rope(const bn_step *, ptrdiff_t, ptrdiff_t) noexcept
    ptrdiff_t bn_attention_units(const bn_step *) noexcept
    void bn_stage_attention(const bn_step *, ptrdiff_t, ptrdiff_t, int) noexcept
    ptrdiff_t bn_attention_scratch(ptrdiff_t, ptrdiff_t) noexcept
    void bn_stage_gate_up(const bn_step *, const bn_layer *, ptrdiff_t, int) noexcept
    void bn_stage_output_norm(const bn_step *, ptrdiff_t) noexcept
    ptrdiff_t bn_head_units(const bn_step *) noexcept
    void bn_stage_head(const bn_step *, ptrdiff_t, int) noexcept

cdef extern from "csrc/threads.h" nogil:
    void bn_barrier() noexcept


cdef void forward(const bn_step *s, int threads) noexcept nogil:
    """One block of tokens through the whole network, in one parallel region.

    Each prange is a stage (csrc/step.h); the next one needs all of it.
    """
    cdef const bn_network *net = s.net
    cdef const bn_layer *layer = net.layers
    cdef ptrdiff_t width = net.n_heads * net.head_dim
    cdef ptrdiff_t l = 0, unit
    with parallel(num_threads=threads):
        for unit in prange(s.tokens, schedule="dynamic"):
            bn_stage_embed(s, unit)
        bn_barrier()
        for l in range(net.n_layers):
            layer = &net.layers[l]
            for unit in prange(bn_prepare_units(s), schedule="dynamic"):
                bn_stage_prepare(s, s.x, net.hidden, layer.attn_norm, unit, threadid())
            bn_barrier()
            for unit in prange(bn_qkv_units(s, layer), schedule="dynamic"):
                bn_stage_qkv(s, layer, unit, threadid())
            bn_barrier()
            for unit in prange(s.tokens, schedule="dynamic"):
                bn_stage_rope(s, l, unit)
            bn_barrier()
            for unit in prange(bn_attention_units(s), schedule="dynamic"):
                bn_stage_attention(s, l, unit, threadid())
            bn_barrier()
            for unit in prange(bn_prepare_units(s), schedule="dynamic"):
                bn_stage_prepare(s, s.attended, width, layer.attn_sub_norm, unit, threadid())
            bn_barrier()
            for unit in prange(bn_linear_units(s, &layer.o), schedule="dynamic"):
                bn_stage_linear(s, &layer.o, unit, s.x, net.hidden, 1, threadid())
            bn_barrier()
            for unit in prange(bn_prepare_units(s), schedule="dynamic"):
                bn_stage_prepare(s, s.x, net.hidden, layer.ffn_norm, unit, threadid())
            bn_barrier()
            for unit in prange(bn_linear_units(s, &layer.gate), schedule="dynamic"):
                bn_stage_gate_up(s, layer, unit, threadid())
            bn_barrier()
            for unit in prange(bn_prepare_units(s), schedule="dynamic"):
                bn_stage_prepare(s, s.gated, net.ffn, layer.ffn_sub_norm, unit, threadid())
            bn_barrier()
            for unit in prange(bn_linear_units(s, &layer.down), schedule="dynamic"):
                bn_stage_linear(s, &layer.down, unit, s.x, net.hidden, 1, threadid())
            bn_barrier()
        for unit in prange(s.n_logits, schedule="dynamic"):
            bn_stage_output_norm(s, unit)
        bn_barrier()
        for unit in prange(bn_head_units(s), schedule="dynamic"):
            bn_stage_head(s, unit, threadid())
        bn_barrier()


cdef class Session:
    """One generation's state. Not for two threads at once; sessions share their network.

    context_length: positions the cache holds; threads: at least 1; kv_dtype: "float16" or
    "float32"; block_size: most tokens of one forward step. Raises OptionError, ResourceError.
    """

    cdef bn_step step
    cdef bn_scratch *scratch
    cdef list owned
    cdef int _threads
    cdef bint busy
    cdef readonly Network network
    cdef readonly Py_ssize_t position
    cdef readonly Py_ssize_t context_length
    cdef readonly Py_ssize_t block_size
    cdef readonly Py_ssize_t nbytes
    cdef readonly Py_ssize_t cache_nbytes

    def __cinit__(self, Network network not None, context_length, threads=1, kv_dtype="float16",
                  block_size=128):
        counts = {"context_length": context_length, "threads": threads, "block_size": block_size}
        for name, value in counts.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**24:
                raise OptionError(f"{name} is {value!r}; a count from 1 to 16777215 is needed")
        if kv_dtype not in ("float16", "float32"):
            raise OptionError(f"kv_dtype is {kv_dtype!r}; choose float16 or float32")
        self.network, self.context_length, self._threads = network, context_length, threads
        self.block_size = min(block_size, context_length)
        self.owned = []
        self.step.net = &network.native
        self.step.context = context_length
        self.step.kv_f16 = kv_dtype == "float16"
        self.scratch = <bn_scratch *>calloc(threads, sizeof(bn_scratch))
        if self.scratch == NULL:
            raise ResourceError(f"no memory for the scratch table of {threads} threads")
        self.step.scratch = self.scratch
        try:
            self._allocate()
        except MemoryError:
            raise ResourceError(
                f"no memory for a context of {context_length} tokens; ask for a smaller one"
            ) from None

    def __dealloc__(self):
        free(self.scratch)

    cdef void *_new(self, Py_ssize_t n_bytes) except NULL:
        cdef uint8_t[::1] view = aligned_bytes(max(n_bytes, 64))
        self.owned.append(view)
        self.nbytes += view.shape[0]
        return &view[0]

    cdef _allocate(self):
        cdef bn_step *s = &self.step
        cdef const bn_network *n = s.net
        cdef Py_ssize_t heads = n.n_heads * n.head_dim, tokens = self.block_size
        cdef Py_ssize_t widest = max(n.hidden, heads, n.ffn)
        cdef Py_ssize_t cells = n.n_layers * n.n_kv_heads * self.context_length * n.head_dim
        cdef Py_ssize_t padded = (tokens + 63) // 64 * 64
        s.k_max = (widest + BN_BLOCK - 1) // BN_BLOCK * BN_BLOCK
        s.keys = self._new(cells * (2 if s.kv_f16 else 4))
        s.values = self._new(cells * (2 if s.kv_f16 else 4))
        self.cache_nbytes = self.nbytes
        s.x = <float *>self._new(tokens * n.hidden * 4)
        s.rope = <float *>self._new(tokens * n.head_dim * 4)
        s.qkv = <float *>self._new(tokens * (heads + 2 * n.n_kv_heads * n.head_dim) * 4)
        s.attended = <float *>self._new(tokens * heads * 4)
        s.gated = <float *>self._new(tokens * n.ffn * 4)
        s.q = <int8_t *>self._new(padded * s.k_max)
        s.q_sums = <int32_t *>self._new(padded * 4)
        s.q_scales = <float *>self._new(padded * 4)
        s.normed = <float *>self._new(tokens * n.hidden * 4)
        self._allocate_scratch(padded)

    cdef _allocate_scratch(self, Py_ssize_t padded):
        cdef bn_step *s = &self.step
        cdef const bn_network *n = s.net
        cdef int thread
        tile = max(BN_GEMM_UNIT_ROWS * padded, BN_GEMV_UNIT_ROWS * BN_GEMV_TOKENS)
        for thread in range(self._threads):
            self.scratch[thread].decoded = <uint8_t *>self._new(BN_GEMM_ROWS * s.k_max)
            self.scratch[thread].tile = <int32_t *>self._new(2 * tile * 4)
            self.scratch[thread].row = <float *>self._new(s.k_max * 4)
            self.scratch[thread].row_q = <int8_t *>self._new(s.k_max)
            self.scratch[thread].attention = <float *>self._new(
                bn_attention_scratch(n.head_dim, n.n_heads // n.n_kv_heads) * 4)

    @property
    def threads(self):
        return self._threads

    def truncate(self, position):
        """Forget every token from this position on."""
        if not 0 <= position <= self.position:
            raise OptionError(f"position is {position}; 0 to {self.position} are in the cache")
        self.position = position

    def forward(self, ids, logits="last", threads=None):
        """Append token ids and run them through the network.

        ids: sequence of int. logits: "last" -> float32 [vocab], "all" -> float32 [T, vocab],
        "none" -> None. threads: fewer than the session has. Raises ContextError where the ids do
        not fit, OptionError for an id outside the vocabulary.
        """
        ids = self._checked_ids(ids)
        if logits not in ("last", "all", "none"):
            raise OptionError(f"logits is {logits!r}; choose last, all or none")
        count = {"last": min(1, len(ids)), "all": len(ids), "none": 0}[logits]
        out = np.empty((count, self.network.shape.vocab_size), dtype=np.float32)
        if self.busy:
            raise BitNetError("this session is in use by another thread; give each thread its own")
        self.busy = True
        try:
            self._run_blocks(ids, out, min(threads or self._threads, self._threads))
        finally:
            self.busy = False
        if logits == "last":
            return out[0] if count else None
        return out if logits == "all" else None

    cdef _checked_ids(self, ids):
        array = np.asarray(ids)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise OptionError(f"token ids are a flat sequence of integers, found {array.dtype} "
                              f"of shape {list(array.shape)}")
        vocab = self.network.shape.vocab_size
        if array.size and not (0 <= array.min() and array.max() < vocab):
            raise OptionError(f"token ids are 0 to {vocab - 1}, found {array.min()} to "
                              f"{array.max()}")
        free_positions = self.context_length - self.position
        if array.size > free_positions:
            raise ContextError(
                f"{array.size} tokens do not fit: the context holds {self.context_length}, "
                f"{self.position} are in use; shorten the prompt or ask for a longer context"
            )
        return array.astype(np.int32)

    cdef _run_blocks(self, ids, out, int threads):
        cdef const int32_t[::1] id_view = ids
        cdef float[:, ::1] out_view = out
        cdef Py_ssize_t total = len(ids), wanted = len(out), start, end, first
        cdef bn_step *s = &self.step
        s.kernels = active_kernels()
        for start in range(0, total, self.block_size):
            end = min(start + self.block_size, total)
            first = max(start, total - wanted)
            s.ids = &id_view[start]
            s.tokens, s.start = end - start, self.position
            s.n_logits = max(0, end - first)
            if s.n_logits:
                s.logits = &out_view[first - (total - wanted), 0]
            with nogil:
                forward(s, threads)
            self.position += end - start
