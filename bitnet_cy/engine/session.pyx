# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Session: the key-value cache of one sequence; steps of one session, or of several together."""

import threading

import numpy as np

from bitnet_cy.engine.native cimport *
from bitnet_cy.engine.network cimport Network
from bitnet_cy.engine.workspace cimport (
    BN_KV_F16, BN_KV_F32, BN_KV_I8, Workspace, bn_kv_type, bn_span
)

from bitnet_cy.engine import screen
from bitnet_cy.engine.cache import KV_DTYPES, cache_nbytes, row_count
from bitnet_cy.engine.weights import aligned_bytes
from bitnet_cy.errors import BitNetError, ContextError, OptionError, ResourceError


cdef class Session:
    """One sequence's state. Not for two threads at once; sessions share their network.

    context_length: positions the cache holds; threads: at least 1; kv_dtype: "float16", "float32"
    or "int8"; block_size: most tokens of one forward step. Raises OptionError, ResourceError.
    """

    cdef uint8_t[::1] keys
    cdef uint8_t[::1] values
    cdef float[::1] scales
    cdef bn_kv_type kv_type
    cdef object busy
    cdef Workspace workspace
    cdef readonly Network network
    cdef readonly Py_ssize_t position
    cdef readonly Py_ssize_t context_length
    cdef readonly Py_ssize_t cache_nbytes

    def __cinit__(self, Network network not None, context_length, threads=1, kv_dtype="float16",
                  block_size=128):
        counts = {"context_length": context_length, "threads": threads, "block_size": block_size}
        for name, value in counts.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**24:
                raise OptionError(f"{name} is {value!r}; a count from 1 to 16777215 is needed")
        if kv_dtype not in KV_DTYPES:
            raise OptionError(f"kv_dtype is {kv_dtype!r}; choose from {', '.join(KV_DTYPES)}")
        self.network, self.context_length = network, context_length
        self.busy = threading.Lock()
        self.kv_type = {"float32": BN_KV_F32, "float16": BN_KV_F16, "int8": BN_KV_I8}[kv_dtype]
        rows = row_count(network.shape, context_length)
        nbytes = rows * network.shape.head_dim * KV_DTYPES[kv_dtype]
        try:
            self.keys = aligned_bytes(nbytes)
            self.values = aligned_bytes(nbytes)
            if self.kv_type == BN_KV_I8:
                self.scales = aligned_bytes(2 * rows * 4).view(np.float32)
            self.workspace = Workspace(network, threads, min(block_size, context_length))
        except MemoryError:
            raise ResourceError(
                f"no memory for a context of {context_length} tokens; ask for a smaller one"
            ) from None
        self.cache_nbytes = cache_nbytes(network.shape, context_length, kv_dtype)

    @property
    def threads(self):
        """Threads a step uses at most."""
        return self.workspace.threads

    @property
    def block_size(self):
        """Most tokens of one step."""
        return self.workspace.rows

    @property
    def nbytes(self):
        """Bytes of cache and scratch memory."""
        return self.cache_nbytes + self.workspace.nbytes

    def time_stages(self, on=True):
        """Measure from now on where the time of a step goes, or stop doing so."""
        self._begin()
        try:
            self.workspace.time_stages(on)
        finally:
            self.busy.release()

    @property
    def stage_seconds(self):
        """Seconds of each kind of stage since time_stages(); empty if it is off.

        Of every step this session ran, or led in forward_together. They add up to the steps'
        time; a stage lasts until its last unit is done, on whichever thread.
        """
        return self.workspace.stage_seconds()

    def truncate(self, position):
        """Forget every token from this position on."""
        self._begin()
        try:
            if not 0 <= position <= self.position:
                raise OptionError(f"position is {position}; 0 to {self.position} are in the cache")
            self.position = position
        finally:
            self.busy.release()

    def forward(self, ids, logits="last", threads=None):
        """Append token ids and run them through the network.

        ids: sequence of int. logits: "last" -> float32 [vocab], "all" -> float32 [T, vocab],
        "none" -> None. threads: fewer than the session has. Raises ContextError where the ids do
        not fit, OptionError for an id outside the vocabulary.
        """
        if logits not in ("last", "all", "none"):
            raise OptionError(f"logits is {logits!r}; choose last, all or none")
        self._begin()
        try:
            ids = self._checked_ids(ids)
            count = {"last": min(1, len(ids)), "all": len(ids), "none": 0}[logits]
            out = np.empty((count, self.network.shape.vocab_size), dtype=np.float32)
            self._run_blocks(ids, count, out, None, min(threads or self.threads, self.threads))
        finally:
            self.busy.release()
        if logits == "last":
            return out[0] if count else None
        return out if logits == "all" else None

    def forward_top(self, ids, k, listed=None, rows="last", threads=None):
        """As forward, for the k largest logits of each row, 1 to screen.MOST, and those listed.

        listed: uint8 [vocab], not 0 where a logit is wanted beside those, or None. rows: "last"
        or "all". Returns a list of (ids, logits) for the rows: int32 that ascend and float32,
        among them every logit asked for, the same bits as forward's. Only for a network that has
        a screen (make_screen).
        """
        ask = _checked_ask(self.network, k, listed)
        threads = min(threads or self.threads, self.threads)
        self._begin()
        try:
            ids = self._checked_ids(ids)
            count = len(ids) if rows == "all" else min(1, len(ids))
            return self._run_blocks(ids, count, None, ask, threads)
        finally:
            self.busy.release()

    def make_screen(self, threads=None):
        """Give the network a screen of its head, after the activations of this session's last step.

        Does nothing where it has one. Raises OptionError where its head cannot have one.
        """
        if not screen.supports(self.network):
            raise OptionError("an output head of this type or width cannot be screened; use "
                              "head='full'")
        self._begin()
        try:
            screen.make(self.network, self.workspace.sample(), threads or self.threads)
        finally:
            self.busy.release()

    @property
    def screened(self):
        """Whether forward_top can be used."""
        return self.network.screen is not None

    cdef _begin(self):
        if not self.busy.acquire(blocking=False):
            raise BitNetError("this session is in use by another thread; give each thread its own")

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

    cdef _set_span(self, bn_span *span, Py_ssize_t first, Py_ssize_t tokens):
        span.first, span.tokens = first, tokens
        shape = self.network.shape
        span.start, span.context = self.position, self.context_length
        span.layer_stride = shape.n_kv_heads * self.context_length
        span.keys, span.values, span.type = &self.keys[0], &self.values[0], self.kv_type
        span.key_scales = span.value_scales = NULL
        if self.kv_type == BN_KV_I8:
            span.key_scales = &self.scales[0]
            span.value_scales = &self.scales[self.scales.shape[0] // 2]

    cdef list _run_blocks(self, ids, Py_ssize_t wanted, float[:, ::1] out, ask, int threads):
        """The last `wanted` rows' logits go to out; or, with an ask, what their searches find."""
        cdef const int32_t[::1] id_view = ids
        cdef Workspace work = self.workspace
        cdef Py_ssize_t total = len(ids), start, end, first, i, n
        found = []
        for start in range(0, total, work.rows):
            end = min(start + work.rows, total)
            first = max(start, total - wanted)
            n = max(0, end - first)
            work.ids[: end - start] = id_view[start:end]
            for i in range(n):
                work.logit_rows[i] = first - start + i
            self._set_span(&work.spans[0], 0, end - start)
            if ask is not None:
                found += work.search(1, [ask] * n, threads)
            else:
                work.run(1, n, out[first - (total - wanted):], threads)
            self.position += end - start
        return found


cdef _checked_ask(Network network, k, listed):
    if network.screen is None:
        raise OptionError("this network has no screen of its head; call make_screen first")
    if not 0 < k <= screen.MOST:
        raise OptionError(f"k is {k}; 1 to {screen.MOST} are supported")
    if listed is not None and (listed.dtype != np.uint8
                               or listed.shape != (network.shape.vocab_size,)
                               or not listed.flags.c_contiguous):
        raise OptionError(f"listed is {listed.dtype} {list(listed.shape)}; uint8 "
                          f"[{network.shape.vocab_size}] is needed")
    return k, listed


def forward_together(sessions, ids, threads=None, asks=None):
    """Append one token to each of several sessions in one step that reads the weights once.

    sessions: different sessions of one network, at most the first one's block_size of them; ids:
    one token id for each; asks: (k, listed) for each, or None. Returns float32
    [len(sessions), vocab], bit for bit what each session's own forward would give, or with asks a
    list of (ids, logits) as forward_top would give them. Raises as Session.forward does, before any session changes.
    """
    cdef Session session, leader
    cdef Py_ssize_t i, count = len(sessions)
    if not count or len(set(map(id, sessions))) != count or len(ids) != count:
        raise OptionError(f"{count} sessions and {len(ids)} ids: give different sessions, and one "
                          "token id for each")
    leader = sessions[0]
    work = leader.workspace
    if count > work.rows:
        raise OptionError(f"{count} sessions in one step; at most {work.rows} are possible")
    for i in range(count):
        session = sessions[i]
        if session.network is not leader.network:
            raise OptionError("sessions of different networks cannot run in one step")
    out = None
    if asks is None:
        out = np.empty((count, leader.network.shape.vocab_size), dtype=np.float32)
    else:
        asks = [_checked_ask(leader.network, k, listed) for k, listed in asks]
    begun = []
    try:
        for session in sessions:
            session._begin()
            begun.append(session)
        for i in range(count):
            session = sessions[i]
            session._checked_ids(ids[i : i + 1])
        found = _run_together(leader, sessions, np.asarray(ids, dtype=np.int32), out, asks,
                              min(threads or work.threads, work.threads))
    finally:
        for session in begun:
            session.busy.release()
    return out if asks is None else found


cdef list _run_together(Session leader, sessions, const int32_t[::1] ids, float[:, ::1] out, asks,
                        int threads):
    cdef Workspace work = leader.workspace
    cdef Session session
    cdef Py_ssize_t i, count = len(sessions)
    for i in range(count):
        session = sessions[i]
        work.ids[i] = ids[i]
        work.logit_rows[i] = i
        session._set_span(&work.spans[i], i, 1)
    found = []
    if asks is None:
        work.run(count, count, out, threads)
    else:
        found = work.search(count, asks, threads)
    for session in sessions:
        session.position += 1
    return found
