"""Jobs that make the stored bytes of a weight, for the files that are written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, located, parts
from bitnet_cy.convert.workers import Job
from bitnet_cy.errors import BitNetError, OptionError
from bitnet_cy.formats import floats, ternary
from bitnet_cy.formats.ternary import Ternary


def ternary_bytes(weight: TernaryWeight, type_name: str) -> np.ndarray:
    """A matrix of trits in a ternary or a float type, uint8 [n]."""
    try:
        found = weight.load()
        if type_name in ternary.NAMES:
            return ternary.encode(type_name, found.trits, found.scale)
        return dense_bytes(found, type_name)
    except BitNetError as error:
        raise located(weight, error) from None


def dense_bytes(found: Ternary, type_name: str) -> np.ndarray:
    """The weights as F16 or BF16: the bits of the scale with the signs of the trits."""
    scales = found.by_group()
    with np.errstate(over="ignore"):
        bits = floats.encode(type_name, scales).view(np.uint16).reshape(scales.shape)
    if not floats.is_finite(type_name, bits):
        raise OptionError(f"a scale does not fit {type_name}; use I2_S")
    rows, cols = found.trits.shape
    out = np.empty((rows, cols), np.uint16)
    for piece in parts((rows, cols)):
        trits = found.trits[piece]
        groups = trits.reshape(len(trits), scales.shape[1], -1)
        line = (groups != 0) * bits[piece][:, :, None]
        line |= (groups < 0).astype(np.uint16) << np.uint16(15)
        out[piece] = line.reshape(len(trits), cols)
    return out.reshape(-1).view(np.uint8)


def float_jobs(weight: FloatWeight, kind: str) -> list[Job[np.ndarray]]:
    """One job for each part of an embedding, a head or a norm, to be stored as `kind`."""
    make: Callable[[FloatWeight, slice, str], np.ndarray]
    make = _kept if kind == weight.stored and not weight.offset else _encoded
    return [partial(make, weight, rows, kind) for rows in weight.parts()]


def _kept(weight: FloatWeight, rows: slice, _: str) -> np.ndarray:
    try:
        return weight.part(rows)
    except BitNetError as error:
        raise located(weight, error) from None


def _encoded(weight: FloatWeight, rows: slice, kind: str) -> np.ndarray:
    try:
        values = weight.values(rows)
        with np.errstate(over="ignore"):
            raw = floats.encode(kind, values)
        if kind in floats.INFINITY and not floats.is_finite(kind, raw):
            raise OptionError(f"holds values that are too large for {kind}; choose bf16")
        return raw
    except BitNetError as error:
        raise located(weight, error) from None
