"""Float matrices to trits: weights that are ternary already, and full-precision masters.

Floats are compared as they are stored: the bits below the sign are a whole number that grows
with the magnitude. So a 16-bit matrix is never widened but to find its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bitnet_cy.errors import FormatError
from bitnet_cy.formats import floats
from bitnet_cy.formats.ternary import Ternary

_LEAST_MEAN = np.float32(1e-5)
# Weights that may share a scale: whole rows, and the blocks of TQ1_0 and other types.
_GROUPS = (256, 128, 64)


@dataclass(frozen=True)
class Matrix:
    """A matrix of float weights, [rows, cols].

    kind: "F32", "F16" or "BF16". blocks: gives the stored bits, unsigned integers [n, cols], from
    the first rows to the last, each time it is called.
    """

    kind: str
    shape: tuple[int, int]
    blocks: Callable[[], Iterator[np.ndarray]]

    @property
    def _mask(self) -> int:
        return 0x7FFFFFFF if self.kind == "F32" else 0x7FFF

    def magnitudes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of bits, with and without their signs; FormatError if one is not finite."""
        infinity = floats.INFINITY[self.kind]
        for block in self.blocks():
            found = block & block.dtype.type(self._mask)
            if found.max() >= infinity:
                raise FormatError("holds weights that are not finite; the checkpoint is damaged")
            yield block, found

    def signs(self, block: np.ndarray, least: int) -> np.ndarray:
        """Trits of a block, int8: the sign of what has a greater magnitude than `least`."""
        kind = block.dtype.type
        above = block.view(f"i{block.itemsize}") > least
        below = block > kind(self._mask + 1 + least)
        return above.view(np.int8) - below.view(np.int8)

    def value(self, magnitude: int) -> np.float32:
        """The number that a magnitude stands for."""
        raw = magnitude.to_bytes(4 if self.kind == "F32" else 2, "little")
        return np.float32(floats.decode(self.kind, np.frombuffer(raw, np.uint8), (1,))[0])


def on_grid(matrix: Matrix) -> Ternary | None:
    """The matrix as trits if it holds nothing but -a, 0 and +a; None otherwise.

    Each row may have its own a, or each 256, 128 or 64 weights of a row, as models have that were
    trained in parts (TriLM).
    """
    cols = matrix.shape[1]
    for size in (cols, *(size for size in _GROUPS if cols % size == 0 and size < cols)):
        levels = _levels(matrix, size)
        if levels is not None:
            return _from_levels(matrix, levels)
    return None


def share_off_grid(matrix: Matrix) -> float:
    """The share of weights that are not -a, 0 or +a, with a the largest magnitude."""
    peak = max(int(found.max()) for _, found in matrix.magnitudes())
    off = sum(
        int(np.count_nonzero((found != peak) & (found != 0))) for _, found in matrix.magnitudes()
    )
    return off / (matrix.shape[0] * matrix.shape[1])


def absmean(matrix: Matrix) -> Ternary:
    """The quantization BitNet b1.58 was trained with (Ma et al., 2024).

    With s = 1 / max(mean |W|, 1e-5) in float32: trits are W s rounded half to even and clamped,
    and the scale is 1 / s.
    """
    total = sum(_sum(matrix.kind, found) for _, found in matrix.magnitudes())
    mean = np.float32(total / (matrix.shape[0] * matrix.shape[1]))
    inverse = np.float32(1) / np.maximum(mean, _LEAST_MEAN)
    least = _largest_rounded_to_zero(matrix, inverse)
    trits = _filled(matrix.shape, (matrix.signs(block, least) for block in matrix.blocks()))
    return Ternary(trits, np.asarray(np.float32(1) / inverse, np.float32))


def _levels(matrix: Matrix, size: int) -> np.ndarray | None:
    """The magnitude of each group, [rows, groups], 0 if it is all zeros; None if one has more."""
    rows, cols = matrix.shape
    levels: np.ndarray | None = None
    row = 0
    for _, found in matrix.magnitudes():
        groups = found.reshape(len(found), cols // size, size)
        peaks = groups.max(2)
        if not ((groups == peaks[:, :, None]) | (groups == 0)).all():
            return None
        if levels is None:
            levels = np.empty((rows, cols // size), found.dtype)
        levels[row : row + len(found)] = peaks
        row += len(found)
    return levels


def _from_levels(matrix: Matrix, levels: np.ndarray) -> Ternary:
    trits = _filled(matrix.shape, (matrix.signs(block, 0) for block in matrix.blocks()))
    used = np.unique(levels[levels > 0])
    if used.size > 1:
        return Ternary(
            trits, floats.decode(matrix.kind, levels.view(np.uint8).reshape(-1), levels.shape)
        )
    scale = matrix.value(int(used[0])) if used.size else np.float32(0)
    return Ternary(trits, np.asarray(scale, np.float32))


def _filled(shape: tuple[int, int], blocks: Iterator[np.ndarray]) -> np.ndarray:
    trits, row = np.empty(shape, np.int8), 0
    for block in blocks:
        trits[row : row + len(block)] = block
        row += len(block)
    return trits


def _sum(kind: str, magnitudes: np.ndarray) -> float:
    """The sum of magnitudes [n, cols]: rows in float32, by pairs, and their sums in float64."""
    if kind == "F32":
        values = magnitudes.view(np.float32)
    elif kind == "BF16":
        values = (magnitudes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:  # exponents move into place, and multiplying rebases them, those of denormals too
        values = (magnitudes.astype(np.uint32) << np.uint32(13)).view(np.float32)
        values *= np.float32(2.0**112)
    with np.errstate(over="ignore"):
        return float(values.sum(1).sum(dtype=np.float64))


def _largest_rounded_to_zero(matrix: Matrix, inverse: np.float32) -> int:
    """The largest magnitude that times `inverse`, in float32, is at most one half."""
    low, high = 0, floats.INFINITY[matrix.kind]
    with np.errstate(over="ignore"):
        while high - low > 1:
            middle = (low + high) // 2
            if matrix.value(middle) * inverse <= np.float32(0.5):
                low = middle
            else:
                high = middle
    return low
