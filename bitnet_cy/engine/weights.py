"""What a network is made of, as arrays: the hand-over from files to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitnet_cy.errors import FormatError

Float32Array = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

#: Layout of ternary rows -> weights in a block of 32 bytes: I2_S, and csrc/dense.h.
ROW_LAYOUTS = {"2bit": 128, "1.6bit": 160}

#: Type of embedding or head -> (values a block, bytes a block), GGUF v3.
MATRIX_BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q6_K": (256, 210),
    "Q4_0": (32, 18),
}


@dataclass(frozen=True)
class Rope:
    """How heads are rotated.

    frequencies: radians that each pair of a head turns from one position to the next. factor: of
    what is rotated.
    """

    frequencies: tuple[float, ...]
    factor: float = 1.0

    @classmethod
    def of_base(cls, base: float, head_dim: int) -> Rope:
        """Pair i turns by base ** (-2i / head_dim); FormatError for no base to compute with."""
        if not 1 < base < 1e30:
            raise FormatError(f"rope base {base} is not a usable number; published ones are 1e4 up")
        return cls(tuple(base ** (-2.0 * i / head_dim) for i in range(head_dim // 2)))


@dataclass(frozen=True)
class Shape:
    """Sizes and switches of a network.

    Counts, except norm_eps, rope (of layers that have no other) and two factors:
    embedding_scale of what the embedding gives, attention_scale of scores (0: 1 / sqrt(head_dim)).
    causal: a query sees no later keys. weight_only: the inputs of linear layers are not quantized.
    """

    n_layers: int
    hidden_size: int
    ffn_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    rope: Rope
    rope_interleaved: bool
    activation: str
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    causal: bool = True
    weight_only: bool = False


@dataclass(frozen=True)
class Ternary:
    """A ternary linear layer: weight = scale * trit.

    codes: uint8 [rows, row_nbytes(cols, layout)], whole blocks, rows padded with trit 0.
    scale: one number; in weight-only networks also float32 [rows, groups], one for each of equal
    parts of a row, which are the whole row or 32, 64, 128, ... columns.
    """

    codes: ByteArray
    rows: int
    cols: int
    scale: float | Float32Array
    layout: str = "2bit"


@dataclass(frozen=True)
class Matrix:
    """An embedding or output head: uint8 bytes of [rows, cols] values of a GGUF type."""

    data: ByteArray
    type_name: str
    rows: int
    cols: int


@dataclass(frozen=True)
class Layer:
    """One transformer block; norms are None where the family has none.

    input_norms: weights of the norms that q, k, v, gate and up each have for their own input.
    q_norm, k_norm: [head_dim], of every head before it is rotated. attn_post_norm, ffn_post_norm:
    of what the branch adds. window: how many keys a query sees to its left, itself included, 0
    for all; where the network is not causal, as many to its right. rope: the layer's own.
    """

    q: Ternary
    k: Ternary
    v: Ternary
    o: Ternary
    gate: Ternary
    up: Ternary
    down: Ternary
    attn_norm: Float32Array
    ffn_norm: Float32Array
    attn_sub_norm: Float32Array | None = None
    ffn_sub_norm: Float32Array | None = None
    input_norms: tuple[Float32Array, ...] | None = None
    q_norm: Float32Array | None = None
    k_norm: Float32Array | None = None
    attn_post_norm: Float32Array | None = None
    ffn_post_norm: Float32Array | None = None
    window: int = 0
    rope: Rope | None = None


def row_nbytes(cols: int, layout: str) -> int:
    """Bytes of a row of `cols` trits."""
    return -(-cols // ROW_LAYOUTS[layout]) * 32


def aligned_bytes(n_bytes: int, alignment: int = 64) -> npt.NDArray[Any]:
    """Zeroed uint8 [n_bytes], its first byte at a multiple of alignment."""
    block = np.zeros(n_bytes + alignment, dtype=np.uint8)
    start = -block.ctypes.data % alignment
    return block[start : start + n_bytes]
