"""TQ1_0 and TQ2_0, the ternary types of ggml: blocks of 256 trits of a row with a float16 scale.

TQ2_0: 64 bytes of two-bit codes, low bits first; byte m of each half holds m, m+32, m+64, m+96.
TQ1_0: 48 + 4 bytes of base-3 digits, five (or four) per byte, most significant first, the byte
being ceil(256 N / 243) so that digits come out by multiplication.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.formats.layouts.base import (
    Layout,
    Ternary,
    check_multiple,
    check_size,
    check_trits,
    group_scales,
    merge_scales,
)
from bitnet_cy.formats.layouts.fields import LOW_FIRST, pack, unpack

BLOCK = 256
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)
# Bytes of a TQ1_0 block that share a digit order: first byte, how many, digits in each.
_RUNS = ((0, 32, 5), (32, 16, 5), (48, 4, 4))
_STEP = 1 << 10  # blocks that a processor's cache holds
_BYTES = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)


def digits(packed: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Base-3 digits of bytes that hold ceil(256 N / 243): one per power of 3, on a new axis -2."""
    shifted = packed[..., None, :] * powers[:, None]  # uint8: wraps modulo 256 on purpose
    # The integer part of 3 x / 256, without leaving bytes.
    return (shifted > 85).view(np.int8) + (shifted > 170).view(np.int8)


def undigits(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The inverse of `digits`: digits on axis -2 with their weights (81 … 1) to bytes."""
    number = values[..., 0, :] * weights[0]
    for index in range(1, len(weights)):
        number += values[..., index, :] * weights[index]  # at most 242
    return _BYTES[number]


def _decode_tq2_0(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    blocks = _blocks(raw, rows, cols, 66, "TQ2_0")
    packed = np.ascontiguousarray(blocks[:, :64]).reshape(-1)
    return _merge(unpack(packed, 32, LOW_FIRST, "TQ2_0"), blocks[:, 64:], rows, "TQ2_0")


def _encode_tq2_0(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    blocks, scales = _split(trits, scale, "TQ2_0")
    packed = pack(blocks.reshape(-1), 32, LOW_FIRST).reshape(-1, 64)
    return np.concatenate([packed, scales], 1).reshape(-1)


def _decode_tq1_0(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    blocks = _blocks(raw, rows, cols, 54, "TQ1_0")
    trits = np.empty((len(blocks), BLOCK), np.int8)
    for first in range(0, len(blocks), _STEP):
        lines, end = slice(first, first + _STEP), 0
        for start, count, length in _RUNS:
            found = digits(blocks[lines, start : start + count], _POWERS[:length])
            begin, end = end, end + count * length
            np.subtract(found.reshape(len(found), -1), np.int8(1), out=trits[lines, begin:end])
    return _merge(trits, blocks[:, 52:], rows, "TQ1_0")


def _encode_tq1_0(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    blocks, scales = _split(trits, scale, "TQ1_0")
    out = np.empty((len(blocks), 54), np.uint8)
    out[:, 52:] = scales
    for first in range(0, len(blocks), _STEP):
        lines, end = slice(first, first + _STEP), 0
        for start, count, length in _RUNS:
            begin, end = end, end + count * length
            values = (blocks[lines, begin:end] + np.int8(1)).view(np.uint8)
            values = values.reshape(-1, length, count)
            out[lines, start : start + count] = undigits(values, _POWERS[::-1][:length])
    return out.reshape(-1)


def _blocks(raw: np.ndarray, rows: int, cols: int, nbytes: int, name: str) -> np.ndarray:
    check_multiple(cols, BLOCK, name, "columns")
    return check_size(raw, rows * cols // BLOCK * nbytes, name).reshape(-1, nbytes)


def _merge(trits: np.ndarray, scales: np.ndarray, rows: int, name: str) -> Ternary:
    scales = np.ascontiguousarray(scales).view("<f2").astype(np.float32)
    return merge_scales(trits.reshape(rows, -1, BLOCK), scales.reshape(rows, -1), name)


def _split(
    trits: np.ndarray, scale: np.ndarray | float, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Trits by block and the scale bytes of each block; a block of zeros gets scale 0."""
    trits = check_trits(trits)
    check_multiple(trits.shape[1], BLOCK, name, "columns")
    groups = trits.reshape(len(trits), -1, BLOCK)
    scales = group_scales(groups, scale, name)
    return groups.reshape(-1, BLOCK), scales.reshape(-1, 1).view(np.uint8)


TQ1_0 = Layout("TQ1_0", _decode_tq1_0, _encode_tq1_0)
TQ2_0 = Layout("TQ2_0", _decode_tq2_0, _encode_tq2_0)
