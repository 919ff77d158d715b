"""What every ternary layout decodes to, and the checks they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitnet_cy.errors import FormatError, OptionError, UnsupportedError


@dataclass(frozen=True)
class Ternary:
    """A matrix of trits, int8 [rows, cols] in -1, 0, +1, and its float32 scale.

    The weights are `trits * scale`. The scale has shape () for one per tensor.
    """

    trits: np.ndarray
    scale: np.ndarray

    def dense(self) -> np.ndarray:
        """The weights, float32 [rows, cols]."""
        return self.trits * self.scale


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


def check_codes(packed: np.ndarray, name: str) -> None:
    """FormatError if any two-bit code in the bytes is 3."""
    if (packed & (packed >> 1) & 0x55).any():
        raise FormatError(f"{name} holds code 3, which is no trit: damaged, or not ternary")


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
    if trits.ndim != 2 or trits.size == 0 or trits.min() < -1 or trits.max() > 1:
        raise OptionError("trits must be a matrix of -1, 0 and +1; quantize the weights first")
    return np.ascontiguousarray(trits, np.int8)


def single_scale(scale: np.ndarray | float, name: str) -> np.ndarray:
    """The one scale of a tensor, float32 (); UnsupportedError if there are several."""
    scale = check_scale(scale, name)
    if scale.size != 1:
        raise UnsupportedError(f"{name} holds one scale per tensor; {scale.size} were given")
    return scale.reshape(())


def merge_scales(trits: np.ndarray, scales: np.ndarray, name: str) -> Ternary:
    """Trits in groups, int8 [rows, groups, size], with a scale each, [rows, groups].

    Groups of scale 0 hold zeros. UnsupportedError if the other scales differ.
    """
    scales = check_scale(scales, name)
    used = np.unique(scales[scales > 0])
    if used.size > 1:
        raise UnsupportedError(
            f"{name} tensor has {used.size} different scales; models with one scale per tensor "
            "are supported"
        )
    if used.size and (scales == 0).any():
        trits = np.where(scales[:, :, None] > 0, trits, np.int8(0))
    scale = used[0] if used.size else np.float32(0)
    return Ternary(trits.reshape(len(trits), -1), np.asarray(scale, np.float32))
