"""Seeded random weights with the statistics of trained ones, tensor by tensor.

Ternary matrices have 42 % zeros, as in BitNet-b1.58-2B-4T, and a scale that keeps activations
near unit size. A tensor depends on its name and the seed only, not on its type or neighbours.

The head decides how quickly the best tokens can be told from the rest, so by default it is not
plain Gaussian but has the spectrum ("realistic"):

* 5 % of the hidden dimensions hold about 56 % of the energy of the states that reach the head,
  as measured on a trained head of 640 dimensions. Gains of the last norm make it so: log-normal
  with sigma 0.3, and 4.7 times larger in those dimensions.
* Embedding rows share a mean row of 0.3 times their spread; the spread of a column is log-normal
  with sigma 0.25 and that of a row with sigma 0.15.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from bitnet_cy.errors import OptionError
from bitnet_cy.formats import floats, ternary

SPECTRA = ("realistic", "gaussian")
ZERO_SHARE = 0.42
PEAK_SHARE, PEAK_GAIN = 0.05, 4.7
LOGIT_SPREAD = 4.0
_PIECE = 1 << 22


class RandomWeights:
    """Makes the stored bytes of any tensor of a model."""

    def __init__(self, seed: int, spectrum: str = "realistic") -> None:
        if spectrum not in SPECTRA:
            raise OptionError(f"spectrum {spectrum!r}; known are {', '.join(SPECTRA)}")
        self._seed = seed
        self._realistic = spectrum == "realistic"
        self._bytes = packed_bytes()

    def _generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(name.encode())])

    def ternary(
        self, name: str, rows: int, cols: int, type_name: str, gain: float = 1.0
    ) -> Iterator[np.ndarray]:
        """A matrix for inputs of unit size and outputs of size `gain`, in pieces."""
        generator = self._generator(name)
        spread = gain * np.exp(generator.normal(0, 0.1))
        scale = np.float32(spread / np.sqrt((1 - ZERO_SHARE) * cols))
        if type_name == "I2_S":
            left = rows * cols // 4
            while left:
                count = min(left, _PIECE)
                yield self._packed(generator, count)
                left -= count
            yield np.frombuffer(scale.tobytes() + bytes(28), np.uint8)
        else:
            tail = np.frombuffer(scale.tobytes() + bytes(28), np.uint8)
            raw = np.concatenate([self._packed(generator, rows * cols // 4), tail])
            trits = ternary.decode("I2_S", raw, rows, cols).trits
            step = max(1, _PIECE // cols)
            for start in range(0, rows, step):
                yield ternary.encode(type_name, trits[start : start + step], scale)

    def _packed(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Random bytes of four codes each."""
        parts = [
            self._bytes[generator.integers(0, 1 << 16, min(_PIECE, count - start), np.uint16)]
            for start in range(0, count, _PIECE)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def norm(self, name: str, size: int, is_last: bool) -> np.ndarray:
        """Gains of a norm, float32 [size]; the last one shapes what the head sees."""
        generator = self._generator(name)
        if not (is_last and self._realistic):
            return np.exp(generator.normal(0, 0.1, size)).astype(np.float32)
        gains = np.exp(generator.normal(0, 0.3, size))
        peaks = generator.choice(size, max(1, round(PEAK_SHARE * size)), replace=False)
        gains[peaks] *= PEAK_GAIN
        return gains.astype(np.float32)

    def embedding(self, name: str, rows: int, cols: int, type_name: str) -> Iterator[np.ndarray]:
        """An embedding or head matrix in pieces, for logits of spread LOGIT_SPREAD or so."""
        generator = self._generator(name)
        spread = np.full(cols, LOGIT_SPREAD / np.sqrt(cols), np.float32)
        mean = np.zeros(cols, np.float32)
        if self._realistic:
            energy = np.exp(2 * 0.3**2) * (1 + PEAK_SHARE * (PEAK_GAIN**2 - 1))
            spread *= np.exp(generator.normal(0, 0.25, cols)) / np.sqrt(energy)
            mean = 0.3 * spread * generator.standard_normal(cols, np.float32)
        step = max(1, _PIECE // cols)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            values = generator.standard_normal((count, cols), np.float32) * spread + mean
            if self._realistic:
                values *= np.exp(generator.normal(0, 0.15, (count, 1))).astype(np.float32)
            yield floats.encode(type_name, values)


def packed_bytes() -> np.ndarray:
    """A table from 16 random bits to a byte of four independent codes: uint8 [65536]."""
    sign = (1 - ZERO_SHARE) / 2
    one = np.array([sign, ZERO_SHARE, sign])
    chances = np.einsum("a,b,c,d->abcd", one, one, one, one).reshape(-1)
    codes = np.indices((3, 3, 3, 3)).reshape(4, -1)
    packed = (codes << np.array([6, 4, 2, 0])[:, None]).sum(0).astype(np.uint8)
    bounds = np.rint(np.cumsum(chances) * (1 << 16)).astype(np.int64)
    return np.repeat(packed, np.diff(bounds, prepend=0))
