"""Trits as two-bit fields of bytes, code = trit + 1: what most ternary layouts are made of.

A layout of this kind is a sequence of blocks of `width` bytes that hold 4 * width trits: field j
of byte p is trit j * width + p of the block. `shifts` says where in the byte field j lies.

Work goes in pieces that a processor's cache holds, eight bytes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bitnet_cy.errors import FormatError

HIGH_FIRST, LOW_FIRST = (6, 4, 2, 0), (0, 2, 4, 6)
PIECE = 1 << 17  # bytes
_LONG_RUN = 1 << 12


def unpack(packed: np.ndarray, width: int, shifts: tuple[int, ...], name: str) -> np.ndarray:
    """Bytes, uint8 [n * width], as trits, int8 [n * 4 * width]; FormatError for code 3."""
    out = np.empty(packed.size * 4, np.int8)
    for fields, part in _parts(out, packed, width):
        part = part.copy()  # aligned, which bytes of a file may not be
        if _holds_code_3(part):
            raise FormatError(f"{name} holds code 3, which is no trit: damaged, or not ternary")
        for field, shift in zip(fields, shifts, strict=True):
            plane = field_of(part, shift)
            plane -= 1
            field[...] = plane.view(field.dtype)
    return out


def pack(trits: np.ndarray, width: int, shifts: tuple[int, ...]) -> np.ndarray:
    """The inverse of `unpack`: trits, contiguous int8 [n * 4 * width]."""
    out = np.empty(trits.size // 4, np.uint8)
    for fields, part in _parts(trits, out, width):
        total = np.zeros(part.size, np.uint8)
        for field, shift in zip(fields, shifts, strict=True):
            plane = np.ascontiguousarray(field).view(np.uint8)
            plane = plane + np.uint8(1)  # a copy: `field` may be the caller's
            lanes = _wide(plane)
            lanes <<= lanes.dtype.type(shift)
            _wide(total)[...] |= lanes
        part[...] = total
    return out


def field_of(packed: np.ndarray, shift: int) -> np.ndarray:
    """The codes that lie at `shift` in contiguous bytes, a new uint8 array."""
    lanes = _wide(packed)
    found = lanes >> lanes.dtype.type(shift)
    found &= _repeated(3, lanes)
    return found.view(np.uint8)


def _holds_code_3(packed: np.ndarray) -> bool:
    lanes = _wide(packed)
    both = lanes >> lanes.dtype.type(1)
    both &= lanes
    both &= _repeated(0x55, lanes)
    return bool(both.any())


def _repeated(byte: int, lanes: np.ndarray) -> np.integer:
    """A number of the type of `lanes` whose bytes are all `byte`."""
    return lanes.dtype.type(int.from_bytes(bytes([byte]) * lanes.itemsize, "little"))


def _wide(values: np.ndarray) -> np.ndarray:
    """The same bytes as numbers of eight, if there are whole ones.

    Codes shifted within a byte do not reach the next, so eight can be shifted at once.
    """
    return values.view(np.uint64) if values.size % 8 == 0 else values


def _parts(
    trits: np.ndarray, packed: np.ndarray, width: int
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Pieces of both: the four runs of trits that belong to some bytes, and these bytes."""
    if width >= _LONG_RUN:
        blocks = trits.reshape(-1, 4, width)
        for block, line in zip(blocks, packed.reshape(-1, width), strict=True):
            for start in range(0, width, PIECE):
                piece = slice(start, start + PIECE)
                yield [run[piece] for run in block], line[piece]
        return
    # A run as one item of its size is copied whole; a loop over its bytes would cost more.
    runs = trits.view(f"V{width}" if width > 1 else trits.dtype).reshape(-1, 4)
    step = max(1, PIECE // width)
    for start in range(0, len(runs), step):
        lines = slice(start, start + step)
        yield [runs[lines, field] for field in range(4)], packed[start * width :][: step * width]
