"""Packed ternary tensors to and from trits, and to the rows the engine runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitnet_cy.errors import UnsupportedError
from bitnet_cy.formats.layouts import LAYOUTS, Layout, Ternary
from bitnet_cy.formats.layouts.base import any_nonzero, check_scale, check_trits
from bitnet_cy.formats.layouts.i1_6_s import row_nbytes
from bitnet_cy.formats.layouts.i2_s import pack_blocks
from bitnet_cy.formats.layouts.quarters import pack_quarters, unpack_quarters
from bitnet_cy.formats.layouts.tl import read_kernels

__all__ = [
    "BY_ROW",
    "NAMES",
    "UNREAD",
    "Ternary",
    "any_nonzero",
    "decode",
    "encode",
    "pack_quarters",
    "pack_rows",
    "read_kernels",
    "rows_as_stored",
    "scale_as_stored",
    "unpack_quarters",
]

NAMES = tuple(LAYOUTS)
ROW_BLOCK = 128
BY_ROW = ("TQ1_0", "TQ2_0", "Q2_0", "Q2_0_128", "PQ2_0")
"""Types whose rows have bytes of their own and float16 scales: embeddings may have them, too."""
UNREAD = {
    "PTQ1_0": "PrismML does not publish the order of its weights, so it is not read; take the "
    "model's Q2_0 or PQ2_0 file"
}
"""Ternary types that cannot be decoded, and why."""


def decode(
    type_name: str, raw: np.ndarray, rows: int, cols: int, *, grouped: bool = False, **layout: Any
) -> Ternary:
    """Stored bytes, uint8 [n], as trits and scale.

    `layout` holds what files do not say: `arrangement="128"|"64"|"4row"` for I2_S, and
    `kernel=(BM, BK, bm)` for TL1 and TL2. Raises FormatError for damaged data and
    UnsupportedError for what is legal but not run: unless `grouped`, more than one scale.
    """
    found = _layout(type_name).decode(raw, rows, cols, **layout)
    if found.scale.size > 1 and not grouped:
        raise UnsupportedError(
            f"{type_name} tensor has {np.unique(found.scale).size} different scales; models with "
            "one scale per tensor are supported"
        )
    return found


def encode(
    type_name: str, trits: np.ndarray, scale: np.ndarray | float, **layout: Any
) -> np.ndarray:
    """Trits int8 [rows, cols] and scale as stored bytes, uint8 [n]."""
    return _layout(type_name).encode(trits, scale, **layout)


def pack_rows(trits: np.ndarray) -> np.ndarray:
    """Trits int8 [rows, cols] as the engine's rows, uint8 [rows, ceil(cols / 128) * 32].

    The bytes are those of I2_S with every row filled up with zeros (code 1) to whole blocks.
    """
    trits = check_trits(trits)
    rows, cols = trits.shape
    if missing := -cols % ROW_BLOCK:
        trits = np.pad(trits, ((0, 0), (0, missing)))
    return pack_blocks(trits.reshape(-1)).reshape(rows, -1)


def rows_as_stored(
    type_name: str, raw: np.ndarray, rows: int, cols: int
) -> tuple[np.ndarray, str] | None:
    """The rows of a tensor as they lie, uint8 [rows, bytes], and their layout, without a copy.

    The layout is "2bit" or "1.6bit": what the engine runs. None for other types, and for I2_S
    whose rows do not fill whole blocks; decode and `pack_rows` them.
    """
    if type_name == "I1_6_S":
        nbytes = row_nbytes(cols)
        return raw[: rows * nbytes].reshape(rows, nbytes), "1.6bit"
    if type_name != "I2_S" or cols % ROW_BLOCK:
        return None
    return raw[: rows * cols // 4].reshape(rows, cols // 4), "2bit"


def scale_as_stored(raw: np.ndarray, stored: np.ndarray) -> float:
    """The scale behind rows that rows_as_stored gave; FormatError unless it is finite and >= 0."""
    scale = raw[stored.size : stored.size + 4].view("<f4")[0]
    return float(check_scale(scale, "the tensor's"))


def _layout(type_name: str) -> Layout:
    if type_name not in LAYOUTS:
        raise UnsupportedError(
            f"type {type_name} is no ternary type bitnet_cy reads; it reads {', '.join(NAMES)}"
        )
    return LAYOUTS[type_name]
