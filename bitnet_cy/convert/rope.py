"""The row order of q and k in GGUF files of Llama models.

Checkpoints hold a head's rows so that (i, i + D/2) are rotated together, Llama GGUF files so that
(2i, 2i + 1) are. D is the length of a head.
"""

from __future__ import annotations

import numpy as np


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Checkpoint order [heads * D, cols] to that of Llama GGUF files."""
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2)).reshape(
        rows.shape
    )


def deinterleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `interleave`."""
    return np.ascontiguousarray(rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2)).reshape(
        rows.shape
    )
