"""I2_S, the layout of bitnet.cpp: two bits per trit and one float32 scale per tensor.

Three arrangements share the type id, and nothing in a file tells them apart: "128" (all
published files), "64" (bitnet.cpp built for ARM since November 2025) and "4row" (bitnet.cpp for
x86 built without ACT_PARALLEL).

In arrangement "128" the tensor is one flat row-major sequence; 32 bytes hold 128 trits:

    bits   7-6    5-4    3-2    1-0
    byte p  p    p+32   p+64   p+96        code = trit + 1

The scale follows the codes, then 28 unspecified bytes. Rows whose length is not a multiple of 128
share blocks with their neighbours.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.errors import OptionError
from bitnet_cy.formats.layouts.base import (
    Layout,
    Ternary,
    check_multiple,
    check_scale,
    check_size,
    check_trits,
    single_scale,
)
from bitnet_cy.formats.layouts.fields import HIGH_FIRST, pack, unpack

ARRANGEMENTS = ("128", "64", "4row")
TAIL = 32


def pack_blocks(trits: np.ndarray) -> np.ndarray:
    """Trits, contiguous int8 [n * 128], as bytes in arrangement 128, uint8 [n * 32]."""
    return pack(trits, 32, HIGH_FIRST)


def _decode(raw: np.ndarray, rows: int, cols: int, *, arrangement: str = "128") -> Ternary:
    _check_shape(rows, cols, arrangement)
    count = rows * cols // 4
    raw = check_size(raw, count + TAIL, "I2_S")
    scale = check_scale(raw[count : count + 4].view("<f4")[0], "I2_S")
    trits = unpack(raw[:count], _width(cols, arrangement), HIGH_FIRST, "I2_S").reshape(rows, cols)
    return Ternary(trits if scale else np.zeros_like(trits), scale)


def _encode(
    trits: np.ndarray, scale: np.ndarray | float, *, arrangement: str = "128"
) -> np.ndarray:
    trits = check_trits(trits)
    rows, cols = trits.shape
    _check_shape(rows, cols, arrangement)
    out = np.zeros(trits.size // 4 + TAIL, np.uint8)
    out[: trits.size // 4] = pack(trits.reshape(-1), _width(cols, arrangement), HIGH_FIRST)
    out[trits.size // 4 :][:4] = single_scale(scale, "I2_S").astype("<f4").reshape(1).view(np.uint8)
    return out


def _width(cols: int, arrangement: str) -> int:
    """Bytes of a block: one holds the same column of four rows, or four runs of one row."""
    return cols if arrangement == "4row" else int(arrangement) // 4


def _check_shape(rows: int, cols: int, arrangement: str) -> None:
    if arrangement not in ARRANGEMENTS:
        raise OptionError(f"I2_S arrangement {arrangement!r}; known: {', '.join(ARRANGEMENTS)}")
    if arrangement == "4row":
        check_multiple(rows, 4, "I2_S in arrangement 4row", "rows")
    else:
        check_multiple(rows * cols, int(arrangement), f"I2_S-{arrangement}", "weights")


I2_S = Layout("I2_S", _decode, _encode)
