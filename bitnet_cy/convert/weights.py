"""The tensors of a model on their way from one file to another, loaded one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bitnet_cy.errors import BitNetError, FormatError, UnsupportedError
from bitnet_cy.formats import floats
from bitnet_cy.formats.ternary import Ternary

_BLOCK_VALUES = 1 << 21


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
    """An embedding, a head or a norm. raw: gives its bytes in the type `stored`."""

    name: str
    source: str
    shape: tuple[int, ...]
    stored: str
    raw: Callable[[], np.ndarray]

    def blocks(self) -> Iterator[np.ndarray]:
        """The values as float32, a block of rows at a time. FormatError for NaN and infinity."""
        for block in decoded(self.raw(), self.stored, self.shape):
            if not np.isfinite(block).all():
                raise FormatError("holds values that are not finite; the file is damaged")
            yield block


Weight = TernaryWeight | FloatWeight


def decoded(raw: np.ndarray, type_name: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Stored bytes as float32, a block of rows at a time."""
    if type_name not in floats.NAMES:
        raise UnsupportedError(
            f"has type {type_name}; values are read from {', '.join(floats.NAMES)}"
        )
    rows = math.prod(shape[:-1])
    lines = raw.reshape(rows, -1)
    step = max(1, _BLOCK_VALUES // shape[-1])
    for start in range(0, rows, step):
        part = lines[start : start + step]
        yield floats.decode(type_name, part.reshape(-1), (len(part), shape[-1]))


def located(weight: Weight, error: BitNetError) -> BitNetError:
    """The same error with the name of the tensor in front."""
    return type(error)(f"tensor {weight.source}: {error}")
