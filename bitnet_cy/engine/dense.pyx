# cython: language_level=3, boundscheck=False, freethreading_compatible=True
"""Dense rows, five trits in a byte (csrc/dense.h): from I2_S rows and back, checked, multiplied."""

import time

import numpy as np

from cython.parallel cimport parallel, prange, threadid

from bitnet_cy.engine.kernels cimport active_kernels, scalar_kernels
from bitnet_cy.engine.native cimport *

from bitnet_cy.engine import kernels
from bitnet_cy.engine.weights import row_nbytes
from bitnet_cy.errors import BitNetError, OptionError


cdef extern from "csrc/dense.h" nogil:
    int bn_dense_is_damaged(const uint8_t *dense, ptrdiff_t n) noexcept


cdef enum:
    UNIT_ROWS = 64


def pack(codes, cols, int threads=1, out=None):
    """I2_S rows, uint8 [rows, blocks * 32] without code 3, as dense rows.

    cols: weights in a row. Returns uint8 [rows, ceil(cols / 160) * 32], written to `out` if given.
    """
    sizes = row_nbytes(cols, "2bit"), row_nbytes(cols, "1.6bit")
    return _convert(active_kernels(), codes, sizes, threads, out, True)


def unpack(dense, cols, int threads=1, out=None):
    """The inverse of pack: uint8 [rows, ceil(cols / 128) * 32], written to `out` if given."""
    sizes = row_nbytes(cols, "1.6bit"), row_nbytes(cols, "2bit")
    return _convert(active_kernels(), dense, sizes, threads, out, False)


cdef _convert(const bn_kernels *active, rows, sizes, int threads, out, bint packing):
    from_nbytes, to_nbytes = sizes
    if rows.ndim != 2 or rows.shape[1] != from_nbytes:
        raise OptionError(f"rows of {from_nbytes} bytes are needed, found {list(rows.shape)}")
    if out is None:
        out = np.empty((rows.shape[0], to_nbytes), dtype=np.uint8)
    if out.shape != (rows.shape[0], to_nbytes):
        raise OptionError(f"out needs [{rows.shape[0]}, {to_nbytes}] bytes, found {out.shape}")
    cdef const uint8_t[:, ::1] source = rows
    cdef uint8_t[:, ::1] target = out
    cdef Py_ssize_t n = source.shape[0], unit
    cdef Py_ssize_t source_blocks = from_nbytes // BN_BLOCK_BYTES
    cdef Py_ssize_t target_blocks = to_nbytes // BN_BLOCK_BYTES
    for unit in prange((n + UNIT_ROWS - 1) // UNIT_ROWS, nogil=True, num_threads=threads,
                       schedule="static"):
        if packing:
            active.dense_pack(&source[unit * UNIT_ROWS, 0], source_blocks,
                              <int>min(UNIT_ROWS, n - unit * UNIT_ROWS),
                              &target[unit * UNIT_ROWS, 0], target_blocks)
        else:
            active.dense_unpack(&source[unit * UNIT_ROWS, 0], source_blocks,
                                <int>min(UNIT_ROWS, n - unit * UNIT_ROWS),
                                &target[unit * UNIT_ROWS, 0], target_blocks)
    return out


def is_damaged(dense, int threads=1):
    """Whether some byte of a contiguous uint8 array is none that five trits make."""
    cdef const uint8_t[::1] view = dense.reshape(-1)
    cdef Py_ssize_t n = view.shape[0], piece = 1 << 16, i
    cdef int found = 0
    for i in prange((n + piece - 1) // piece, nogil=True, num_threads=threads, schedule="static"):
        found += bn_dense_is_damaged(&view[i * piece], min(piece, n - i * piece))
    return found > 0


def matmul(dense, q):
    """Exact integer product of dense rows with int8 rows, a few tokens at a time as in decoding.

    dense: uint8 [M, blocks * 32]; q: int8 [T, K], K <= blocks * 160. Returns int32 [T, M].
    """
    return _matmul(active_kernels(), dense, q)


cdef _matmul(const bn_kernels *active, dense, q):
    cdef const uint8_t[:, ::1] rows = np.ascontiguousarray(dense, dtype=np.uint8)
    cdef Py_ssize_t blocks = rows.shape[1] // BN_BLOCK_BYTES, m = rows.shape[0], t
    cdef int group
    if rows.shape[1] % BN_BLOCK_BYTES or q.ndim != 2 or q.shape[1] > blocks * BN_DENSE_BLOCK:
        raise OptionError("matmul takes rows [M, blocks * 32] and q [T, K <= blocks * 160]")
    padded = np.zeros((q.shape[0], blocks * BN_DENSE_BLOCK), dtype=np.int8)
    padded[:, : q.shape[1]] = q
    cdef const int8_t[:, ::1] tokens = padded
    cdef const int32_t[::1] sums = padded.sum(axis=1, dtype=np.int32)
    cdef int32_t[:, ::1] tile
    out = np.zeros((q.shape[0], m), dtype=np.int32)
    for t in range(0, q.shape[0], BN_GEMV_TOKENS):
        group = min(BN_GEMV_TOKENS, q.shape[0] - t)
        tile = np.zeros((m, group), dtype=np.int32)
        active.dense_gemv(&rows[0, 0], blocks, <int>m, &tokens[t, 0], group, &sums[t], &tile[0, 0])
        out[t : t + group] = np.asarray(tile).T
    return out


def self_check(dense, cols, name):
    """Compare the selected kernels with the scalar ones on these rows; a difference is an error."""
    tokens, sizes = 5, (row_nbytes(cols, "1.6bit"), row_nbytes(cols, "2bit"))
    activations = (np.arange(tokens * cols, dtype=np.int64) * 2654435761 >> 7) % 256 - 128
    q = activations.astype(np.int8).reshape(tokens, cols)
    found = matmul(dense, q), unpack(dense, cols)
    expected = (_matmul(scalar_kernels(), dense, q),
                _convert(scalar_kernels(), dense, sizes, 1, None, False))
    if any((a != b).any() for a, b in zip(found, expected, strict=True)):
        raise BitNetError(
            f"kernel {kernels.selected()} and kernel scalar disagree on {name}; set BITNET_CY_KERNEL=scalar"
            " and report this with the output of `bitnet-cy info`"
        )


def gemv_seconds(matrices, layout, int threads):
    """Seconds that the products of these matrices with one token take, one matrix after another.

    matrices: uint8 [rows, bytes] arrays of rows of `layout`, in the order of memory.
    """
    cdef const bn_kernels *active = active_kernels()
    cdef const int64_t[:, ::1] units = _units(matrices)
    cdef const int8_t[::1] q = np.ones(max(m.shape[1] for m in matrices) * 5, dtype=np.int8)
    cdef int32_t[:, ::1] out = np.zeros((threads, UNIT_ROWS), dtype=np.int32)
    cdef int32_t q_sum = 0
    cdef bint is_dense = layout == "1.6bit"
    cdef Py_ssize_t i
    start = time.perf_counter()
    with nogil, parallel(num_threads=threads):
        for i in prange(units.shape[0], schedule="static"):
            if is_dense:
                active.dense_gemv(<const uint8_t *>units[i, 0], units[i, 1], <int>units[i, 2],
                                  &q[0], 1, &q_sum, &out[threadid(), 0])
            else:
                active.ternary_gemv(<const uint8_t *>units[i, 0], units[i, 1], <int>units[i, 2],
                                    &q[0], 1, &q_sum, &out[threadid(), 0])
    return time.perf_counter() - start


def _units(matrices):
    """int64 [units, 3]: the address of some rows, the blocks of each, how many they are."""
    units = []
    for matrix in matrices:
        rows, row_bytes = matrix.shape
        for first in range(0, rows, UNIT_ROWS):
            address = matrix.ctypes.data + first * row_bytes
            units.append((address, row_bytes // 32, min(UNIT_ROWS, rows - first)))
    return np.array(units, dtype=np.int64)
