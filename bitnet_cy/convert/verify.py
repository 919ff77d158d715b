"""Comparing what was written with its source, value by value."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from bitnet_cy.convert import vocabulary
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.progress import Progress
from bitnet_cy.convert.report import Report, Row
from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, Weight, located
from bitnet_cy.errors import BitNetError, FormatError
from bitnet_cy.formats.ternary import Ternary

# How far a scale may be off, relative to itself: half a unit in the last place of what holds it.
# A packed checkpoint may hold the inverse, which costs a rounding on either way.
_SCALE_ERRORS = {"TQ1_0": 2.0**-11, "TQ2_0": 2.0**-11, "F16": 2.0**-11, "BF16": 2.0**-8}
_INVERSE_ERROR = 2.0**-23
# How far a value may be off, relative to itself, or to the largest of the block it shares a
# scale with: (relative, block length, relative to the block's largest).
_VALUE_ERRORS = {
    "F32": (0.0, 1, 0.0),
    "F16": (2.0**-11, 1, 0.0),
    "BF16": (2.0**-8, 1, 0.0),
    "Q8_0": (0.0, 32, 0.5 / 127 + 2.0**-11),
    "Q6_K": (0.0, 256, 1 / 28),
}
_SMALLEST_F16 = 2.0**-25
_COMPARED = 1 << 24


def verify(source: Model, written: Model, progress: Progress) -> Report:
    """Read both again and compare: trits exactly, floats and scales within their type's error.

    Raises FormatError on the first difference.
    """
    report = Report(written.path, notes=list(source.notes))
    names = [weight.name for weight in written.weights]
    if names != [weight.name for weight in source.weights] or written.tied != source.tied:
        raise FormatError("the written file has other tensors than its source")
    if source.tokenizer is not None:
        if written.tokenizer is None:
            raise FormatError("the written file has lost its vocabulary")
        vocabulary.compare(source.tokenizer, written.tokenizer)
    progress.start("verifying", sum(math.prod(weight.shape) for weight in source.weights))
    for mine, theirs in zip(source.weights, written.weights, strict=True):
        row = report.row(_part(mine.name), mine.stored, theirs.stored)
        try:
            _compare(mine, theirs, row)
        except BitNetError as error:
            raise located(mine, error) from None
        row.tensors += 1
        row.nbytes += theirs.nbytes if isinstance(theirs, TernaryWeight) else theirs.raw().nbytes
        source.forget()
        written.forget()
        progress.advance(math.prod(mine.shape))
    return report


def file_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


def _part(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    return parts[-1]


def _compare(source: Weight, written: Weight, row: Row) -> None:
    if isinstance(source, TernaryWeight) and isinstance(written, TernaryWeight):
        _compare_trits(source.load(), written.load(), written.stored, row)
    elif isinstance(source, FloatWeight) and isinstance(written, FloatWeight):
        _compare_floats(source, written, row)
    else:
        raise FormatError("is ternary in one file and not in the other")


def _compare_trits(source: Ternary, written: Ternary, stored: str, row: Row) -> None:
    if not np.array_equal(source.trits, written.trits):
        count = int(np.count_nonzero(source.trits != written.trits))
        raise FormatError(f"is written wrongly: {count} trits differ (stored as {stored})")
    plus = int(np.count_nonzero(written.trits > 0))
    nonzero = int(np.count_nonzero(written.trits))
    row.plus += plus
    row.minus += nonzero - plus
    row.zero += written.trits.size - nonzero
    if not nonzero:
        return
    error = _scale_error(source, written)
    limit = _SCALE_ERRORS.get(stored, _INVERSE_ERROR if stored == "packed uint8" else 0.0)
    if not error <= limit:
        raise FormatError(
            f"is written wrongly: its scale is off by {error:.2g} (stored as {stored})"
        )
    used = written.scale[written.scale > 0] if written.scale.ndim else written.scale
    low, high = float(used.min()), float(used.max())
    row.scales = (min(low, row.scales[0]), max(high, row.scales[1])) if row.scales else (low, high)
    row.error = max(row.error, error)


def _scale_error(source: Ternary, written: Ternary) -> float:
    """The largest difference of a scale, relative to it. Trits are known to be equal."""
    if source.scale.size == written.scale.size == 1:
        a, b = float(source.scale.reshape(())), float(written.scale.reshape(()))
        return abs(a - b) / a
    dense = source.dense()
    nonzero = dense != 0
    return float(np.abs(written.dense()[nonzero] / dense[nonzero] - 1).max())


def _compare_floats(source: FloatWeight, written: FloatWeight, row: Row) -> None:
    if written.stored == source.stored:
        _compare_bytes(source.raw(), written.raw())
        return
    for a, b in zip(source.blocks(), written.blocks(), strict=True):
        row.error = max(row.error, _block_error(a, b, written.stored))


def _compare_bytes(source: np.ndarray, written: np.ndarray) -> None:
    for start in range(0, source.size, _COMPARED):
        part = slice(start, start + _COMPARED)
        if not np.array_equal(source[part], written[part]):
            raise FormatError("is written wrongly: its bytes differ from the source's")


def _block_error(source: np.ndarray, written: np.ndarray, stored: str) -> float:
    """The largest difference relative to the largest magnitude; FormatError if it is too much."""
    relative, length, to_peak = _VALUE_ERRORS[stored]
    off = np.abs(source - written)
    size = np.abs(source)
    limit = size * np.float32(relative) + np.float32(_SMALLEST_F16 if stored == "F16" else 0)
    if length > 1:
        peaks = size.reshape(-1, length).max(1, keepdims=True) * np.float32(to_peak)
        limit = np.repeat(peaks, length, 1).reshape(size.shape) + np.float32(_SMALLEST_F16)
    if not (off <= limit).all():
        raise FormatError(
            f"is written wrongly: a value is off by {float(off.max()):.2g}, more than rounding to "
            f"{stored} explains"
        )
    peak = float(size.max())
    return float(off.max()) / peak if peak else 0.0
