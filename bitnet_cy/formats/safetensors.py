"""safetensors files, mapped into memory and checked before use, and written tensor by tensor.

A file is the length of a JSON header (u64), the header, and the tensors one after another
without gaps. The header gives each tensor's dtype, shape and place.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.errors import BitNetError, FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import floats
from bitnet_cy.formats.json_file import parse_object
from bitnet_cy.formats.mapped import MappedFile, map_file
from bitnet_cy.formats.streaming import pieces, replacing, write_exactly

MAX_HEADER = 100_000_000
_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
_INTEGERS = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One entry of the header; `offset` counts from the start of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written: stored bytes, or a function that gives them whole or in pieces."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Any

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor; OptionError if the dtype is unknown."""
        if self.dtype not in _SIZES:
            raise OptionError(f"dtype {self.dtype!r}; known are {', '.join(_SIZES)}")
        return math.prod(self.shape) * _SIZES[self.dtype]


class SafetensorsFile(MappedFile):
    """An open file: `path`, `metadata` (str to str), `tensors`, `nbytes`."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        super().__init__(path, data)
        (length,) = struct.unpack_from("<Q", data)
        if length > min(MAX_HEADER, self.nbytes - 8):
            raise FormatError(
                f"claims a header of {length} bytes in a file of {self.nbytes}; it is truncated, "
                "or not a safetensors file"
            )
        header = parse_object(data[8 : 8 + length], "its header")
        self.metadata = _metadata(header.pop("__metadata__", {}))
        self.tensors = _place(header, 8 + length, self.nbytes)

    def raw(self, name: str) -> np.ndarray:
        """The stored bytes of a tensor: uint8 [nbytes], a read-only view into the mapping."""
        info = self._info(name)
        return self.view(info.offset, info.nbytes)

    def array(self, name: str) -> np.ndarray:
        """A tensor in its shape: floats as float32 (a copy), integers as they are stored."""
        info, raw = self._info(name), self.raw(name)
        if info.dtype in _INTEGERS:
            return raw.view(_INTEGERS[info.dtype]).reshape(info.shape)
        if info.dtype == "F64":
            with np.errstate(over="ignore"):
                return raw.view("<f8").astype(np.float32).reshape(info.shape)
        if info.dtype in floats.NAMES:
            if not info.nbytes:
                return np.zeros(info.shape, np.float32)
            return floats.decode(info.dtype, raw, info.shape or (1,)).reshape(info.shape)
        raise UnsupportedError(
            f"{self.path.name}, tensor {name} has dtype {info.dtype}; F64, F32, F16, BF16 and "
            "integers are read"
        )

    def _info(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise FormatError(f"{self.path.name} has no tensor {name}")
        return self.tensors[name]


def read(path: str | os.PathLike[str]) -> SafetensorsFile:
    """Map a file and check all of it that is not weights; FormatError on any defect."""
    path, data = map_file(path, 8, "a safetensors file")
    try:
        return SafetensorsFile(path, data)
    except BitNetError as error:
        raise type(error)(f"{path.name}: {error}") from None


def write(
    path: str | os.PathLike[str],
    tensors: Iterable[TensorSource],
    metadata: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> None:
    """Write a file, which appears under its name only when complete.

    Raises OptionError if it exists and `force` is false or if a tensor does not fit its dtype,
    and ResourceError if the disk refuses.
    """
    sources = list(tensors)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for source in sources:
        if source.name in header or source.name == "__metadata__":
            raise OptionError(f"tensor name {source.name} is taken; names in a file are unique")
        start, end = end, end + source.nbytes
        header[source.name] = {
            "dtype": source.dtype,
            "shape": list(source.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, force) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for source in sources:
            write_exactly(file, pieces(source.data), source.nbytes, f"tensor {source.name}")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError("its __metadata__ is not an object of strings; it is damaged")
    return value


def _place(header: dict[str, Any], start: int, file_size: int) -> dict[str, TensorInfo]:
    """Tensors by name; they must fill the rest of the file without gaps or overlaps."""
    tensors = {name: _read_entry(name, entry, start) for name, entry in header.items()}
    end = start
    for info in sorted(tensors.values(), key=lambda info: (info.offset, info.nbytes)):
        if info.offset != end:
            raise FormatError(f"tensor {info.name} begins at {info.offset}, not where the one "
                              f"before it ends ({end}); the file is damaged")  # fmt: skip
        end += info.nbytes
    if end != file_size:
        reason = "it is truncated" if end > file_size else "bytes are left over"
        raise FormatError(f"the tensors take {end} bytes, the file has {file_size}: {reason}")
    return tensors


def _read_entry(name: str, entry: Any, start: int) -> TensorInfo:
    try:
        dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise FormatError(f"tensor {name} lacks dtype, shape or data_offsets") from None
    numbers = [first, last, *shape] if isinstance(shape, list) else [None]
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise FormatError(f"tensor {name} has offsets or a shape that are not whole numbers")
    room = math.prod(number or 1 for number in shape)  # NumPy refuses [0, huge] too
    if not isinstance(dtype, str) or first > last or len(shape) > 8 or room >= 1 << 48:
        raise FormatError(f"tensor {name} has a dtype, shape or offsets that cannot be")
    size = math.prod(shape) * _SIZES[dtype] if dtype in _SIZES else last - first
    if size != last - first:
        raise FormatError(
            f"tensor {name} of shape {shape} and dtype {dtype} takes {size} bytes; its offsets "
            f"give it {last - first}"
        )
    return TensorInfo(name, tuple(shape), dtype, start + first, last - first)
