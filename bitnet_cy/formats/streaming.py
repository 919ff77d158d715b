"""Writing large files piece by piece, under their name only when complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bitnet_cy.errors import OptionError, ResourceError


def pieces(data: Any) -> Iterator[memoryview]:
    """The bytes of an array or buffer, of several, or of what a function gives, in order."""
    data = data() if callable(data) else data
    if isinstance(data, (bytes, bytearray, memoryview, np.ndarray)):
        data = [data]
    for piece in data:
        if isinstance(piece, np.ndarray):
            piece = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
        yield memoryview(piece)


def write_exactly(file: BinaryIO, data: Iterator[memoryview], expected: int, what: str) -> None:
    """Write pieces that must come to `expected` bytes; OptionError if they do not."""
    written = 0
    for piece in data:
        written += piece.nbytes
        if written > expected:
            break
        file.write(piece)
    if written != expected:
        raise OptionError(f"{what} was given {written} bytes; its type and shape take {expected}")


@contextmanager
def replacing(path: str | os.PathLike[str], force: bool) -> Iterator[BinaryIO]:
    """A new binary file that takes the name `path` when the block ends without an error."""
    path = Path(path)
    if path.is_dir():
        raise OptionError(f"{path} is a directory; give a file name")
    if path.exists() and not force:
        raise OptionError(f"{path} already exists; choose another name, or force to overwrite it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
