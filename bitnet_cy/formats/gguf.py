"""GGUF v2 and v3 files, mapped into memory and checked before use."""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bitnet_cy.errors import BitNetError, FormatError, UnsupportedError
from bitnet_cy.formats import floats, types
from bitnet_cy.formats.gguf_writer import TensorSource, write
from bitnet_cy.formats.mapped import MappedFile, map_file
from bitnet_cy.formats.metadata import (
    DEFAULT_ALIGNMENT,
    Cursor,
    Metadata,
    Typed,
    is_alignment,
)

__all__ = ["GGUFFile", "TensorInfo", "TensorSource", "Typed", "read", "write"]

MAGIC = b"GGUF"
MAX_PAIRS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_NAME = 1024
# A key, a type and one byte; a name, the number of dimensions, one dimension, a type, an offset.
_SMALLEST_PAIR, _SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table.

    `shape` has the rows first. `type_name` is "type 42" where the id is unknown, or shared
    between programs and the bytes fit none of the types it stands for; `nbytes` is then the
    space the tensor has, and `explain` says what was found.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    type_name: str
    offset: int  # from the start of the file
    nbytes: int

    def explain(self) -> str:
        """The tensor in words, for an error message."""
        text = f"tensor {self.name} has {self.type_name}, shape {list(self.shape)}"
        found = types.candidates(self.type_id)
        if self.type_name != f"type {self.type_id}":
            return f"tensor {self.name} has type {self.type_name}, shape {list(self.shape)}"
        if not found:
            return f"{text}: an id bitnet_cy does not know"
        return f"{text}, {self.nbytes} bytes: " + ", ".join(
            f"{kind.name} would take {kind.nbytes(self.shape) or 'another shape'}" for kind in found
        )


class GGUFFile(MappedFile):
    """An open GGUF file: `path`, `version`, `alignment`, `metadata`, `tensors`, `nbytes`."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        super().__init__(path, data)
        cursor = Cursor(data, self.nbytes)
        self.version, tensor_count, pair_count = _read_header(cursor)
        self.metadata = Metadata(data)
        self.metadata.parse(cursor, pair_count)
        self.alignment = _alignment(self.metadata)
        _refuse_split(self.metadata)
        table = [_read_tensor(cursor, index) for index in range(tensor_count)]
        start = -(-cursor.position // self.alignment) * self.alignment
        self.tensors = _place(table, start, self.nbytes, self.alignment)

    def raw(self, name: str) -> np.ndarray:
        """The stored bytes of a tensor: uint8 [nbytes], a read-only view into the mapping."""
        info = self._info(name)
        return self.view(info.offset, info.nbytes)

    def array(self, name: str) -> np.ndarray:
        """A float tensor as float32 of its shape, for the types in `floats.NAMES`."""
        info = self._info(name)
        if info.type_name not in floats.NAMES:
            raise UnsupportedError(
                f"{info.explain()}; only {', '.join(floats.NAMES)} can be read as floats"
            )
        return floats.decode(info.type_name, self.raw(name), info.shape)

    def _info(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise FormatError(f"{self.path.name} has no tensor {name}; it holds other parts")
        return self.tensors[name]


def read(path: str | os.PathLike[str]) -> GGUFFile:
    """Map a GGUF file and check all of it that is not weights.

    Raises FormatError for a missing, truncated or inconsistent file and UnsupportedError for
    one part of a split model. Tensors of unknown types are no error here.
    """
    path, data = map_file(path, 24, "a GGUF file")
    try:
        return GGUFFile(path, data)
    except BitNetError as error:
        raise type(error)(f"{path.name}: {error}") from None


def _read_header(cursor: Cursor) -> tuple[int, int, int]:
    magic = cursor.data[:4]
    cursor.take(4, "the magic number")
    if magic != MAGIC:
        raise FormatError(f"starts with {magic!r}, not with {MAGIC!r}; it is not a GGUF file")
    version = cursor.scalar("<I", "the version")
    if version in (0x02000000, 0x03000000):
        raise FormatError("is a big-endian GGUF file; only little-endian files are supported")
    if version not in (2, 3):
        raise FormatError(f"is GGUF version {version}; versions 2 and 3 are supported")
    tensors = cursor.scalar("<Q", "the tensor count")
    pairs = cursor.scalar("<Q", "the metadata count")
    left = cursor.size - cursor.position
    if pairs > min(MAX_PAIRS, left // _SMALLEST_PAIR):
        raise FormatError(f"claims {pairs} metadata keys in {left} bytes; the header is damaged")
    if tensors > min(MAX_TENSORS, left // _SMALLEST_TENSOR):
        raise FormatError(f"claims {tensors} tensors in {left} bytes; the header is damaged")
    return version, tensors, pairs


def _alignment(metadata: Metadata) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not is_alignment(value):
        raise FormatError(
            f"general.alignment is {value!r}; a power of two from 8 to 65536 is valid"
        )
    return int(value)


def _refuse_split(metadata: Metadata) -> None:
    count = metadata.get("split.count", 0)
    if type(count) is int and count > 1:
        raise UnsupportedError(
            f"is one of {count} parts of a split model; join them with llama-gguf-split --merge"
        )


def _read_tensor(cursor: Cursor, index: int) -> TensorInfo:
    """One row of the table; `offset` still counts from the start of the tensor data."""
    name = cursor.string(f"tensor name {index}", MAX_NAME)
    what = f"tensor {name}"
    rank = cursor.scalar("<I", what)
    if not 1 <= rank <= 4:
        raise FormatError(f"{what} has {rank} dimensions; 1 to 4 are possible")
    shape = tuple(cursor.scalar("<Q", what) for _ in range(rank))[::-1]
    if 0 in shape or math.prod(shape) >= 1 << 48:
        raise FormatError(f"{what} has shape {list(shape)}, which no file can hold")
    type_id = cursor.scalar("<I", what)
    offset = cursor.scalar("<Q", what)
    return TensorInfo(name, shape, type_id, f"type {type_id}", offset, 0)


def _place(
    table: list[TensorInfo], start: int, file_size: int, alignment: int
) -> dict[str, TensorInfo]:
    """Tensors by name, in the order of the table, with absolute offsets and decided types."""
    placed: dict[str, TensorInfo | None] = {}
    for info in table:
        if info.name in placed:
            raise FormatError(f"tensor {info.name} appears twice; the file is damaged")
        if info.offset % alignment:
            raise FormatError(f"tensor {info.name} is not aligned to {alignment} bytes")
        placed[info.name] = None
    end, is_last = file_size, True
    for info in sorted(table, key=lambda info: info.offset, reverse=True):
        offset = start + info.offset
        placed[info.name] = _decide(info, offset, end - offset, alignment, is_last)
        end, is_last = offset, False
    return {name: info for name, info in placed.items() if info is not None}


def _decide(
    info: TensorInfo, offset: int, available: int, alignment: int, is_last: bool
) -> TensorInfo:
    """Choose between the types behind an id by the bytes the tensor has."""
    found = types.candidates(info.type_id)
    sizes = [size for kind in found if (size := kind.nbytes(info.shape)) is not None]
    if available < (min(sizes) if sizes else 1):
        reason = "the file is truncated" if is_last else "tensors overlap"
        raise FormatError(
            f"tensor {info.name} needs {min(sizes, default=1)} bytes, {max(available, 0)} are "
            f"there: {reason}; download it again"
        )
    if not sizes and found and not found[0].shared_id:
        raise FormatError(
            f"tensor {info.name} of shape {list(info.shape)} cannot be {found[0].name}"
        )
    for kind in found:
        size = kind.nbytes(info.shape)
        if size is not None and (kind.fits(info.shape, available, alignment) or not kind.shared_id):
            return replace(info, type_name=kind.name, offset=offset, nbytes=size)
    return replace(info, offset=offset, nbytes=available)
