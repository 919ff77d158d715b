"""Writing to the terminal or a pipe, and reading text from the user."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitnet_cy.errors import OptionError


def prepare() -> None:
    """Show a replacement for what the terminal's encoding cannot express, instead of failing."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def discard() -> None:
    """Send what is still buffered nowhere: nobody reads standard output any more."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def error(message: object, code: int = 1) -> int:
    """Print the one line that says what went wrong; gives the exit code."""
    print("bitnet-cy: error:", printable(" ".join(str(message).split())), file=sys.stderr)
    return code


def write(text: str) -> None:
    """Print text as it is, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """The value with what JSON cannot hold replaced: NaN and infinity by null, NumPy by Python."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def printable(text: str) -> str:
    """The text with control characters escaped: a file's names must not drive the terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows in aligned columns; `right` lists the columns that align to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def read_text(path: str) -> str:
    """The text of a file, or of standard input for "-", as UTF-8, unchanged."""
    if path == "-":
        buffer = getattr(sys.stdin, "buffer", None)
        raw = buffer.read() if buffer is not None else sys.stdin.read().encode()
    else:
        raw = Path(path).read_bytes()
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as wrong:
        name = "standard input" if path == "-" else path
        raise OptionError(
            f"{name} is not UTF-8 text: byte {wrong.start} is 0x{raw[wrong.start]:02x}; convert it"
        ) from None
