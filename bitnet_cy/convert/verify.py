"""Comparing what was written with its source, value by value."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from bitnet_cy.convert import vocabulary
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.progress import Progress
from bitnet_cy.convert.report import Report, Row
from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, Weight, located
from bitnet_cy.convert.workers import Job, Workers
from bitnet_cy.errors import BitNetError, FormatError
from bitnet_cy.formats.ternary import Ternary, any_nonzero

# How far a scale may be off, relative to itself: half a unit in the last place of what holds it.
# A packed checkpoint may hold the inverse, which costs a rounding on either way.
_SCALE_ERRORS = {
    "TQ1_0": 2.0**-11, "TQ2_0": 2.0**-11, "Q2_0": 2.0**-11, "F16": 2.0**-11, "BF16": 2.0**-8,
}  # fmt: skip
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


@dataclass
class _Found:
    """What a comparison found in a part of a tensor, to be added to the row of a report."""

    values: int
    minus: int = 0
    zero: int = 0
    plus: int = 0
    scales: tuple[float, float] | None = None
    error: float = 0.0


def verify(source: Model, written: Model, team: Workers, progress: Progress) -> Report:
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
    pairs = list(zip(source.weights, written.weights, strict=True))
    jobs = [_jobs(mine, theirs) for mine, theirs in pairs]
    with closing(team.in_order(chain.from_iterable(jobs))) as made:
        for (mine, theirs), parts in zip(pairs, jobs, strict=True):
            row = report.row(_part(mine.name), mine.stored, theirs.stored)
            for found in islice(made, len(parts)):
                _add(row, found)
                source.forget()
                written.forget()
                progress.advance(found.values)
            row.tensors += 1
            row.nbytes += (
                theirs.nbytes if isinstance(theirs, TernaryWeight) else theirs.raw().nbytes
            )
    return report


def file_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


def _part(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    return parts[-1]


def _jobs(source: Weight, written: Weight) -> list[Job[_Found]]:
    if isinstance(source, TernaryWeight) and isinstance(written, TernaryWeight):
        return [partial(_compare_trits, source, written)]
    if isinstance(source, FloatWeight) and isinstance(written, FloatWeight):
        return [partial(_compare_floats, source, written, rows) for rows in source.parts()]
    raise located(source, FormatError("is ternary in one file and not in the other"))


def _add(row: Row, found: _Found) -> None:
    row.minus += found.minus
    row.zero += found.zero
    row.plus += found.plus
    row.error = max(row.error, found.error)
    if found.scales is not None:
        low, high = row.scales or found.scales
        row.scales = (min(low, found.scales[0]), max(high, found.scales[1]))


def _compare_trits(source: TernaryWeight, written: TernaryWeight) -> _Found:
    try:
        return _same_trits(source.load(), written.load(), written.stored)
    except BitNetError as error:
        raise located(source, error) from None


def _same_trits(source: Ternary, written: Ternary, stored: str) -> _Found:
    size = source.trits.size
    if not np.array_equal(source.trits, written.trits):
        count = int(np.count_nonzero(source.trits != written.trits))
        raise FormatError(f"is written wrongly: {count} trits differ (stored as {stored})")
    nonzero = int(np.count_nonzero(written.trits))
    plus = int(np.count_nonzero(written.trits > 0))
    found = _Found(size, nonzero - plus, size - nonzero, plus)
    if not nonzero:
        return found
    found.error = _scale_error(source, written)
    limit = _SCALE_ERRORS.get(stored, _INVERSE_ERROR if stored == "packed uint8" else 0.0)
    if not found.error <= limit:
        raise FormatError(
            f"is written wrongly: its scale is off by {found.error:.2g} (stored as {stored})"
        )
    used = written.scale[written.scale > 0]
    found.scales = float(used.min()), float(used.max())
    return found


def _scale_error(source: Ternary, written: Ternary) -> float:
    """The largest difference of a scale, relative to it. Trits are known to be equal.

    Where there are several, the smaller groups of the two are compared, but for those that are
    all zeros, to which a scale means nothing.
    """
    if source.scale.size == written.scale.size == 1:
        one, other = float(source.scale.reshape(())), float(written.scale.reshape(()))
        return abs(other - one) / one
    rows = len(source.trits)
    parts = [source.by_group(), written.by_group()]
    count = max(part.shape[1] for part in parts)
    if any(count % part.shape[1] for part in parts):
        raise FormatError("is written wrongly: its scales are those of other groups of weights")
    a, b = (np.repeat(part, count // part.shape[1], 1).astype(np.float64) for part in parts)
    used = any_nonzero(source.trits.reshape(rows, count, -1))
    return float(np.abs(b[used] / a[used] - 1).max())


def _compare_floats(source: FloatWeight, written: FloatWeight, rows: slice) -> _Found:
    try:
        count = (rows.stop - rows.start) * source.shape[-1]
        if (written.stored, written.offset) == (source.stored, source.offset):
            if not np.array_equal(source.part(rows), written.part(rows)):
                raise FormatError("is written wrongly: its bytes differ from the source's")
            return _Found(count)
        shifted = written.offset != source.offset
        error = _block_error(source.values(rows), written.values(rows), written.stored, shifted)
        return _Found(count, error=error)
    except BitNetError as error:
        raise located(source, error) from None


def _block_error(
    source: np.ndarray, written: np.ndarray, stored: str, shifted: bool = False
) -> float:
    """The largest difference relative to the largest magnitude; FormatError if it is too much.

    shifted: both are sums of what is stored and an offset about 1, which rounds, too.
    """
    relative, length, to_peak = _VALUE_ERRORS[stored]
    off = np.abs(source - written)
    size = np.abs(source)
    limit = size * np.float32(relative) + np.float32(_SMALLEST_F16 if stored == "F16" else 0)
    if shifted:
        limit = limit * 2 + np.maximum(size, 1) * np.float32(2.0**-23)
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
