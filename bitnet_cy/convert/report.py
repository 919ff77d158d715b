"""What a conversion wrote, as counted in the file itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """The tensors of one part of the model, such as all `attn_q`.

    source, written: how they are and were stored. nbytes: as written. minus, zero, plus: counts
    of trits; 0 for floats. scales: smallest and largest, None for floats. error: the largest
    deviation of a value (floats) or of a scale (trits), relative to the largest magnitude.
    """

    part: str
    source: str
    written: str
    tensors: int = 0
    nbytes: int = 0
    minus: int = 0
    zero: int = 0
    plus: int = 0
    scales: tuple[float, float] | None = None
    error: float = 0.0


@dataclass
class Report:
    """path, nbytes: the file or folder. rows: by part. notes: what was repaired on the way."""

    path: Path
    nbytes: int = 0
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, part: str, source: str, written: str) -> Row:
        """The row of a part, which is added if it is new."""
        for row in self.rows:
            if (row.part, row.source, row.written) == (part, source, written):
                return row
        self.rows.append(Row(part, source, written))
        return self.rows[-1]
