"""JSON from files that may be hostile."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from bitnet_cy.errors import FormatError

MAX_BYTES = 1 << 27


def read_object(path: Path) -> dict[str, Any]:
    """The object a JSON file holds; FormatError for anything else."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path.name} has {size} bytes; at most {MAX_BYTES} are read")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FormatError(f"no such file: {path}") from None
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from None
    return parse_object(raw, path.name)


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """The object that UTF-8 bytes of JSON hold; FormatError for anything else."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise FormatError(f"{what} is nested too deeply; it is damaged") from None
    except ValueError as error:
        raise FormatError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{what} holds a {type(value).__name__}; an object is expected")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:80]!r} appears twice")
    return found
