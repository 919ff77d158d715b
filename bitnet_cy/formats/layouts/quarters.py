"""The packed uint8 weights of Hugging Face BitNet checkpoints.

A matrix of M rows is stored as M / 4: byte row r holds rows r, r + M/4, r + M/2, r + 3M/4, low
bits first, code = trit + 1. The scale lies in a tensor of its own.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.errors import FormatError
from bitnet_cy.formats.layouts.base import check_multiple, check_trits
from bitnet_cy.formats.layouts.fields import LOW_FIRST, pack, unpack


def unpack_quarters(packed: np.ndarray) -> np.ndarray:
    """Bytes [rows / 4, cols], uint8 or int8, as trits int8 [rows, cols]."""
    if packed.ndim != 2 or packed.dtype.itemsize != 1:
        raise FormatError(f"packed weights are bytes [rows / 4, cols], not {packed.dtype} "
                          f"{packed.shape}")  # fmt: skip
    flat = np.ascontiguousarray(packed).view(np.uint8).reshape(-1)
    trits = unpack(flat, flat.size, LOW_FIRST, "packed uint8 weights")
    return trits.reshape(-1, packed.shape[1])


def pack_quarters(trits: np.ndarray) -> np.ndarray:
    """The inverse: trits int8 [rows, cols] to uint8 [rows / 4, cols]."""
    trits = check_trits(trits)
    check_multiple(len(trits), 4, "packed uint8 weights", "rows")
    packed = pack(trits.reshape(-1), trits.size // 4, LOW_FIRST)
    return packed.reshape(-1, trits.shape[1])
