"""Q2_0: a float16 scale, then blocks of 64 (ggml) or 128 (PrismML) two-bit codes.

Four consecutive trits share a byte, low bits first. Code 3 (+2) is legal in the format and
unused by ternary models.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.formats.layouts.base import (
    Layout,
    Ternary,
    check_codes,
    check_multiple,
    check_size,
    check_trits,
    group_scales,
    merge_scales,
)

_SHIFTS = np.array([0, 2, 4, 6], np.uint8)


def _layout(name: str, block: int) -> Layout:
    def decode(raw: np.ndarray, rows: int, cols: int) -> Ternary:
        check_multiple(cols, block, name, "columns")
        nbytes = 2 + block // 4
        blocks = check_size(raw, rows * cols // block * nbytes, name).reshape(-1, nbytes)
        check_codes(blocks[:, 2:], name)
        codes = blocks[:, 2:, None] >> _SHIFTS & np.uint8(3)
        trits = (codes.view(np.int8) - np.int8(1)).reshape(rows, -1, block)
        scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
        return merge_scales(trits, scales.reshape(rows, -1), name)

    def encode(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
        trits = check_trits(trits)
        check_multiple(trits.shape[1], block, name, "columns")
        groups = trits.reshape(len(trits), -1, block)
        scales = group_scales(groups, scale, name).reshape(-1, 1).view(np.uint8)
        codes = (groups + np.int8(1)).view(np.uint8).reshape(-1, block // 4, 4)
        packed = np.bitwise_or.reduce(codes << _SHIFTS, axis=2)
        return np.concatenate([scales, packed], 1).reshape(-1)

    return Layout(name, decode, encode)


Q2_0 = _layout("Q2_0", 64)
Q2_0_128 = _layout("Q2_0_128", 128)
