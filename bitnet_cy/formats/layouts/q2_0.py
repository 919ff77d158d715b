"""Q2_0: a float16 scale, then blocks of 64 (ggml) or 128 (PrismML) two-bit codes.

Four consecutive trits share a byte, low bits first. Code 3 (+2) is legal in the format and
unused by ternary models.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.formats.layouts.base import (
    Layout,
    Ternary,
    check_multiple,
    check_size,
    check_trits,
    group_scales,
    merge_scales,
)
from bitnet_cy.formats.layouts.fields import LOW_FIRST, pack, unpack


def _layout(name: str, block: int) -> Layout:
    def decode(raw: np.ndarray, rows: int, cols: int) -> Ternary:
        check_multiple(cols, block, name, "columns")
        nbytes = 2 + block // 4
        blocks = check_size(raw, rows * cols // block * nbytes, name).reshape(-1, nbytes)
        packed = np.ascontiguousarray(blocks[:, 2:]).reshape(-1)
        trits = unpack(packed, 1, LOW_FIRST, name).reshape(rows, -1, block)
        scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
        return merge_scales(trits, scales.reshape(rows, -1), name)

    def encode(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        trits = check_trits(trits)
        check_multiple(trits.shape[1], block, name, "columns")
        groups = trits.reshape(len(trits), -1, block)
        scales = group_scales(groups, scale, name).reshape(-1, 1).view(np.uint8)
        packed = pack(trits.reshape(-1), 1, LOW_FIRST).reshape(-1, block // 4)
        return np.concatenate([scales, packed], 1).reshape(-1)

    return Layout(name, decode, encode)


Q2_0 = _layout("Q2_0", 64)
Q2_0_128 = _layout("Q2_0_128", 128)
PQ2_0 = _layout("PQ2_0", 128)  # the same under a type id of its own
