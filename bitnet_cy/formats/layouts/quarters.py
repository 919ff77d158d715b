"""The packed uint8 weights of Hugging Face BitNet checkpoints.

A matrix of M rows is stored as M / 4: byte row r holds rows r, r + M/4, r + M/2, r + 3M/4, low
bits first, code = trit + 1. The scale lies in a tensor of its own.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.errors import FormatError
from bitnet_cy.formats.layouts.base import check_codes, check_multiple, check_trits

_SHIFTS = np.array([0, 2, 4, 6], np.uint8)[:, None, None]


def unpack_quarters(packed: np.ndarray) -> np.ndarray:
    """Bytes [rows / 4, cols], uint8 or int8, as trits int8 [rows, cols]."""
    if packed.ndim != 2 or packed.dtype.itemsize != 1:
        raise FormatError(f"packed weights are bytes [rows / 4, cols], not {packed.dtype} "
                          f"{packed.shape}")  # fmt: skip
    packed = packed.view(np.uint8)
    check_codes(packed, "packed uint8 weights")
    codes = packed >> _SHIFTS & np.uint8(3)
    return codes.view(np.int8).reshape(-1, packed.shape[1]) - np.int8(1)


def pack_quarters(trits: np.ndarray) -> np.ndarray:
    """The inverse: trits int8 [rows, cols] to uint8 [rows / 4, cols]."""
    trits = check_trits(trits)
    check_multiple(len(trits), 4, "packed uint8 weights", "rows")
    codes = (trits + np.int8(1)).view(np.uint8).reshape(4, -1, trits.shape[1])
    return np.bitwise_or.reduce(codes << _SHIFTS, axis=0)
