"""Trits that llama.cpp stored as Q4_0, because their rows are no multiple of 256.

So it does to ffn_down of bitnet_b1_58-3B in TQ1_0 and TQ2_0 files. A block of 32 weights has a
float16 d and codes 0 to 15 for d (code - 8), with d the largest weight, with its sign, by -8.
Of trits, that one has code 0, zeros have 8, and those of the other sign 15: 7/8 of what they were.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.formats.ternary import Ternary

_TRITS = np.full(16, 2, np.int8)  # 2: no code of a trit
_TRITS[[0, 8, 15]] = -1, 0, 1


def read(raw: np.ndarray, rows: int, cols: int) -> Ternary | None:
    """The trits in stored bytes, uint8 [n]; None if there are codes that no trit gets."""
    blocks = raw.reshape(-1, 18)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], 1)
    trits = _TRITS[codes]
    if (trits == 2).any():
        return None
    d = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    trits *= np.sign(d).astype(np.int8)
    scales = np.where(trits.any(1), np.abs(d[:, 0]) * np.float32(8), np.float32(0))
    used = np.unique(scales[scales > 0])
    if not np.isfinite(used).all():
        return None
    trits = trits.reshape(rows, cols)
    if used.size > 1:
        return Ternary(trits, scales.reshape(rows, -1))
    return Ternary(trits, np.asarray(used[0] if used.size else 0, np.float32))
