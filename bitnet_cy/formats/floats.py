"""Float tensor types of GGUF to and from float32: F32, F16, BF16, Q8_0, Q4_0, Q6_K."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import types

NAMES = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q4_0")
# The bits of infinity: those of finite magnitudes are smaller numbers, those of NaN larger.
INFINITY = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}


def decode(type_name: str, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Stored bytes, uint8 [n], as float32 of `shape` (rows first). The result is a copy."""
    size = _nbytes(type_name, shape)
    if raw.size != size:
        raise FormatError(f"{type_name} of shape {shape} takes {size} bytes; {raw.size} are there")
    return _DECODERS[type_name](np.ascontiguousarray(raw)).reshape(shape)


def encode(type_name: str, values: np.ndarray) -> np.ndarray:
    """float32 values of any shape as stored bytes, uint8 [n]. Blocks run along the last axis."""
    _nbytes(type_name, values.shape)
    return _ENCODERS[type_name](np.ascontiguousarray(values, np.float32).reshape(-1))


def is_finite(type_name: str, raw: np.ndarray) -> bool:
    """Whether stored F32, F16 or BF16 values are all finite, without decoding them."""
    bits = raw.view("<u4" if type_name == "F32" else "<u2")
    magnitudes = bits & bits.dtype.type(0x7FFFFFFF if type_name == "F32" else 0x7FFF)
    return bool(magnitudes.max(initial=0) < INFINITY[type_name])


def _nbytes(type_name: str, shape: tuple[int, ...]) -> int:
    if type_name not in NAMES:
        raise UnsupportedError(f"type {type_name} is not one of {', '.join(NAMES)}")
    size = types.by_name(type_name).nbytes(shape)
    if size is None or not math.prod(shape):
        raise UnsupportedError(f"{type_name} cannot hold rows of {shape[-1]} values")
    return size


def _decode_bf16(raw: np.ndarray) -> np.ndarray:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _encode_bf16(values: np.ndarray) -> np.ndarray:
    """Round to nearest, ties to even. A NaN stays a NaN."""
    bits = values.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    nan = np.isnan(values)
    return np.where(nan, (bits >> 16) | 64, rounded).astype("<u2").view(np.uint8)


def _f16(columns: np.ndarray) -> np.ndarray:
    """Two byte columns [n, 2] as float32 [n, 1]."""
    return np.ascontiguousarray(columns).view("<f2").astype(np.float32)


def _f16_bytes(scales: np.ndarray) -> np.ndarray:
    return scales.astype("<f2").reshape(-1, 1).view(np.uint8)


def _inverse(scales: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.where(scales == 0, np.float32(0), np.float32(1) / scales)


def _round(values: np.ndarray) -> np.ndarray:
    """To nearest, halves away from zero, as C's roundf does."""
    return np.trunc(values + np.copysign(np.float32(0.5), values))


def _decode_q8_0(raw: np.ndarray) -> np.ndarray:
    blocks = raw.reshape(-1, 34)
    return _f16(blocks[:, :2]) * blocks[:, 2:].view(np.int8)


def _encode_q8_0(values: np.ndarray) -> np.ndarray:
    blocks = values.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    codes = _round(blocks * _inverse(scale)).astype(np.int8).view(np.uint8)
    return np.concatenate([_f16_bytes(scale), codes], 1).reshape(-1)


def _decode_q4_0(raw: np.ndarray) -> np.ndarray:
    blocks = raw.reshape(-1, 18)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], 1).astype(np.int8)
    return _f16(blocks[:, :2]) * (codes - np.int8(8))


def _signed_peak(blocks: np.ndarray) -> np.ndarray:
    """The value of largest magnitude in each row, with its sign: [n, 1]."""
    return np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)


def _encode_q4_0(values: np.ndarray) -> np.ndarray:
    blocks = values.reshape(-1, 32)
    scale = _signed_peak(blocks) / np.float32(-8)
    codes = np.trunc(blocks * _inverse(scale) + np.float32(8.5)).clip(0, 15).astype(np.uint8)
    packed = codes[:, :16] | codes[:, 16:] << 4
    return np.concatenate([_f16_bytes(scale), packed], 1).reshape(-1)


def _decode_q6_k(raw: np.ndarray) -> np.ndarray:
    blocks = raw.reshape(-1, 210)
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = low.reshape(-1, 2, 4, 32) | high << 4
    scales = _f16(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8)
    return scales[:, :, None] * (codes.reshape(-1, 16, 16).astype(np.int8) - np.int8(32))


def _encode_q6_k(values: np.ndarray) -> np.ndarray:
    """Scales from the largest value of each 16, without the search llama.cpp makes."""
    blocks = values.reshape(-1, 16)
    peaks = (_signed_peak(blocks) / np.float32(-32)).reshape(-1, 16)
    unit = (_signed_peak(peaks) / np.float32(-128)).astype("<f2")
    wide = unit.astype(np.float32)
    scales = _round(peaks * _inverse(wide)).clip(-128, 127)
    steps = (scales * wide).reshape(-1, 1)
    codes = (_round(blocks * _inverse(steps)).clip(-32, 31) + 32).astype(np.uint8)
    codes = codes.reshape(-1, 2, 4, 32)
    low = (codes[:, :, :2] & 15) | (codes[:, :, 2:] & 15) << 4
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = np.bitwise_or.reduce(codes >> 4 << shifts, axis=2)
    count = len(codes)
    parts = [
        low.reshape(count, 128),
        high.reshape(count, 64),
        scales.astype(np.int8).view(np.uint8),
    ]
    return np.concatenate([*parts, unit.view(np.uint8)], 1).reshape(-1)


_DECODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": lambda raw: raw.view("<f4").astype(np.float32),
    "F16": lambda raw: raw.view("<f2").astype(np.float32),
    "BF16": _decode_bf16,
    "Q8_0": _decode_q8_0,
    "Q4_0": _decode_q4_0,
    "Q6_K": _decode_q6_k,
}
_ENCODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F32": lambda values: values.view(np.uint8),
    "F16": lambda values: values.astype("<f2").view(np.uint8),
    "BF16": _encode_bf16,
    "Q8_0": _encode_q8_0,
    "Q4_0": _encode_q4_0,
    "Q6_K": _encode_q6_k,
}
