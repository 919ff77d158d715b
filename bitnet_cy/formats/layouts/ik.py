"""IQ1_BN, IQ2_BN and IQ2_BN_R4 of ik_llama.cpp: a scale per row, then blocks of 64 trits.

IQ2_BN: float32 scale; 16 bytes of two-bit codes, byte j holding j, j+16, j+32, j+48, low bits
first. IQ2_BN_R4: four rows interleaved, their scales first. IQ1_BN: float16 scale; 13 bytes of
base-3 digits, least significant first: four groups of 16, each three bytes of five trits and
one digit of the last byte.
"""

from __future__ import annotations

import numpy as np

from bitnet_cy.formats.layouts.base import (
    Layout,
    Ternary,
    check_multiple,
    check_size,
    check_trits,
    float16_scales,
    merge_scales,
    row_scales,
)
from bitnet_cy.formats.layouts.fields import LOW_FIRST, pack, unpack
from bitnet_cy.formats.layouts.tq import digits, undigits

BLOCK = 64
_POWERS = np.array([81, 27, 9, 3, 1], np.uint8)


def _decode_iq2(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    check_multiple(cols, BLOCK, "IQ2_BN", "columns")
    lines = check_size(raw, rows * (4 + cols // 4), "IQ2_BN").reshape(rows, -1)
    trits = unpack(np.ascontiguousarray(lines[:, 4:]).reshape(-1), 16, LOW_FIRST, "IQ2_BN")
    return _merge(trits, np.ascontiguousarray(lines[:, :4]).view("<f4"), rows, "IQ2_BN")


def _encode_iq2(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    trits, scales = _check(trits, scale, "IQ2_BN")
    packed = pack(trits.reshape(-1), 16, LOW_FIRST).reshape(len(trits), -1)
    return np.concatenate([scales.astype("<f4").view(np.uint8), packed], 1).reshape(-1)


def _decode_iq2_r4(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    check_multiple(cols, BLOCK, "IQ2_BN_R4", "columns")
    check_multiple(rows, 4, "IQ2_BN_R4", "rows")
    groups = check_size(raw, rows * (4 + cols // 4), "IQ2_BN_R4").reshape(rows // 4, -1)
    trits = unpack(np.ascontiguousarray(groups[:, 16:]).reshape(-1), 4, LOW_FIRST, "IQ2_BN_R4")
    # group, run of 16 trits, row, trit -> group, row, run, trit
    trits = np.ascontiguousarray(trits.reshape(rows // 4, -1, 4, 16).swapaxes(1, 2))
    return _merge(trits, np.ascontiguousarray(groups[:, :16]).view("<f4"), rows, "IQ2_BN_R4")


def _encode_iq2_r4(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    trits, scales = _check(trits, scale, "IQ2_BN_R4")
    check_multiple(len(trits), 4, "IQ2_BN_R4", "rows")
    count = len(trits) // 4
    runs = np.ascontiguousarray(trits.reshape(count, 4, -1, 16).swapaxes(1, 2))
    packed = pack(runs.reshape(-1), 4, LOW_FIRST)
    head = scales.astype("<f4").reshape(count, 4).view(np.uint8)
    return np.concatenate([head, packed.reshape(count, -1)], 1).reshape(-1)


def _decode_iq1(raw: np.ndarray, rows: int, cols: int) -> Ternary:
    check_multiple(cols, BLOCK, "IQ1_BN", "columns")
    lines = check_size(raw, rows * (2 + cols // BLOCK * 13), "IQ1_BN").reshape(rows, -1)
    blocks = lines[:, 2:].reshape(-1, 13)
    five = digits(blocks[:, :12], _POWERS).swapaxes(1, 2).reshape(-1, 4, 15)
    last = digits(blocks[:, 12:], _POWERS[:4])
    trits = np.concatenate([five, last], 2) - np.int8(1)
    scales = np.ascontiguousarray(lines[:, :2]).view("<f2").astype(np.float32)
    return _merge(trits, scales, rows, "IQ1_BN")


def _encode_iq1(trits: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    trits, scales = _check(trits, scale, "IQ1_BN")
    values = (trits + np.int8(1)).view(np.uint8).reshape(-1, 4, 16)
    five = values[:, :, :15].reshape(-1, 12, 5).swapaxes(1, 2)
    weights = _POWERS[::-1]
    last = undigits(values[:, :, 15:], weights[:4])
    blocks = np.concatenate([undigits(five, weights), last], 1)
    head = float16_scales(scales, "IQ1_BN").view(np.uint8)
    return np.concatenate([head, blocks.reshape(len(trits), -1)], 1).reshape(-1)


def _check(
    trits: np.ndarray, scale: np.ndarray | float, name: str
) -> tuple[np.ndarray, np.ndarray]:
    trits = check_trits(trits)
    check_multiple(trits.shape[1], BLOCK, name, "columns")
    return trits, row_scales(trits, scale, name)


def _merge(trits: np.ndarray, scales: np.ndarray, rows: int, name: str) -> Ternary:
    return merge_scales(trits.reshape(rows, 1, -1), scales.reshape(rows, 1), name)


IQ1_BN = Layout("IQ1_BN", _decode_iq1, _encode_iq1)
IQ2_BN = Layout("IQ2_BN", _decode_iq2, _encode_iq2)
IQ2_BN_R4 = Layout("IQ2_BN_R4", _decode_iq2_r4, _encode_iq2_r4)
