"""In which layout the ternary rows of a model run: two bits a weight, or 1.6."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bitnet_cy.engine import Layer, Ternary, dense
from bitnet_cy.engine.weights import ByteArray, row_nbytes
from bitnet_cy.errors import ResourceError, UnsupportedError

LAYOUTS = ("2bit", "1.6bit")
CHOICES = ("auto", *LAYOUTS)

_SAMPLE = 48 << 20
"""Bytes of two-bit rows that are measured: with their copy more than most caches hold."""
_ROUNDS = 3
_WORTH = 0.96
"""The share of the time at which a copy of the weights is worth its memory."""
_LONGEST = 1 << 17


@dataclass(frozen=True)
class Arrangement:
    """The layout that runs, "2bit" or "1.6bit", and why."""

    layout: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layout} ({self.reason})"


def arrange(
    layers: Sequence[Layer],
    wanted: str,
    threads: int,
    room: int | None = None,
    weight_only: bool = False,
) -> tuple[list[Layer], Arrangement]:
    """The layers with all their ternary rows in one layout.

    wanted: one of CHOICES. "auto" keeps rows that a file holds in 1.6 bits, and otherwise
    measures on some of the rows which layout is read faster; the products are the same integers.
    room: bytes of memory that a copy may take, None for any number. weight_only: activations are
    floats, whose products are made from two-bit rows alone. Raises ResourceError and
    UnsupportedError where `wanted` cannot be had.
    """
    rows = [linear for layer in layers for linear in _linears(layer)]
    stored = {linear.layout for linear in rows}
    if weight_only:
        if wanted == "1.6bit":
            raise UnsupportedError(
                "this model computes with float activations, which layout 1.6bit does not serve; "
                "take weights='2bit'"
            )
        return _converted(layers, "2bit", threads), Arrangement("2bit", "of float activations")
    if wanted != "auto":
        if room is not None and room < _copied(rows, wanted):
            raise ResourceError(
                f"a copy of the ternary weights in layout {wanted} does not fit into the memory "
                "left; take weights='auto'"
            )
        return _converted(layers, wanted, threads), Arrangement(wanted, "asked for")
    if stored == {"1.6bit"}:
        return list(layers), Arrangement("1.6bit", "as the file holds them")
    if len(stored) > 1:
        return _converted(layers, "2bit", threads), Arrangement("2bit", "the file holds both")
    sample = _sample(rows)
    if sum(linear.codes.nbytes for linear in sample) < _SAMPLE:
        return list(layers), Arrangement("2bit", "the weights are few")
    if max(linear.cols for linear in rows) > _LONGEST:
        return list(layers), Arrangement("2bit", "the rows are long")
    if room is not None and room < _copied(rows, "1.6bit"):
        return list(layers), Arrangement("2bit", "there is no memory for a copy")
    return _measured(layers, sample, threads)


def _measured(
    layers: Sequence[Layer], sample: list[Ternary], threads: int
) -> tuple[list[Layer], Arrangement]:
    share = _share_of_time(sample, threads)
    reason = f"measured: 1.6 bits take {share:.0%} of the time of 2 bits"
    if share > _WORTH:
        return list(layers), Arrangement("2bit", reason)
    return _converted(layers, "1.6bit", threads), Arrangement("1.6bit", reason)


def _share_of_time(sample: list[Ternary], threads: int) -> float:
    """How long products with 1.6-bit rows take, as a share of those with 2-bit rows."""
    arena = np.empty(_copied(sample, "1.6bit"), dtype=np.uint8)
    plain = [linear.codes for linear in sample]
    packed = [linear.codes for linear in _into(arena, sample, "1.6bit", threads)]
    times = [
        (
            dense.gemv_seconds(plain, "2bit", threads),
            dense.gemv_seconds(packed, "1.6bit", threads),
        )
        for _ in range(_ROUNDS)
    ]
    two_bits, fewer = (min(column) for column in zip(*times, strict=True))
    return fewer / two_bits


def _sample(rows: Sequence[Ternary]) -> list[Ternary]:
    """The first matrices, enough to measure with, or all."""
    taken, nbytes = [], 0
    for linear in rows:
        if nbytes >= _SAMPLE:
            break
        taken.append(linear)
        nbytes += linear.codes.nbytes
    return taken


def _converted(layers: Sequence[Layer], layout: str, threads: int) -> list[Layer]:
    """The layers in a layout; those that have another are copied into one block of memory."""
    others = [one for layer in layers for one in _linears(layer) if one.layout != layout]
    arena = np.empty(_copied(others, layout), dtype=np.uint8)
    made = _into(arena, others, layout, threads)
    done = []
    for layer in layers:
        parts: dict[str, Any] = {
            name: next(made) if linear.layout != layout else linear
            for name, linear in _named_linears(layer)
        }
        done.append(replace(layer, **parts))
    return done


def _into(
    arena: ByteArray, linears: Sequence[Ternary], layout: str, threads: int
) -> Iterator[Ternary]:
    """The matrices in another layout, one after the other in an arena."""
    start = 0
    for linear in linears:
        row_bytes = row_nbytes(linear.cols, layout)
        target = arena[start : start + linear.rows * row_bytes].reshape(linear.rows, row_bytes)
        convert = dense.pack if layout == "1.6bit" else dense.unpack
        convert(linear.codes, linear.cols, threads, target)
        start += target.nbytes
        yield replace(linear, codes=target, layout=layout)


def _copied(rows: Sequence[Ternary], layout: str) -> int:
    """Bytes of a copy, in a layout, of the rows that have another."""
    return sum(_nbytes(linear, layout) for linear in rows if linear.layout != layout)


def _nbytes(linear: Ternary, layout: str) -> int:
    return linear.rows * row_nbytes(linear.cols, layout)


def _linears(layer: Layer) -> list[Ternary]:
    return [linear for _, linear in _named_linears(layer)]


def _named_linears(layer: Layer) -> list[tuple[str, Ternary]]:
    parts = ((field.name, getattr(layer, field.name)) for field in fields(layer))
    return [(name, part) for name, part in parts if isinstance(part, Ternary)]
