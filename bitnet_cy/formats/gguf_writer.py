"""Writing GGUF v3 files, tensor by tensor."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bitnet_cy.errors import OptionError
from bitnet_cy.formats import types
from bitnet_cy.formats.metadata import (
    DEFAULT_ALIGNMENT,
    Typed,
    encode_pair,
    encode_string,
    is_alignment,
)
from bitnet_cy.formats.streaming import pieces, replacing, write_exactly


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written.

    `shape` has the rows first. `data` is the stored bytes, or a function called when their turn
    comes that gives them whole or in pieces, so that only one piece is in memory at a time.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    data: Any

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor; OptionError if the type cannot hold the shape."""
        size = types.by_name(self.type_name).nbytes(self.shape)
        if size is None:
            raise OptionError(
                f"tensor {self.name} of shape {self.shape} cannot be {self.type_name}"
            )
        return size

    def pieces(self) -> Iterator[memoryview]:
        """The bytes, in order."""
        return pieces(self.data)


def write(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Iterable[TensorSource] = (),
    *,
    force: bool = False,
) -> None:
    """Write a GGUF v3 file.

    The file appears under its name only when complete. Raises OptionError if it exists and
    `force` is false, or if a value or tensor does not fit its type, and ResourceError if the
    disk refuses.
    """
    sources = list(tensors)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    alignment = alignment.value if isinstance(alignment, Typed) else alignment
    if not is_alignment(alignment):
        raise OptionError(f"general.alignment is {alignment!r}; powers of two from 8 to 65536 fit")
    start = header(metadata, sources, alignment)
    with replacing(path, force) as file:
        file.write(start)
        for source in sources:
            file.write(bytes(-file.tell() % alignment))
            write_exactly(file, source.pieces(), source.nbytes, f"tensor {source.name}")
        file.write(bytes(-file.tell() % alignment))


def header(
    metadata: Mapping[str, Any], sources: list[TensorSource], alignment: int = DEFAULT_ALIGNMENT
) -> bytes:
    """All that precedes the tensor data but its padding."""
    if len({source.name for source in sources}) != len(sources):
        raise OptionError("two tensors have the same name; names in a GGUF file are unique")
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(sources), len(metadata))]
    parts += [encode_pair(key, value) for key, value in metadata.items()]
    offset = 0
    for source in sources:
        kind = types.by_name(source.type_name)
        rank = len(source.shape)
        if not 1 <= rank <= 4 or math.prod(source.shape) < 1:
            raise OptionError(f"tensor {source.name} has shape {source.shape}; 1 to 4 axes fit")
        fields = struct.pack(f"<I{rank}QIQ", rank, *source.shape[::-1], kind.id, offset)
        parts.append(encode_string(source.name) + fields)
        offset += -(-source.nbytes // alignment) * alignment
    return b"".join(parts)
