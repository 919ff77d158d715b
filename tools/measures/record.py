"""The record of measurements: sections of figures in one JSON file, saved as they come."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from subprocess import SubprocessError
from types import TracebackType
from typing import Any

SAVE_EVERY = 1.0
"""Seconds between two writings of the file while a section runs."""


class Section:
    """One section being measured. A context manager: what it holds is saved whatever happens.

    A figure is a name, a unit, labels (threads, kernel, tokens ...) and a sample per round.
    """

    def __init__(self, path: Path, name: str, *, quick: bool) -> None:
        self._path, self._name = path, name
        self._figures: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._about: dict[str, Any] = environment() | {"quick": quick}
        self._start = self._saved = time.monotonic()

    def sample(self, name: str, unit: str, value: float, **labels: Any) -> None:
        """Add one round's value to a figure."""
        key = (name, *sorted(labels.items()))
        new = {"name": name, "unit": unit, "labels": labels, "samples": []}
        self._figures.setdefault(key, new)["samples"].append(float(value))
        if time.monotonic() - self._saved > SAVE_EVERY:
            self._save()

    def note(self, **facts: Any) -> None:
        """Say something about the whole section, such as the model's name."""
        self._about |= facts

    def __enter__(self) -> Section:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.note(error=_told(error))
        self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        figures = [_with_statistics(figure) for figure in self._figures.values()]
        about = self._about | {"seconds": round(self._saved - self._start, 1)}
        sections = read(self._path) if self._path.exists() else {}
        write(self._path, sections | {self._name: {"about": about, "figures": figures}})


def _told(error: BaseException) -> str:
    """An error for the record, without the paths of this machine that system errors hold."""
    name = type(error).__name__
    return name if isinstance(error, (OSError, SubprocessError)) else f"{name}: {error}"


def _with_statistics(figure: Mapping[str, Any]) -> dict[str, Any]:
    samples = [float(f"{value:.6g}") for value in figure["samples"]]
    known = {"median": median(samples), "low": min(samples), "high": max(samples)}
    return {**figure, **known, "samples": samples}


def read(path: Path) -> dict[str, Any]:
    """The sections of a record file."""
    sections: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return sections


def write(path: Path, sections: Mapping[str, Any]) -> None:
    """Write a record file whole, or not at all. A list of samples stays on one line."""
    lines = []
    for name, section in sections.items():
        figures = ",\n".join(f"      {json.dumps(figure)}" for figure in section["figures"])
        lines.append(
            f'  "{name}": {{\n    "about": {json.dumps(section["about"])},\n'
            f'    "figures": [\n{figures}\n    ]\n  }}'
        )
    temporary = path.with_name(path.name + ".new")
    temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(temporary, path)


def figures(section: Mapping[str, Any], name: str, **labels: Any) -> list[dict[str, Any]]:
    """The figures of a section with this name and (at least) these labels, in their order."""
    return [
        figure
        for figure in section["figures"]
        if figure["name"] == name and labels.items() <= figure["labels"].items()
    ]


def environment() -> dict[str, Any]:
    """What a figure is worth nothing without: date, versions, processor, kernel, load."""
    from bitnet_cy import engine, report

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": report.version(),
        "commit": _commit(),
        "cpu": report.cpu_name(),
        "cores": os.cpu_count(),
        "kernel": engine.info()["kernel"],
        "load_average": load,
    }


def _commit() -> str | None:
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
