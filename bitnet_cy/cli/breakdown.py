"""What the memory of a loaded model is for, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping


def memory_rows(parts: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Rows of Model.memory_breakdown and their sum, each [name, "bytes mapped, bytes copied"]."""
    from bitnet_cy.memory import size

    rows = []
    for name, part in parts.items():
        kinds = [f"{size(nbytes)} {kind}" for kind, nbytes in part.items() if nbytes]
        rows.append([f"  {name}", ", ".join(kinds) or "0 bytes"])
    total = sum(sum(part.values()) for part in parts.values())
    return [["memory", f"{size(total)}, of which"], *rows]
