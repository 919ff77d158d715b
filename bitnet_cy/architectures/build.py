"""Tensors of a GGUF file to an engine Network: mapped where they can be, re-tiled where not."""

from __future__ import annotations

import numpy as np

from bitnet_cy.architectures.arrangement import Arrangement, arrange
from bitnet_cy.architectures.config import ModelConfig
from bitnet_cy.engine import Layer, Matrix, Network, Ternary, dense, kernels, usable_threads
from bitnet_cy.engine.weights import MATRIX_BLOCKS, Float32Array
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import ternary
from bitnet_cy.formats.gguf import GGUFFile, TensorInfo

_CHECKED_ROWS = 16


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

        def norm(part: str, size: int) -> Float32Array:
            return self.vector(f"blk.{index}.{part}.weight", size)

        return Layer(
            q=linear("attn_q", heads, c.hidden_size),
            k=linear("attn_k", kv_heads, c.hidden_size),
            v=linear("attn_v", kv_heads, c.hidden_size),
            o=linear("attn_output", c.hidden_size, heads),
            gate=linear("ffn_gate", c.ffn_size, c.hidden_size),
            up=linear("ffn_up", c.ffn_size, c.hidden_size),
            down=linear("ffn_down", c.hidden_size, c.ffn_size),
            attn_norm=norm("attn_norm", c.hidden_size),
            ffn_norm=norm("ffn_norm", c.hidden_size),
            attn_sub_norm=norm("attn_sub_norm", heads) if c.sub_norms else None,
            ffn_sub_norm=norm("ffn_sub_norm", c.ffn_size) if c.sub_norms else None,
        )

    def ternary(self, name: str, rows: int, cols: int) -> Ternary:
        info = self.info(name, (rows, cols))
        if info.type_name not in ternary.NAMES:
            raise UnsupportedError(self._not_ternary(info))
        raw = self.file.raw(name)
        stored = ternary.rows_as_stored(info.type_name, raw, rows, cols)
        try:
            if stored is None:
                found = ternary.decode(info.type_name, raw, rows, cols)
                return Ternary(ternary.pack_rows(found.trits), rows, cols, _one(found.scale))
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

    def matrix(self, name: str) -> Matrix:
        c = self.config
        info = self.info(name, (c.vocab_size, c.hidden_size))
        if info.type_name not in MATRIX_BLOCKS:
            raise UnsupportedError(
                f"{self.file.path.name}, {info.explain()}; bitnet_cy runs embeddings and heads in "
                f"{', '.join(MATRIX_BLOCKS)}: convert the file again with one of these"
            )
        return Matrix(self.file.raw(name), info.type_name, c.vocab_size, c.hidden_size)

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
        return (
            f"{self.file.path.name}, {info.explain()}: this is not a ternary model; bitnet_cy runs "
            f"ternary weights ({', '.join(ternary.NAMES)}): convert a BitNet b1.58 checkpoint, or "
            "use llama.cpp for this file"
        )


def _one(scale: np.ndarray) -> float:
    """A tensor's single scale. A tensor of zeros may have scale 0, where 1 means the same."""
    return float(scale) or 1.0
