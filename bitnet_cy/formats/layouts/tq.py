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
    check_codes,
    check_multiple,
    check_size,
    check_trits,
    group_scales,
    merge_scales,
)

BLOCK = 256
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)[:, None]
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)
# Bytes of a TQ1_0 block that share a digit order: first byte, how many, digits in each.
_RUNS = ((0, 32, 5), (32, 16, 5), (48, 4, 4))


def digits(packed: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Base-3 digits of bytes that hold ceil(256 N / 243): one per power of 3, on a new axis -2."""
    shifted = packed[..., None, :] * powers[:, None]  # uint8: wraps modulo 256 on purpose
    return (shifted.astype(np.uint16) * 3 >> 8).astype(np.int8)


def undigits(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The inverse of `digits`: digits on axis -2 with their weights (81 … 1) to bytes."""
    number = (values.astype(np.uint16) * weights[:, None].astype(np.uint16)).sum(-2)
    return ((number * 256 + 242) // 243).astype(np.uint8)


def _decode_tq2_0(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    blocks = _blocks(raw, rows, cols, 66, "TQ2_0")
    check_codes(blocks[:, :64], "TQ2_0")
    codes = blocks[:, :64].reshape(-1, 2, 1, 32) >> _SHIFTS & np.uint8(3)
    return _merge(codes.view(np.int8) - np.int8(1), blocks[:, 64:], rows, "TQ2_0")


def _encode_tq2_0(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    blocks, scales = _split(trits, scale, "TQ2_0")
    codes = (blocks + np.int8(1)).view(np.uint8).reshape(-1, 2, 4, 32)
    packed = np.bitwise_or.reduce(codes << _SHIFTS, axis=2).reshape(-1, 64)
    return np.concatenate([packed, scales], 1).reshape(-1)


def _decode_tq1_0(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    blocks = _blocks(raw, rows, cols, 54, "TQ1_0")
    parts = [
        digits(blocks[:, start : start + count], _POWERS[:length]).reshape(len(blocks), -1)
        for start, count, length in _RUNS
    ]
    return _merge(np.concatenate(parts, 1) - np.int8(1), blocks[:, 52:], rows, "TQ1_0")


def _encode_tq1_0(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    blocks, scales = _split(trits, scale, "TQ1_0")
    parts, start = [], 0
    for _, count, length in _RUNS:
        values = (blocks[:, start : start + count * length] + 1).reshape(-1, length, count)
        parts.append(undigits(values, _POWERS[::-1][:length]))
        start += count * length
    return np.concatenate([*parts, scales], 1).reshape(-1)


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
