# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Encoder: whole sequences to their hidden states, several in one step."""

import numpy as np

from bitnet_cy.engine.native cimport *
from bitnet_cy.engine.network cimport Network
from bitnet_cy.engine.workspace cimport BN_KV_F32, Workspace, bn_span

from bitnet_cy.engine.weights import aligned_bytes
from bitnet_cy.errors import BitNetError, OptionError, ResourceError


cdef class Encoder:
    """Runs sequences of together at most `rows` tokens. Not for two threads at once.

    A sequence lies in one step, so that keys and values of one layer at a time are enough, and
    networks that are not causal run, too. Raises ResourceError.
    """

    cdef uint8_t[::1] keys
    cdef uint8_t[::1] values
    cdef bint busy
    cdef Workspace workspace
    cdef readonly Network network

    def __cinit__(self, Network network not None, rows, threads=1):
        for name, value in (("rows", rows), ("threads", threads)):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**24:
                raise OptionError(f"{name} is {value!r}; a count from 1 to 16777215 is needed")
        self.network = network
        cells = rows * network.shape.n_kv_heads * network.shape.head_dim
        try:
            self.keys = aligned_bytes(cells * 4)
            self.values = aligned_bytes(cells * 4)
            self.workspace = Workspace(network, threads, rows)
        except MemoryError:
            raise ResourceError(f"no memory for {rows} tokens at once; take fewer") from None

    def forward(self, sequences, threads=None):
        """Hidden states after the output norm, float32 [tokens, hidden], sequence after sequence.

        sequences: of token ids, none of them empty. A sequence's states are the same bits
        whichever others are beside it. Raises OptionError.
        """
        cdef Workspace work = self.workspace
        arrays = [self._checked_ids(ids) for ids in sequences]
        cdef Py_ssize_t total = sum(map(len, arrays)), i
        if total > work.rows:
            raise OptionError(f"{total} tokens at once; there is room for {work.rows}")
        out = np.empty((total, self.network.shape.hidden_size), dtype=np.float32)
        if not total:
            return out
        if self.busy:
            raise BitNetError("this encoder is in use by another thread; give each its own")
        self.busy = True
        try:
            self._set_spans(arrays)
            for i in range(total):
                work.logit_rows[i] = i
            work.run(len(arrays), total, out, min(threads or work.threads, work.threads), True)
        finally:
            self.busy = False
        return out

    def _checked_ids(self, ids):
        array = np.asarray(ids)
        vocab = self.network.shape.vocab_size
        if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
            raise OptionError("a sequence is a flat list of at least one token id")
        if not (0 <= array.min() and array.max() < vocab):
            raise OptionError(f"token ids are 0 to {vocab - 1}, found {array.min()} to "
                              f"{array.max()}")
        return array.astype(np.int32)

    cdef _set_spans(self, arrays):
        cdef Workspace work = self.workspace
        cdef const int32_t[::1] ids
        cdef Py_ssize_t first = 0, i, at
        cdef Py_ssize_t width = self.network.shape.n_kv_heads * self.network.shape.head_dim * 4
        cdef bn_span *span
        for i, array in enumerate(arrays):
            ids = array
            span = &work.spans[i]
            span.first, span.tokens, span.start = first, ids.shape[0], 0
            span.context, span.layer_stride = ids.shape[0], 0
            span.keys, span.values = &self.keys[first * width], &self.values[first * width]
            span.key_scales = span.value_scales = NULL
            span.type = BN_KV_F32
            for at in range(ids.shape[0]):
                work.ids[first + at] = ids[at]
            first += ids.shape[0]
