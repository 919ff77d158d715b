"""The tensors of a model on their way from one file to another, loaded one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bitnet_cy.convert.masters import Matrix
from bitnet_cy.errors import BitNetError, FormatError, UnsupportedError
from bitnet_cy.formats import floats, ternary
from bitnet_cy.formats.ternary import Ternary

_PART_VALUES = 1 << 20
_BITS = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}


@dataclass(frozen=True)
class TernaryWeight:
    """A matrix of trits. `name` and the order of rows are those of GGUF files.

    source: its name where it comes from. stored, nbytes: how it is stored there.
    load: gives it.
    """

    name: str
    source: str
    shape: tuple[int, int]
    stored: str
    nbytes: int
    load: Callable[[], Ternary]


@dataclass(frozen=True)
class FloatWeight:
    """An embedding, a head or a norm. raw: gives its bytes in the type `stored`.

    offset: to be added to what is stored, for the values that GGUF files hold.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    stored: str
    raw: Callable[[], np.ndarray]
    offset: float = 0.0

    def parts(self) -> list[slice]:
        """The rows, cut into parts of a few megabytes."""
        return parts(self.shape)

    def part(self, rows: slice) -> np.ndarray:
        """The stored bytes of some rows; FormatError for NaN and infinity."""
        raw = self.raw().reshape(_rows(self.shape), -1)[rows].reshape(-1)
        if self.stored in _BITS:
            if not floats.is_finite(self.stored, raw):
                raise FormatError("holds values that are not finite; the file is damaged")
        else:
            self.values(rows)
        return raw

    def values(self, rows: slice) -> np.ndarray:
        """The values of some rows, float32 [n, cols]; FormatError for NaN and infinity."""
        found = decoded(self.raw(), self.stored, self.shape, rows)
        if not np.isfinite(found).all():
            raise FormatError("holds values that are not finite; the file is damaged")
        return found + np.float32(self.offset) if self.offset else found


Weight = TernaryWeight | FloatWeight


def parts(shape: tuple[int, ...]) -> list[slice]:
    """The rows of a tensor, cut into parts of about a million values."""
    rows = _rows(shape)
    step = max(1, _PART_VALUES // shape[-1])
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def decoded(raw: np.ndarray, type_name: str, shape: tuple[int, ...], rows: slice) -> np.ndarray:
    """Some rows of a stored tensor as float32 [n, cols]."""
    if type_name not in (*floats.NAMES, *ternary.BY_ROW):
        raise UnsupportedError(
            f"has type {type_name}; values are read from "
            f"{', '.join((*floats.NAMES, *ternary.BY_ROW))}"
        )
    part = raw.reshape(_rows(shape), -1)[rows]
    count, part = len(part), part.reshape(-1)
    if type_name in ternary.BY_ROW:
        return ternary.decode(type_name, part, count, shape[-1], grouped=True).dense()
    return floats.decode(type_name, part, (count, shape[-1]))


def matrix(raw: Callable[[], np.ndarray], type_name: str, shape: tuple[int, int]) -> Matrix:
    """Stored floats as the bits that they are, or would be as F32."""

    def blocks() -> Iterator[np.ndarray]:
        stored = raw()
        for rows in parts(shape):
            if type_name in _BITS:
                yield stored.view(_BITS[type_name]).reshape(shape)[rows]
            else:
                yield decoded(stored, type_name, shape, rows).view(np.uint32)

    return Matrix(type_name if type_name in _BITS else "F32", shape, blocks)


def located(weight: Weight, error: BitNetError) -> BitNetError:
    """The same error with the name of the tensor in front."""
    return type(error)(f"tensor {weight.source}: {error}")


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])
