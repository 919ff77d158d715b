"""GGUF tensor types: ids, names and byte sizes.

Programs that write ternary models reuse some ids for different types, so an id names a list of
candidates; the number of bytes the file gives a tensor tells which of them it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bitnet_cy.errors import UnsupportedError

# Bytes of a [rows, cols] tensor, or None where the type cannot hold that shape.
SizeRule = Callable[[int, int], "int | None"]


@dataclass(frozen=True)
class TensorType:
    """One way of storing a tensor.

    `shared_id` marks an id that other programs use for other types: there the size must fit
    exactly. `slack` is the number of extra alignment units the writer of the type leaves behind.
    """

    id: int
    name: str
    size: SizeRule
    shared_id: bool = False
    slack: int = 0

    def nbytes(self, shape: tuple[int, ...]) -> int | None:
        """Bytes of a tensor of `shape` (rows first), or None if the type cannot hold it."""
        return self.size(math.prod(shape[:-1]), shape[-1])

    def fits(self, shape: tuple[int, ...], available: int, alignment: int) -> bool:
        """Whether the type accounts for `available` bytes, give or take the padding."""
        size = self.nbytes(shape)
        return size is not None and 0 <= available - size < alignment * (1 + self.slack)


def _blocks(weights: int, nbytes: int, row_bytes: int = 0) -> SizeRule:
    """`nbytes` for each `weights` consecutive weights of a row, after `row_bytes` per row."""

    def size(rows: int, cols: int) -> int | None:
        return rows * (row_bytes + cols // weights * nbytes) if cols % weights == 0 else None

    return size


def _i2_s(rows: int, cols: int) -> int | None:
    return rows * cols // 4 + 32 if rows * cols % 4 == 0 else None


def _i1_6_s(rows: int, cols: int) -> int | None:
    return rows * -(-cols // 160) * 32 + 32


def tl2_payload(rows: int, cols: int) -> int | None:
    """Bytes that bitnet.cpp reserves for the codes of a TL2 tensor, or None if it cannot be one."""
    if cols < 256:
        return None
    return rows * (cols - 256) // 3 * 5 // 8 + rows * 64


def _tl2(rows: int, cols: int) -> int | None:
    payload = tl2_payload(rows, cols)
    return None if payload is None else -(-payload // 32) * 32 + 32


def _four_rows(rows: int, cols: int) -> int | None:
    return _blocks(64, 16, 4)(rows, cols) if rows % 4 == 0 else None


_STABLE = [
    # id, name, weights per block, bytes per block
    (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292), (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136), (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4),
    (27, "I64", 1, 8), (28, "F64", 1, 8), (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66),
]  # fmt: skip

TYPES: tuple[TensorType, ...] = (
    *(TensorType(number, name, _blocks(*block)) for number, name, *block in _STABLE),
    TensorType(36, "I2_S", _i2_s, shared_id=True),
    TensorType(38, "TL1", _i2_s, shared_id=True, slack=1),
    TensorType(39, "MXFP4", _blocks(32, 17), shared_id=True),
    TensorType(39, "TL2", _tl2, shared_id=True, slack=1),
    TensorType(42, "Q2_0", _blocks(64, 18), shared_id=True),
    TensorType(42, "Q2_0_128", _blocks(128, 34), shared_id=True),
    TensorType(42, "TL2", _tl2, shared_id=True, slack=1),
    TensorType(134, "IQ1_BN", _blocks(64, 13, 2), shared_id=True),
    TensorType(135, "IQ2_BN", _blocks(64, 16, 4), shared_id=True),
    TensorType(142, "PQ2_0", _blocks(128, 34), shared_id=True),
    TensorType(143, "PTQ1_0", _blocks(128, 28), shared_id=True),
    TensorType(335, "IQ2_BN_R4", _four_rows, shared_id=True),
    TensorType(1600, "I1_6_S", _i1_6_s, shared_id=True),  # of this program only
)

_BY_ID: dict[int, list[TensorType]] = {}
for _type in TYPES:
    _BY_ID.setdefault(_type.id, []).append(_type)


def candidates(type_id: int) -> list[TensorType]:
    """The types that programs write under `type_id`; empty for an id nobody is known to use."""
    return _BY_ID.get(type_id, [])


def by_name(name: str) -> TensorType:
    """The type called `name`, under the first id that carries it."""
    for candidate in TYPES:
        if candidate.name == name:
            return candidate
    raise UnsupportedError(f"unknown tensor type {name!r}; known are {', '.join(names())}")


def names() -> list[str]:
    """Every type name, in order of id."""
    return list(dict.fromkeys(candidate.name for candidate in TYPES))
