"""I1_6_S, bitnet_cy's own layout: five trits in a byte, 1.6 bits each, and one scale per tensor.

A row is whole blocks of 32 bytes, filled up with trit 0; a block holds 160 trits:

    digit     1st    2nd     3rd     4th     5th
    byte p     p    p+32    p+64    p+96   p+128        digit = trit + 1

With N the number that the digits make in base 3, the byte is ceil(256 N / 243), so that digits
come out by multiplication, as in TQ1_0. The float32 scale follows the rows, then 28 zero bytes.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.errors import FormatError
from bitnet_cy.formats.layouts.base import (
    Layout,
    Ternary,
    check_scale,
    check_size,
    check_trits,
    single_scale,
)

TAIL = 32
_WIDTH, _DIGITS, _BLOCK = 32, 5, 160
_PIECE = 1 << 12  # blocks: what a cache holds
_NUMBERS = np.arange(243)
_BYTES = ((_NUMBERS * 256 + 242) // 243).astype(np.uint8)
_TRITS = np.full((_DIGITS, 256), 2, np.int8)  # of each digit of a byte; 2: no trit
_TRITS[:, _BYTES] = _NUMBERS // 3 ** np.arange(_DIGITS)[::-1, None] % 3 - 1


def row_nbytes(cols: int) -> int:
    """Bytes of a row."""
    return -(-cols // _BLOCK) * _WIDTH


def _decode(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    count = rows * row_nbytes(cols)
    raw = check_size(raw, count + TAIL, "I1_6_S")
    scale = check_scale(raw[count : count + 4].view("<f4")[0], "I1_6_S")
    blocks = raw[:count].reshape(-1, _WIDTH)
    trits = np.empty((len(blocks), _DIGITS, _WIDTH), np.int8)
    for start in range(0, len(blocks), _PIECE):
        piece = slice(start, start + _PIECE)
        for digit in range(_DIGITS):
            trits[piece, digit] = _TRITS[digit][blocks[piece]]
        if trits[piece].max() > 1:
            raise FormatError("I1_6_S holds a byte that no five trits make: damaged")
    trits = np.ascontiguousarray(trits.reshape(rows, -1)[:, :cols])
    return Ternary(trits if scale else np.zeros_like(trits), scale)


def _encode(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    trits = check_trits(trits)
    if missing := -trits.shape[1] % _BLOCK:
        trits = np.pad(trits, ((0, 0), (0, missing)))
    digits = trits.reshape(-1, _DIGITS, _WIDTH)
    count = len(digits) * _WIDTH
    out = np.zeros(count + TAIL, np.uint8)
    blocks = out[:count].reshape(-1, _WIDTH)
    for start in range(0, len(blocks), _PIECE):
        piece = slice(start, start + _PIECE)
        number = np.zeros_like(blocks[piece])
        for digit in range(_DIGITS):
            number = number * np.uint8(3) + (digits[piece, digit] + np.int8(1)).view(np.uint8)
        blocks[piece] = _BYTES[number]
    out[count:][:4] = single_scale(scale, "I1_6_S").astype("<f4").reshape(1).view(np.uint8)
    return out


I1_6_S = Layout("I1_6_S", _decode, _encode)
