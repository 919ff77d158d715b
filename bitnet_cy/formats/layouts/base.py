"""What every ternary layout decodes to, and the checks they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitnet_cy.errors import FormatError, OptionError, UnsupportedError


@dataclass(frozen=True)
class Ternary:
    """A matrix of trits, int8 [rows, cols] in -1, 0, +1, and its float32 scale.

    The weights are `trits * scale`. The scale has shape () for one per tensor, [rows, 1] for one
    per row, or [rows, groups] for one per equal part of each row.
    """

    trits: np.ndarray
    scale: np.ndarray

    def dense(self) -> np.ndarray:
        """The weights, float32 [rows, cols]."""
        if self.scale.ndim < 2:
            return self.trits * self.scale
        rows, groups = self.scale.shape
        parts = self.trits.reshape(rows, groups, -1) * self.scale[:, :, None]
        return parts.reshape(self.trits.shape)

    def by_group(self) -> np.ndarray:
        """The scales as [rows, groups], a view that repeats those of more than one row."""
        parts = self.scale if self.scale.ndim == 2 else self.scale.reshape(-1, 1)
        return np.broadcast_to(parts, (len(self.trits), parts.shape[1]))


@dataclass(frozen=True)
class Layout:
    """One packed form: `decode(raw, rows, cols)` and `encode(trits, scale)`.

    Both may take further keyword parameters that the file does not hold.
    """

    name: str
    decode: Callable[..., Ternary]
    encode: Callable[..., np.ndarray]


def check_scale(scale: np.ndarray | np.floating | float, name: str) -> np.ndarray:
    """Scales as float32; FormatError unless all are finite and not negative."""
    scale = np.asarray(scale, np.float32)
    bad = scale[~(np.isfinite(scale) & (scale >= 0))]
    if bad.size:
        raise FormatError(
            f"{name} scale is {bad.flat[0]}; weight scales are finite and not negative: "
            "the file is damaged"
        )
    return scale


def check_size(raw: np.ndarray, expected: int, name: str) -> np.ndarray:
    """`raw` as contiguous bytes; FormatError unless there are `expected` of them."""
    if raw.size != expected:
        raise FormatError(f"{name} takes {expected} bytes for this shape; {raw.size} are there")
    return np.ascontiguousarray(raw)


def check_multiple(value: int, block: int, name: str, what: str) -> None:
    """UnsupportedError unless `value` is a multiple of `block`."""
    if value % block:
        raise UnsupportedError(f"{name} needs {what} in multiples of {block}; found {value}")


def check_trits(trits: np.ndarray) -> np.ndarray:
    """`trits` as contiguous int8 [rows, cols]; OptionError for other shapes or values."""
    is_matrix = trits.ndim == 2 and trits.dtype == np.int8 and trits.size > 0
    if not is_matrix or trits.min() < -1 or trits.max() > 1:
        raise OptionError("trits must be an int8 matrix of -1, 0 and +1; quantize weights first")
    return np.ascontiguousarray(trits)


def single_scale(scale: np.ndarray | float, name: str) -> np.ndarray:
    """The one scale of a tensor, float32 (); UnsupportedError if there are several."""
    scale = check_scale(scale, name)
    if scale.size != 1:
        raise UnsupportedError(
            f"{name} holds one scale per tensor; {scale.size} were given: tq1_0, tq2_0 and f16 "
            "keep several"
        )
    return scale.reshape(())


def row_scales(trits: np.ndarray, scale: np.ndarray | float, name: str) -> np.ndarray:
    """One scale per row, float32 [rows, 1], 0 for a row of zeros; UnsupportedError for more."""
    scale = check_scale(scale, name)
    if scale.size not in (1, len(trits)):
        raise UnsupportedError(f"{name} holds one scale per row; {scale.size} were given")
    return np.where(any_nonzero(trits[:, None]), scale.reshape(-1, 1), np.float32(0))


def group_scales(groups: np.ndarray, scale: np.ndarray | float, name: str) -> np.ndarray:
    """One float16 scale per group of trits [rows, groups, size]: [rows, groups], 0 for zeros.

    `scale` has a value for the tensor, each row, or equal parts of each row.
    """
    scale = check_scale(scale, name)
    rows, count, _ = groups.shape
    parts = scale.reshape(-1, 1) if scale.ndim < 2 else scale
    if len(parts) not in (1, rows) or count % parts.shape[1]:
        raise UnsupportedError(
            f"{name} holds {count} scales a row here; scales of {parts.shape[1]} parts of a row do "
            "not fit: f16 keeps them"
        )
    parts = np.repeat(parts, count // parts.shape[1], axis=1)
    return np.where(any_nonzero(groups), float16_scales(parts, name), np.float16(0)).astype("<f2")


def any_nonzero(groups: np.ndarray) -> np.ndarray:
    """Which groups of trits, contiguous int8 [rows, groups, size], are not all zeros: bool."""
    kind = np.uint64 if groups.shape[2] % 8 == 0 else np.uint8
    return np.asarray(groups.view(kind).any(2))


def float16_scales(scale: np.ndarray, name: str) -> np.ndarray:
    """Scales as float16; OptionError if one is too large or too small for it."""
    with np.errstate(over="ignore"):
        half = scale.astype("<f2")
    if not np.isfinite(half).all() or ((half == 0) & (scale > 0)).any():
        raise OptionError(f"a scale does not fit float16, which {name} stores; use I2_S")
    return half


def merge_scales(trits: np.ndarray, scales: np.ndarray, name: str) -> Ternary:
    """Trits in groups, int8 [rows, groups, size], with a scale each, [rows, groups].

    Groups of scale 0 hold zeros: `trits` is changed so. If the other scales are all equal, one
    is kept.
    """
    scales = check_scale(scales, name)
    trits[scales == 0] = 0
    trits = trits.reshape(len(trits), -1)
    used = np.unique(scales[scales > 0])
    if used.size > 1:
        return Ternary(trits, scales)
    return Ternary(trits, np.asarray(used[0] if used.size else 0, np.float32))
