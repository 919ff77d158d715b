# cython: language_level=3, boundscheck=False, freethreading_compatible=True
"""The kernel table: which instruction sets can run here, which one does, and its integer parts.

The functions that take arrays exist for tests, self-checks and measurements; generation goes
through bitnet_cy.engine.session.
"""

import numpy as np

from cython.parallel cimport parallel, prange, threadid

from bitnet_cy.engine.native cimport *

from bitnet_cy.errors import BitNetError, OptionError
from bitnet_cy.engine.weights import aligned_bytes


cdef extern from "csrc/dispatch.h" nogil:
    enum:
        BN_TABLE_ROWS
        BN_CPU_AVX2
        BN_CPU_AVXVNNI
        BN_CPU_AVX512VNNI
        BN_CPU_DOTPROD
        BN_CPU_I8MM
    int bn_cpu_features() noexcept
    const bn_kernels *bn_runnable(int row) noexcept
    const char *bn_table_name(int row) noexcept
    enum:
        BN_OPERATIONS
    const char *bn_operation_name(int i) noexcept
    const char *bn_operation_kernel(const bn_kernels *, int i) noexcept

cdef extern from "csrc/peak.h" nogil:
    enum:
        BN_PEAK_CHAINS
    ctypedef struct bn_peak:
        const char *name
        int needs
        int multiply_adds
        uint32_t (*run)(ptrdiff_t) noexcept nogil
    const bn_peak *bn_peaks

cdef extern from "csrc/threads.h" nogil:
    int bn_openmp() noexcept

cdef extern from "csrc/bandwidth.h" nogil:
    ctypedef uint64_t (*bn_reader)(const uint8_t *data, ptrdiff_t n) noexcept
    bn_reader bn_widest_reader() noexcept

cdef extern from "csrc/codes.h" nogil:
    int bn_has_code_3(const uint8_t *data, ptrdiff_t n) noexcept


cdef const bn_kernels *_active = NULL


cdef const bn_kernels *active_kernels() noexcept nogil:
    return _active


cdef const bn_kernels *scalar_kernels() noexcept nogil:
    return bn_runnable(0)


cdef bint has_wide() noexcept nogil:
    """Whether some kernel of this CPU takes many rows at once."""
    cdef int i
    for i in range(BN_TABLE_ROWS):
        if bn_runnable(i) != NULL and bn_runnable(i).ternary_gemm_wide != NULL:
            return True
    return False


def available():
    """Names of the kernels this CPU can run, slowest first."""
    return [bn_table_name(i).decode() for i in range(BN_TABLE_ROWS) if bn_runnable(i) != NULL]


def compiled():
    """Names of the kernels in this build, whether this CPU can run them or not."""
    return [bn_table_name(i).decode() for i in range(BN_TABLE_ROWS)]


def select(name=None):
    """Use the kernels of this name from now on; None: the fastest this CPU can run.

    Networks already running keep theirs until their next forward step.
    """
    global _active
    names = available()
    if name is None:
        name = names[-1]
    if name not in names:
        known = "this CPU cannot run it" if name in compiled() else "no kernel has that name"
        raise OptionError(f"kernel {name!r}: {known}; available here: {', '.join(names)}")
    _active = bn_runnable(compiled().index(name))


def selected():
    """Name of the kernels in use."""
    return _active.name.decode()


def operations():
    """Which instruction set each operation runs on: the slowest kernel that runs it the same way."""
    return {bn_operation_name(i).decode(): bn_operation_kernel(_active, i).decode()
            for i in range(BN_OPERATIONS)}


def cpu_features():
    """The instruction sets found that some kernel can use."""
    bits = bn_cpu_features()
    named = [(BN_CPU_AVX2, "avx2"), (BN_CPU_AVXVNNI, "avxvnni"), (BN_CPU_AVX512VNNI, "avx512vnni"),
             (BN_CPU_DOTPROD, "dotprod"), (BN_CPU_I8MM, "i8mm")]
    return [name for bit, name in named if bits & bit]


def has_openmp():
    """Whether this build can use more than one thread."""
    return bool(bn_openmp())


def quantize(x):
    """Per-token int8 activations (BitNet b1.58): x float32 [T, K] -> (int8 [T, K], float32 [T]).

    The scale is s = 127 / max(|x|, 1e-5); q = round half to even (x * s). A row with a NaN or an
    infinity gives scale NaN and zeros.
    """
    cdef float[:, ::1] rows = np.ascontiguousarray(x, dtype=np.float32)
    cdef Py_ssize_t tokens = rows.shape[0], n = rows.shape[1], t
    q = np.zeros((tokens, n), dtype=np.int8)
    scales = np.zeros(tokens, dtype=np.float32)
    cdef int8_t[:, ::1] q_view = q
    cdef float[::1] scale_view = scales
    cdef int32_t q_sum
    if n:
        for t in range(tokens):
            scale_view[t] = _active.quantize(&rows[t, 0], n, &q_view[t, 0], &q_sum)
    return q, scales


def _padded(q, blocks):
    padded = np.zeros((q.shape[0], blocks * BN_BLOCK), dtype=np.int8)
    padded[:, : q.shape[1]] = q
    return padded


def _panels(q, lanes):
    """int8 [T, K] -> groups of `lanes` tokens, each [K / 4][lanes][4]; missing tokens are 0."""
    tokens, k = q.shape
    count = -(-tokens // lanes)
    full = np.zeros((count * lanes, k), dtype=np.int8)
    full[:tokens] = q
    grouped = full.reshape(count, lanes, k // 4, 4).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(grouped), count


def ternary_matmul(codes, q, threads=1, method="auto"):
    """Exact integer product of ternary rows with int8 rows.

    codes: uint8 [M, blocks * 32] (I2_S blocks); q: int8 [T, K], K <= blocks * 128.
    Returns int32 [T, M] = sum of trit * q. method: "gemv", "gemm", "wide" (many rows at once, where
    the kernel does that), or "auto" as generation does.
    """
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    q = np.ascontiguousarray(q, dtype=np.int8)
    if codes.ndim != 2 or q.ndim != 2 or codes.shape[1] % BN_BLOCK_BYTES:
        raise OptionError("ternary_matmul takes codes [M, blocks * 32] and q [T, K]")
    blocks = codes.shape[1] // BN_BLOCK_BYTES
    if q.shape[1] > blocks * BN_BLOCK:
        raise OptionError(f"q has {q.shape[1]} columns, the codes only {blocks * BN_BLOCK}")
    if not codes.size or not q.size:
        return np.zeros((q.shape[0], codes.shape[0]), dtype=np.int32)
    if method == "auto":
        method = ("gemv" if q.shape[0] <= BN_GEMV_TOKENS else
                  "gemm" if q.shape[0] < BN_WIDE_LEAST else "wide")
    q = _padded(q, blocks)
    return _matmul(_active, codes, q, blocks, threads, method)


cdef _matmul(const bn_kernels *kernels, codes, q, blocks, threads, method):
    sums = q.sum(axis=1, dtype=np.int32)
    if method == "gemv":
        return _gemv(kernels, codes, q, sums, blocks, threads)
    return _gemm(kernels, codes, q, sums, blocks, threads, method == "wide")


cdef _gemv(const bn_kernels *kernels, codes, q, q_sums, Py_ssize_t blocks, int threads):
    cdef const uint8_t[:, ::1] code_view = codes
    cdef const int8_t[:, ::1] q_view = q
    cdef const int32_t[::1] sums = q_sums
    cdef Py_ssize_t m = codes.shape[0], tokens = q.shape[0], t, r
    cdef int group
    out = np.zeros((tokens, m), dtype=np.int32)
    cdef int32_t[:, ::1] out_view = out
    for t in range(0, tokens, BN_GEMV_TOKENS):
        group = min(BN_GEMV_TOKENS, tokens - t)
        tile = np.zeros((m, group), dtype=np.int32)
        _gemv_tiles(kernels, code_view, blocks, q_view[t:], group, sums[t:], tile, threads)
        out[t : t + group] = tile.T
    return out


cdef _gemv_tiles(const bn_kernels *kernels, const uint8_t[:, ::1] codes, Py_ssize_t blocks,
                 const int8_t[:, ::1] q, int group, const int32_t[::1] sums,
                 int32_t[:, ::1] tile, int threads):
    cdef Py_ssize_t m = codes.shape[0], unit
    for unit in prange((m + 15) // 16, nogil=True, num_threads=threads, schedule="dynamic"):
        kernels.ternary_gemv(&codes[unit * 16, 0], blocks, <int>min(16, m - unit * 16), &q[0, 0],
                             group, &sums[0], &tile[unit * 16, 0])


cdef _gemm(const bn_kernels *kernels, codes, q, q_sums, Py_ssize_t blocks, int threads, bint wide):
    panels, count = _panels(q, kernels.lanes)
    wide = wide and kernels.ternary_gemm_wide != NULL
    cdef Py_ssize_t m = codes.shape[0], stride = count * kernels.lanes, k = blocks * BN_BLOCK
    cdef Py_ssize_t size = BN_WIDE_ROWS if wide else kernels.gemm_rows, lanes = kernels.lanes
    cdef Py_ssize_t at_once = BN_WIDE_TOKENS // lanes if wide else count, n_panels = count
    cdef Py_ssize_t groups = (count + at_once - 1) // at_once, unit, row, panel
    sums = np.zeros(stride, dtype=np.int32)
    sums[: len(q_sums)] = q_sums
    cdef const uint8_t[:, ::1] code_view = codes
    cdef const int8_t[::1] panel_view = panels.reshape(-1)
    cdef const int32_t[::1] sum_view = sums
    if kernels.by_token:
        out = np.zeros((stride, (m + size - 1) // size * size), dtype=np.int32)
    else:
        out = np.zeros((m, stride), dtype=np.int32)
    cdef int32_t[:, ::1] tile = out
    cdef Py_ssize_t row_step = 1 if kernels.by_token else tile.shape[1]
    scratch = max(BN_GEMM_ROWS * k, BN_WIDE_SCRATCH if wide else 0)
    cdef uint8_t[:, ::1] decoded = aligned_bytes(threads * scratch).reshape(threads, -1)
    with nogil, parallel(num_threads=threads):
        for unit in prange((m + size - 1) // size * groups, schedule="dynamic"):
            row, panel = unit // groups * size, unit % groups * at_once
            (kernels.ternary_gemm_wide if wide else kernels.ternary_gemm)(
                &code_view[row, 0], blocks, <int>min(size, m - row), &panel_view[panel * lanes * k],
                <int>min(at_once, n_panels - panel), &sum_view[panel * lanes],
                &tile[0, 0] + row * row_step + panel * lanes, tile.shape[1],
                &decoded[threadid(), 0])
    tokens = out[:, :m] if kernels.by_token else out.T
    return np.ascontiguousarray(tokens[: q.shape[0]])


def has_code_3(codes, int threads=1):
    """Whether any two-bit code of a contiguous uint8 array is 3, which is no trit."""
    cdef const uint8_t[::1] view = codes.reshape(-1)
    cdef Py_ssize_t n = view.shape[0], piece = 1 << 16, i
    cdef int found = 0
    for i in prange((n + piece - 1) // piece, nogil=True, num_threads=threads, schedule="static"):
        found += bn_has_code_3(&view[i * piece], min(piece, n - i * piece))
    return found > 0


def self_check(codes, name):
    """Compare the selected kernels with the scalar ones on these rows; a difference is an error.

    codes: uint8 [rows, blocks * 32]; name: the tensor they come from, for the message.
    """
    blocks = codes.shape[1] // BN_BLOCK_BYTES
    tokens, k = 41, blocks * BN_BLOCK
    activations = (np.arange(tokens * k, dtype=np.int64) * 2654435761 >> 7) % 256 - 128
    q = activations.astype(np.int8).reshape(tokens, k)
    expected = _matmul(bn_runnable(0), codes, q, blocks, 1, "gemv")
    methods = ["gemv", "gemm"] + ["wide"] * (_active.ternary_gemm_wide != NULL)
    found = [_matmul(_active, codes, q, blocks, 1, method) for method in methods]
    if any((result != expected).any() for result in found):
        raise BitNetError(
            f"kernel {selected()} and kernel scalar disagree on {name}; set BITNET_CY_KERNEL=scalar"
            " and report this with the output of `bitnet-cy info`"
        )


def dot_rows(rows, x):
    """rows float16 or float32 [R, n], x float32 [n] -> float32 [R], by the selected kernels."""
    cdef const float[::1] x_view = np.ascontiguousarray(x, dtype=np.float32)
    cdef const uint16_t[:, ::1] half_view
    cdef const float[:, ::1] float_view
    out = np.zeros(rows.shape[0], dtype=np.float32)
    cdef float[::1] out_view = out
    if rows.dtype == np.float16:
        half_view = np.ascontiguousarray(rows).view(np.uint16)
        _active.dot_rows_f16(&half_view[0, 0], rows.shape[1], rows.shape[0], &x_view[0],
                             rows.shape[1], &out_view[0])
    else:
        float_view = np.ascontiguousarray(rows, dtype=np.float32)
        _active.dot_rows_f32(&float_view[0, 0], rows.shape[1], rows.shape[0], &x_view[0],
                             rows.shape[1], &out_view[0])
    return out


def float_operation(name, x, other=None, value=0.0):
    """One element-wise float operation of the selected kernels, for comparison with NumPy.

    name: rms_norm (other: weights, value: eps), relu2_mul, silu_mul, gelu_mul (other: up),
    f16_to_f32, f32_to_f16, i8_to_f32.
    """
    cdef float[::1] y = np.array(x, dtype=np.float32)
    cdef const float[::1] second = np.ascontiguousarray(
        np.asarray(x, np.float32) if other is None else other, dtype=np.float32)
    cdef uint16_t[::1] half = np.array(x, dtype=np.float16).view(np.uint16)
    cdef const int8_t[::1] small
    cdef Py_ssize_t n = y.shape[0]
    if name == "rms_norm":
        result = np.zeros(n, dtype=np.float32)
        _rms_norm(y, second, value, result)
        return result
    if name == "relu2_mul":
        _active.relu2_mul(&y[0], &second[0], n)
    elif name == "silu_mul":
        _active.silu_mul(&y[0], &second[0], n)
    elif name == "gelu_mul":
        _active.gelu_mul(&y[0], &second[0], n)
    elif name == "f16_to_f32":
        _active.f16_to_f32(&half[0], n, &y[0])
    elif name == "i8_to_f32":
        small = np.array(x, dtype=np.int8)
        _active.i8_to_f32(&small[0], n, &y[0])
    elif name == "f32_to_f16":
        half[:] = 0
        _active.f32_to_f16(&y[0], n, &half[0])
        return np.asarray(half).view(np.float16)
    else:
        raise OptionError(f"no float operation is named {name!r}")
    return np.asarray(y)


def decode_ternary(codes, scales, group):
    """A row of ternary weights as floats, by the selected kernels: float32 [blocks * 128].

    codes: uint8 [blocks * 32]; scales: float32, one for each `group` columns (a power of 2 >= 32).
    """
    cdef const uint8_t[::1] code_view = np.ascontiguousarray(codes, dtype=np.uint8)
    cdef const float[::1] scale_view = np.ascontiguousarray(scales, dtype=np.float32)
    cdef Py_ssize_t blocks = code_view.shape[0] // BN_BLOCK_BYTES
    if scale_view.shape[0] * group < blocks * BN_BLOCK:
        raise OptionError(f"{scale_view.shape[0]} scales for {group} columns each are too few for "
                          f"{blocks * BN_BLOCK} columns")
    out = np.zeros(blocks * BN_BLOCK, dtype=np.float32)
    cdef float[::1] out_view = out
    if blocks:
        _active.decode_ternary(&code_view[0], blocks, &scale_view[0],
                               (group // 32).bit_length() - 1, &out_view[0])
    return out


def softmax_step(scores, maximum, total):
    """Fold scores float32 [keys, lanes] into running softmaxes, lanes a multiple of 8.

    maximum and total, float32 [lanes], are updated. Returns the weights float32 [keys, lanes], and
    shrink float32 [lanes]: what earlier weights are to be multiplied with.
    """
    weights = np.array(scores, dtype=np.float32)
    shrink = np.zeros_like(maximum)
    cdef float[:, ::1] view = weights
    cdef float[::1] highest = maximum, added = total, factor = shrink
    _active.softmax_step(&view[0, 0], view.shape[1], view.shape[0], view.shape[1], &highest[0],
                         &added[0], &factor[0])
    return weights, shrink


cdef _rms_norm(const float[::1] x, const float[::1] weight, float eps, float[::1] y):
    _active.rms_norm(&x[0], &weight[0], x.shape[0], eps, &y[0])


def read_bytes(data, int threads):
    """Read every byte of a uint8 array once, in `threads` threads; returns a checksum."""
    cdef const uint8_t[::1] view = data
    cdef Py_ssize_t n = view.shape[0], piece = (n + threads - 1) // threads
    cdef uint64_t total = 0
    cdef int i
    cdef bn_reader read = bn_widest_reader()
    for i in prange(threads, nogil=True, num_threads=threads, schedule="static", chunksize=1):
        total += read(&view[0] + i * piece, min(piece, n - i * piece))
    return total


def peak_names():
    """The multiply-add instructions this CPU has and some kernel uses."""
    return [bn_peaks[i].name.decode() for i in _peaks()]


def run_peak(name, Py_ssize_t rounds, int threads):
    """Run an instruction of peak_names() in `threads` threads; how many multiply-adds those were."""
    found = [i for i in _peaks() if bn_peaks[i].name.decode() == name]
    if not found:
        raise OptionError(f"{name!r} is not measured here; choose from {', '.join(peak_names())}")
    cdef const bn_peak *peak = &bn_peaks[<int>found[0]]
    cdef int thread
    cdef uint32_t mixed = 0
    for thread in prange(threads, nogil=True, num_threads=threads, schedule="static", chunksize=1):
        mixed += peak.run(rounds)
    return rounds * threads * BN_PEAK_CHAINS * peak.multiply_adds


def _peaks():
    count = 0
    while bn_peaks[count].name != NULL:
        count += 1
    return [i for i in range(count) if not bn_peaks[i].needs & ~bn_cpu_features()]


select()
