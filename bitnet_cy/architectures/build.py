"""Tensors of a GGUF file to an engine Network: mapped where they can be, re-tiled where not."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitnet_cy.architectures.arrangement import Arrangement, arrange
from bitnet_cy.architectures.config import ModelConfig
from bitnet_cy.engine import (
    Layer,
    Matrix,
    Network,
    Rope,
    Ternary,
    dense,
    kernels,
    usable_threads,
)
from bitnet_cy.engine.weights import MATRIX_BLOCKS, ByteArray, Float32Array
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import ternary
from bitnet_cy.formats.gguf import GGUFFile, TensorInfo

_CHECKED_ROWS = 16
_PART = 1 << 22
"""Weights of an embedding that are expanded at once."""
_SUB_NORMS = ("attn_sub_norm", "ffn_sub_norm")
_INPUT_SUB_NORMS = ("attn_output_norm_in", "ffn_down_norm_in")
_INPUT_NORMS = (
    "attn_q_norm_in", "attn_k_norm_in", "attn_v_norm_in", "ffn_gate_norm_in", "ffn_up_norm_in",
)  # fmt: skip


def build(
    file: GGUFFile,
    config: ModelConfig,
    *,
    threads: int = 1,
    weights: str = "auto",
    room: int | None = None,
) -> tuple[Network, Arrangement]:
    """The network of a file, and in which layout its ternary rows run.

    I2_S rows of whole blocks and I1_6_S rows are used where they lie in the mapped file; every
    other ternary tensor is re-tiled into memory. weights, room: see arrangement.arrange. Raises
    UnsupportedError for a tensor type that is not run, FormatError for a missing tensor, a wrong
    shape or damaged values, ResourceError where a copy asked for has no room, and BitNetError if
    the chosen kernel disagrees with the scalar one on this model's own rows.
    """
    tensors = _Tensors(file, config, usable_threads(threads))
    stored = [tensors.layer(index) for index in range(config.n_layers)]
    shape = config.shape()
    layers, arrangement = arrange(stored, weights, tensors.threads, room, shape.weight_only)
    if layers[0].q.layout != stored[0].q.layout:
        file.forget()
    embedding = tensors.matrix("token_embd.weight")
    network = Network(
        shape,
        layers,
        embedding,
        embedding if config.tied_head else tensors.matrix("output.weight"),
        tensors.vector("output_norm.weight", config.hidden_size),
    )
    for part, linear in (("attn_q", layers[0].q), ("ffn_down", layers[-1].down)):
        rows = linear.codes[:_CHECKED_ROWS]
        if linear.layout == "1.6bit":
            dense.self_check(rows, linear.cols, part)
            rows = dense.unpack(rows, linear.cols)
        kernels.self_check(rows, part)
    return network, arrangement


class _Tensors:
    def __init__(self, file: GGUFFile, config: ModelConfig, threads: int) -> None:
        self.file = file
        self.config = config
        self.threads = threads

    def layer(self, index: int) -> Layer:
        c = self.config
        heads, kv_heads = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim

        def linear(part: str, rows: int, cols: int) -> Ternary:
            return self.ternary(f"blk.{index}.{part}.weight", rows, cols)

        return Layer(
            q=linear("attn_q", heads, c.hidden_size),
            k=linear("attn_k", kv_heads, c.hidden_size),
            v=linear("attn_v", kv_heads, c.hidden_size),
            o=linear("attn_output", c.hidden_size, heads),
            gate=linear("ffn_gate", c.ffn_size, c.hidden_size),
            up=linear("ffn_up", c.ffn_size, c.hidden_size),
            down=linear("ffn_down", c.hidden_size, c.ffn_size),
            window=c.windows[index],
            rope=Rope.of_base(c.local_rope_base, c.head_dim) if c.windows[index] else None,
            **self.norms(index),
        )

    def norms(self, index: int) -> dict[str, Any]:
        """The norms of a layer by their fields in Layer.

        What the attention output and the down projection normalize their input with is a sub-norm
        by another name.
        """
        c = self.config
        heads = c.n_heads * c.head_dim

        def norm(part: str, size: int) -> Float32Array:
            return self.vector(f"blk.{index}.{part}.weight", size)

        found: dict[str, Any] = {
            name: norm(name, c.hidden_size) for name in ("attn_norm", "ffn_norm")
        }
        if c.sub_norms or c.input_norms:
            names = _SUB_NORMS if c.sub_norms else _INPUT_SUB_NORMS
            found["attn_sub_norm"] = norm(names[0], heads)
            found["ffn_sub_norm"] = norm(names[1], c.ffn_size)
        if c.input_norms:
            found["input_norms"] = tuple(norm(part, c.hidden_size) for part in _INPUT_NORMS)
        if c.head_norms:
            found["q_norm"] = norm("attn_q_norm", c.head_dim)
            found["k_norm"] = norm("attn_k_norm", c.head_dim)
        if c.post_norms:
            found["attn_post_norm"] = norm("post_attention_norm", c.hidden_size)
            found["ffn_post_norm"] = norm("post_ffw_norm", c.hidden_size)
        return found

    def ternary(self, name: str, rows: int, cols: int) -> Ternary:
        info = self.info(name, (rows, cols))
        if info.type_name not in ternary.NAMES:
            raise UnsupportedError(self._not_ternary(info))
        raw = self.file.raw(name)
        stored = ternary.rows_as_stored(info.type_name, raw, rows, cols)
        try:
            if stored is None:
                found = ternary.decode(info.type_name, raw, rows, cols, grouped=True)
                scale = self.scale(found.scale)
                return Ternary(ternary.pack_rows(found.trits), rows, cols, scale)
            codes, layout = stored
            self._check_codes(codes, layout)
            return Ternary(codes, rows, cols, ternary.scale_as_stored(raw, codes), layout)
        except (FormatError, UnsupportedError) as error:
            raise type(error)(f"{self.file.path.name}, tensor {name}: {error}") from None

    def _check_codes(self, codes: np.ndarray, layout: str) -> None:
        if layout == "2bit" and kernels.has_code_3(codes, self.threads):
            raise FormatError("I2_S holds code 3, which is no trit: damaged, or not ternary")
        if layout == "1.6bit" and dense.is_damaged(codes, self.threads):
            raise FormatError("I1_6_S holds a byte that no five trits make: damaged")

    def scale(self, scale: np.ndarray) -> float | Float32Array:
        """One number, or one for each group. A matrix of zeros may have 0, where 1 is the same."""
        if scale.size == 1:
            return float(scale.reshape(())) or 1.0
        if self.config.activation_dtype != "float32":
            raise UnsupportedError(
                f"{np.unique(scale).size} scales in one matrix, and int8 activations need one; "
                'load the model with activation_dtype="float32" if only its weights are ternary'
            )
        return scale

    def matrix(self, name: str) -> Matrix:
        c = self.config
        info = self.info(name, (c.vocab_size, c.hidden_size))
        if info.type_name in ternary.BY_ROW:
            return Matrix(self._expanded(info), "F16", c.vocab_size, c.hidden_size)
        if info.type_name not in MATRIX_BLOCKS:
            raise UnsupportedError(
                f"{self.file.path.name}, {info.explain()}; bitnet_cy runs embeddings and heads in "
                f"{', '.join((*MATRIX_BLOCKS, *ternary.BY_ROW))}: convert the file again with one "
                "of these"
            )
        return Matrix(self.file.raw(name), info.type_name, c.vocab_size, c.hidden_size)

    def _expanded(self, info: TensorInfo) -> ByteArray:
        """A ternary embedding or head in float16, which holds its values exactly: a copy."""
        rows, cols = info.shape
        stored, step = self.file.raw(info.name).reshape(rows, -1), max(1, _PART // cols)
        values = np.empty((rows, cols), np.float16)
        try:
            for start in range(0, rows, step):
                part = stored[start : start + step]
                found = ternary.decode(info.type_name, part, len(part), cols, grouped=True)
                values[start : start + step] = found.dense()
        except FormatError as error:
            raise FormatError(f"{self.file.path.name}, tensor {info.name}: {error}") from None
        return values.view(np.uint8).reshape(-1)

    def vector(self, name: str, size: int) -> Float32Array:
        self.info(name, (size,))
        return np.ascontiguousarray(self.file.array(name), dtype=np.float32)

    def info(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        info = self.file.tensors.get(name)
        if info is None:
            raise FormatError(
                f"{self.file.path.name} has no tensor {name}; a {self.config.architecture} model "
                "needs it"
            )
        if info.shape != shape:
            raise FormatError(
                f"{self.file.path.name}, tensor {name}: shape {list(shape)} follows from the "
                f"metadata, the file has {list(info.shape)}"
            )
        return info

    def _not_ternary(self, info: TensorInfo) -> str:
        if info.type_name in ternary.UNREAD:
            return f"{self.file.path.name}, {info.explain()}: {ternary.UNREAD[info.type_name]}"
        return (
            f"{self.file.path.name}, {info.explain()}: this is not a ternary model; bitnet_cy runs "
            f"ternary weights ({', '.join(ternary.NAMES)}): convert a BitNet b1.58 checkpoint, or "
            "use llama.cpp for this file"
        )
