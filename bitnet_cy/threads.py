"""How many threads to compute with, and why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitnet_cy import cgroup, checks, cores

MOST = 1024
"""More threads than this is taken for a mistake."""


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads and where it comes from."""

    count: int
    reason: str

    def __str__(self) -> str:
        return f"{self.count}: {self.reason}"


def choose(
    threads: int | None = None,
    *,
    openmp: bool = True,
    environ: Mapping[str, str] | None = None,
    allowed: set[int] | None = None,
    root: Path = Path("/"),
) -> ThreadChoice:
    """Choose the number of threads.

    `threads` decides if given, else the first number of OMP_NUM_THREADS, else the physical cores
    in the affinity mask, at most the cgroup's CPU quota rounded down (at least 1). Without OpenMP
    it is always 1. `environ`, `allowed` (affinity mask) and `root` (of the file system) replace
    what the machine says, for tests. Raises OptionError for anything but 1 to 1024.
    """
    asked = _asked(threads, os.environ if environ is None else environ)
    if not openmp:
        return ThreadChoice(1, "built without OpenMP")
    return asked or _from_machine(root, allowed)


def _asked(threads: int | None, environ: Mapping[str, str]) -> ThreadChoice | None:
    if threads is not None:
        hint = "; leave it out to use the physical cores"
        return ThreadChoice(checks.whole("threads", threads, 1, MOST, hint), "as asked")
    text = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not text:
        return None
    number = int(text) if text.isdecimal() else text
    hint = ", or unset it"
    return ThreadChoice(checks.whole("OMP_NUM_THREADS", number, 1, MOST, hint), "OMP_NUM_THREADS")


def _from_machine(root: Path, allowed: set[int] | None) -> ThreadChoice:
    machine = cores.usable(root, allowed)
    quota = cpu_quota(root)
    if quota is None or quota >= machine.count:
        return ThreadChoice(machine.count, machine.kind)
    return ThreadChoice(max(int(quota), 1), f"cgroup quota of {quota:g} CPUs")


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The CPUs' worth of time that the cgroups grant this process, None if unlimited."""
    quotas = [
        quota
        for folder in cgroup.directories("cpu", root)
        if (quota := _quota_in(folder)) is not None
    ]
    return min(quotas, default=None)


def _quota_in(folder: Path) -> float | None:
    limit = cgroup.read_text(folder / "cpu.max").split()  # v2: "max 100000" or "50000 100000"
    if not limit:  # v1: a quota of -1 is no limit
        limit = [
            cgroup.read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
        ]
    if len(limit) != 2 or not all(part.isdigit() and int(part) for part in limit):
        return None
    return int(limit[0]) / int(limit[1])
