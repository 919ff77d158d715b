# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Network: weights checked once, then read by any number of sessions and threads."""

import numpy as np

from libc.stdlib cimport calloc, free

from bitnet_cy.engine.native cimport *

from bitnet_cy.engine.weights import MATRIX_BLOCKS, ROW_LAYOUTS, row_nbytes
from bitnet_cy.errors import FormatError, OptionError, ResourceError, UnsupportedError

_MATRIX_TYPES = {
    "F32": BN_F32, "F16": BN_F16, "BF16": BN_BF16, "Q8_0": BN_Q8_0, "Q6_K": BN_Q6_K,
    "Q4_0": BN_Q4_0,
}
_LARGEST = 2**22  # the kernels' int32 sums are exact for rows up to twice this long
_LONGEST_DENSE = 2**18  # and rows of five trits in a byte up to this long
_ACTIVATIONS = {"relu2": BN_RELU2, "silu": BN_SILU, "gelu": BN_GELU}
_WHOLE_ROW = 30  # bits: the number of any group shifted by them is 0


cdef class Network:
    """The weights of one model, immutable after construction.

    shape: engine.weights.Shape; layers: sequence of engine.weights.Layer; embedding, head:
    engine.weights.Matrix; output_norm: float32 [hidden_size]. Arrays are used where they lie and
    kept alive: nbytes of them in memory of NumPy's, mapped_nbytes elsewhere, as in a mapped file.
    parts: what the bytes are for, as name -> {"mapped": bytes, "copied": bytes}.
    layout: of all ternary rows, a key of engine.weights.ROW_LAYOUTS.
    Raises FormatError where a size contradicts the shape.
    """

    def __cinit__(self, shape, layers, embedding, head, output_norm):
        _check_shape(shape, layers)
        self.shape = shape
        self.owned, self.parts = {}, {}
        self.layout = layers[0].q.layout
        self.layers = <bn_layer *>calloc(shape.n_layers, sizeof(bn_layer))
        if self.layers == NULL:
            raise ResourceError(f"no memory for the table of {shape.n_layers} layers")
        cdef int i
        self._set_sizes()
        ropes = list(dict.fromkeys(layer.rope or shape.rope for layer in layers))
        self._set_ropes(ropes)
        for i in range(shape.n_layers):
            self.layers[i].rope = ropes.index(layers[i].rope or shape.rope)
            self._set_layer(&self.layers[i], layers[i], i)
        self._set_matrix(&self.native.embedding, embedding, "embedding")
        self._set_matrix(&self.native.head, head, "output head")
        self.native.output_norm = self._floats(output_norm, shape.hidden_size, "output_norm")

    def __dealloc__(self):
        free(self.layers)

    cdef _set_sizes(self):
        shape, n = self.shape, &self.native
        n.dense = self.layout == "1.6bit"
        n.n_layers, n.hidden, n.ffn = shape.n_layers, shape.hidden_size, shape.ffn_size
        n.n_heads, n.n_kv_heads, n.head_dim = shape.n_heads, shape.n_kv_heads, shape.head_dim
        n.vocab, n.norm_eps = shape.vocab_size, shape.norm_eps
        n.rope_interleaved = bool(shape.rope_interleaved)
        n.activation = _ACTIVATIONS[shape.activation]
        n.embedding_scale = shape.embedding_scale
        n.attention_scale = shape.attention_scale or np.float32(1) / np.sqrt(
            np.float32(shape.head_dim))
        n.causal, n.weight_only = bool(shape.causal), bool(shape.weight_only)
        n.layers = self.layers

    cdef _set_ropes(self, ropes):
        self.frequencies = np.concatenate([np.array(rope.frequencies) for rope in ropes])
        self.factors = np.array([rope.factor for rope in ropes], dtype=np.float64)
        self.native.rope_frequency, self.native.rope_factor = &self.frequencies[0], &self.factors[0]
        self.native.n_ropes = len(ropes)

    cdef _set_layer(self, bn_layer *native, layer, int i):
        s = self.shape
        q_rows, kv_rows = s.n_heads * s.head_dim, s.n_kv_heads * s.head_dim
        self._set_linear(&native.q, layer.q, q_rows, s.hidden_size, f"layer {i} q")
        self._set_linear(&native.k, layer.k, kv_rows, s.hidden_size, f"layer {i} k")
        self._set_linear(&native.v, layer.v, kv_rows, s.hidden_size, f"layer {i} v")
        self._set_linear(&native.o, layer.o, s.hidden_size, q_rows, f"layer {i} o")
        self._set_linear(&native.gate, layer.gate, s.ffn_size, s.hidden_size, f"layer {i} gate")
        self._set_linear(&native.up, layer.up, s.ffn_size, s.hidden_size, f"layer {i} up")
        self._set_linear(&native.down, layer.down, s.hidden_size, s.ffn_size, f"layer {i} down")
        native.window = layer.window
        self._set_norms(native, layer, i)

    cdef _set_norms(self, bn_layer *native, layer, int i):
        s = self.shape
        q_rows, hidden = s.n_heads * s.head_dim, s.hidden_size
        native.attn_norm = self._floats(layer.attn_norm, hidden, f"layer {i} attn_norm")
        native.ffn_norm = self._floats(layer.ffn_norm, hidden, f"layer {i} ffn_norm")
        native.attn_sub_norm = self._optional(layer, "attn_sub_norm", q_rows, i)
        native.ffn_sub_norm = self._optional(layer, "ffn_sub_norm", s.ffn_size, i)
        native.q_norm = self._optional(layer, "q_norm", s.head_dim, i)
        native.k_norm = self._optional(layer, "k_norm", s.head_dim, i)
        native.attn_post_norm = self._optional(layer, "attn_post_norm", hidden, i)
        native.ffn_post_norm = self._optional(layer, "ffn_post_norm", hidden, i)
        cdef int part
        for part, norm in enumerate(layer.input_norms or ()):
            if part < 3:
                native.qkv_norms[part] = self._floats(norm, hidden, f"layer {i} input norm")
            else:
                native.gate_up_norms[part - 3] = self._floats(norm, hidden, f"layer {i} input norm")

    cdef const float *_optional(self, layer, name, n, int i) except? NULL:
        array = getattr(layer, name)
        if array is None:
            return NULL
        return self._floats(array, n, f"layer {i} {name}")

    cdef const float *_floats(self, array, n, name) except NULL:
        if array.dtype != np.float32 or array.shape != (n,):
            raise FormatError(f"{name}: float32 [{n}] is needed, found {array.dtype} "
                              f"{list(array.shape)}")
        if not np.isfinite(array).all():
            raise FormatError(f"{name} holds a NaN or an infinity; the file is damaged")
        array = np.ascontiguousarray(array)
        cdef const float[::1] view = array
        self._keep(array, "norms")
        return &view[0]

    cdef _set_linear(self, bn_linear *native, ternary, rows, cols, name):
        if ternary.layout != self.layout or self.layout not in ROW_LAYOUTS:
            raise FormatError(f"{name} is laid out in {ternary.layout}; every layer needs the same "
                              f"layout, one of {', '.join(ROW_LAYOUTS)}")
        if self.layout == "1.6bit" and self.shape.weight_only:
            raise FormatError(f"{name}: float activations need rows in layout 2bit")
        if self.layout == "1.6bit" and cols >= _LONGEST_DENSE:
            raise FormatError(f"{name}: rows of {cols} weights are too long for layout 1.6bit; "
                              "take layout 2bit")
        row_bytes = row_nbytes(cols, self.layout)
        found = (ternary.rows, ternary.cols, tuple(ternary.codes.shape))
        if found != (rows, cols, (rows, row_bytes)):
            raise FormatError(f"{name}: a ternary [{rows}, {cols}] is needed, found "
                              f"[{ternary.rows}, {ternary.cols}]")
        native.codes = self._bytes(ternary.codes.reshape(-1), rows * row_bytes, name, "ternary")
        native.rows, native.cols, native.blocks = rows, cols, row_bytes // BN_BLOCK_BYTES
        self._set_scale(native, ternary.scale, rows, cols, name)

    cdef _set_scale(self, bn_linear *native, scale, rows, cols, name):
        if not (np.isfinite(scale).all() and np.min(scale) >= 0 and np.max(scale) > 0):
            raise FormatError(f"{name}: scale {scale} is not a positive number")
        if self.shape.weight_only:
            self._set_scales(native, np.atleast_2d(np.asarray(scale, np.float32)), rows, cols, name)
        elif np.ndim(scale) == 0:
            native.scale = scale
        else:
            raise UnsupportedError(f"{name} has a scale for each group of weights, which only "
                                   "networks with float activations can have")

    cdef _set_scales(self, bn_linear *native, scales, rows, cols, name):
        width = cols // scales.shape[1]
        if len(scales) not in (1, rows) or (scales.shape[1] > 1 and not (
            width * scales.shape[1] == cols and width >= 32 and width & (width - 1) == 0
        )):
            raise UnsupportedError(f"{name}: scales {list(scales.shape)} do not divide "
                                   f"[{rows}, {cols}] into rows of groups of 32, 64, 128, ...")
        if scales.shape[1] > 1:  # the columns that fill the last block have scales, too
            missing = -(-native.blocks * BN_BLOCK // width) - scales.shape[1]
            scales = np.pad(scales, ((0, 0), (0, missing)))
        scales = np.ascontiguousarray(scales)
        cdef const float[:, ::1] view = scales
        self._keep(scales, "ternary")
        native.scales = &view[0, 0]
        native.scale_stride = scales.shape[1] if len(scales) > 1 else 0
        native.scale_shift = (width // 32).bit_length() - 1 if scales.shape[1] > 1 else _WHOLE_ROW

    cdef _set_matrix(self, bn_matrix *native, matrix, name):
        expected = (self.shape.vocab_size, self.shape.hidden_size)
        if (matrix.rows, matrix.cols) != expected:
            raise FormatError(f"{name}: [{expected[0]}, {expected[1]}] is needed, found "
                              f"[{matrix.rows}, {matrix.cols}]")
        if matrix.type_name not in _MATRIX_TYPES:
            raise UnsupportedError(f"{name} has type {matrix.type_name}; supported: "
                                   f"{', '.join(_MATRIX_TYPES)}")
        values, n_bytes = MATRIX_BLOCKS[matrix.type_name]
        if matrix.cols % values:
            raise FormatError(f"{name}: {matrix.cols} columns do not fill blocks of {values} "
                              f"({matrix.type_name})")
        row_bytes = matrix.cols // values * n_bytes
        native.data = self._bytes(matrix.data, matrix.rows * row_bytes, name, name)
        native.rows, native.cols, native.row_bytes = matrix.rows, matrix.cols, row_bytes
        native.type = _MATRIX_TYPES[matrix.type_name]

    cdef const uint8_t *_bytes(self, array, n, name, part) except NULL:
        """uint8 [n], kept alive; copied only where it is not 4-byte aligned."""
        if array.dtype != np.uint8 or array.ndim != 1 or array.size != n:
            raise FormatError(f"{name}: {n} bytes are needed, found {array.size}")
        if array.ctypes.data % 4 or not array.flags.c_contiguous:
            array = np.array(array)
        cdef const uint8_t[::1] view = array
        self._keep(array, part)
        return &view[0]

    cdef _keep(self, array, part):
        """Keep an array alive and count its bytes to a part, once."""
        if array.ctypes.data in self.owned:
            return
        self.owned[array.ctypes.data] = array
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        count = self.parts.setdefault(part, {"mapped": 0, "copied": 0})
        if base.base is None:
            self.nbytes += array.nbytes
            count["copied"] += array.nbytes
        else:
            self.mapped_nbytes += array.nbytes
            count["mapped"] += array.nbytes


def _check_shape(shape, layers):
    sizes = ("n_layers", "hidden_size", "ffn_size", "n_heads", "n_kv_heads", "head_dim",
             "vocab_size")
    for name in sizes:
        if not 0 < getattr(shape, name) < _LARGEST:
            raise FormatError(f"{name} is {getattr(shape, name)}; a count from 1 to "
                              f"{_LARGEST - 1} is needed")
    if shape.n_heads * shape.head_dim >= _LARGEST:
        raise FormatError(f"{shape.n_heads} heads of {shape.head_dim} are wider than supported")
    if len(layers) != shape.n_layers:
        raise FormatError(f"{shape.n_layers} layers are announced, {len(layers)} found")
    if shape.n_heads % shape.n_kv_heads or shape.head_dim % 2:
        raise FormatError(f"{shape.n_heads} heads of {shape.head_dim} cannot share "
                          f"{shape.n_kv_heads} key-value heads")
    if not 0 <= shape.norm_eps < 1:
        raise FormatError(f"norm epsilon {shape.norm_eps} is not a usable number")
    for rope in {layer.rope or shape.rope for layer in layers}:
        _check_rope(rope, shape.head_dim)
    if not all(0 <= layer.window < 2**31 for layer in layers):
        raise FormatError("an attention window is negative or absurdly long")
    if any(len(layer.input_norms) != 5 for layer in layers if layer.input_norms is not None):
        raise FormatError("input norms are those of q, k, v, gate and up, or none")
    if shape.activation not in _ACTIVATIONS:
        raise OptionError(f"activation {shape.activation!r} is not supported; choose from "
                          f"{', '.join(_ACTIVATIONS)}")


def _check_rope(rope, head_dim):
    numbers = (*rope.frequencies, rope.factor)
    if len(rope.frequencies) != head_dim // 2 or not all(0 < x < float("inf") for x in numbers):
        raise FormatError(f"a rope of {len(rope.frequencies)} frequencies and factor {rope.factor} "
                          f"does not rotate heads of {head_dim}; positive numbers for each pair do")
