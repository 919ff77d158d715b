"""Float matrices to trits: weights that are ternary already, and full-precision masters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bitnet_cy.errors import FormatError
from bitnet_cy.formats.ternary import Ternary

# Float32 row blocks of a matrix, from the first to the last, each time it is called.
Blocks = Callable[[], Iterator[np.ndarray]]
_LEAST_MEAN = np.float32(1e-5)


def on_grid(blocks: Blocks, shape: tuple[int, int]) -> Ternary | None:
    """The matrix as trits if it holds nothing but -a, 0 and +a; None otherwise."""
    scale = _peak(blocks)
    trits = np.empty(shape, np.int8)
    row = 0
    for block in blocks():
        signs = np.sign(block)
        if not np.array_equal(signs * scale, block):
            return None
        trits[row : row + len(block)] = signs
        row += len(block)
    return Ternary(trits, np.asarray(scale, np.float32))


def share_off_grid(blocks: Blocks) -> float:
    """The share of weights that are not -a, 0 or +a, with a the largest magnitude."""
    scale, off, count = _peak(blocks), 0, 0
    for block in blocks():
        off += int(np.count_nonzero(np.sign(block) * scale != block))
        count += block.size
    return off / count


def absmean(blocks: Blocks, shape: tuple[int, int]) -> Ternary:
    """The quantization BitNet b1.58 was trained with (Ma et al., 2024).

    With s = 1 / max(mean |W|, 1e-5) in float32: trits are W s rounded half to even and clamped,
    and the scale is 1 / s.
    """
    total = sum(float(np.abs(block).sum(dtype=np.float64)) for block in blocks())
    mean = np.float32(total / (shape[0] * shape[1]))
    inverse = np.float32(1) / np.maximum(mean, _LEAST_MEAN)
    trits = np.empty(shape, np.int8)
    row = 0
    for block in blocks():
        trits[row : row + len(block)] = np.rint(block * inverse).clip(-1, 1)
        row += len(block)
    return Ternary(trits, np.asarray(np.float32(1) / inverse, np.float32))


def _peak(blocks: Blocks) -> np.float32:
    """The largest magnitude; FormatError if a weight is not finite."""
    peak = np.float32(0)
    for block in blocks():
        peak = np.maximum(peak, np.abs(block).max())
        if not np.isfinite(peak):
            raise FormatError("holds weights that are not finite; the checkpoint is damaged")
    return peak
