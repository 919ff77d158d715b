"""How many processor cores there are to compute on, one count per operating system."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bitnet_cy.cgroup import read_text


@dataclass(frozen=True)
class Cores:
    """`count` cores of the kind `kind` names; `logical` counts hardware threads."""

    count: int
    kind: str
    logical: int


def usable(root: Path = Path("/"), allowed: set[int] | None = None) -> Cores:
    """Count the physical cores on which this process may run.

    Of a machine with fast and slow cores only the fast ones are counted: work is divided evenly,
    so one slow core holds all others up. Where the topology cannot be read, logical CPUs stand in.
    `allowed` is the affinity mask (None: ask the system), `root` the root of the file system.
    """
    if sys.platform == "darwin":
        return _darwin()
    if sys.platform == "win32":
        return _windows()
    if allowed is None:
        allowed = _affinity()
    return _linux(root, allowed)


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _linux(root: Path, allowed: set[int]) -> Cores:
    logical = len(allowed)
    fast = allowed & parse_cpu_list(read_text(root / "sys/devices/cpu_core/cpus"))
    kind = "performance cores" if fast and fast != allowed else "physical cores"
    found = {_core_of(root, cpu) for cpu in (fast or allowed)}
    if None in found or not found:
        return Cores(max(logical, 1), "logical CPUs (no core topology)", logical)
    return Cores(len(found), kind, logical)


def _core_of(root: Path, cpu: int) -> tuple[str, str] | None:
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    core = read_text(folder / "core_id").strip()
    return (read_text(folder / "physical_package_id").strip(), core) if core else None


def parse_cpu_list(text: str) -> set[int]:
    """The CPU numbers in the kernel's list format, such as "0-3,8"."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def _darwin() -> Cores:
    logical = os.cpu_count() or 1
    for name, kind in (
        ("hw.perflevel0.physicalcpu", "performance cores"),
        ("hw.physicalcpu", "physical cores"),
    ):
        if count := sysctl(name):
            return Cores(count, kind, logical)
    return Cores(logical, "logical CPUs (no core topology)", logical)


def sysctl(name: str) -> int:
    """An integer of macOS's sysctl, 0 where it does not exist."""
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    found = ctypes.CDLL(None).sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return value.value if found == 0 else 0


def _windows() -> Cores:
    logical = os.cpu_count() or 1
    kernel32 = ctypes.CDLL("kernel32")
    size = ctypes.c_uint32(0)
    kernel32.GetLogicalProcessorInformationEx(0, None, ctypes.byref(size))
    records = ctypes.create_string_buffer(max(size.value, 1))
    if not kernel32.GetLogicalProcessorInformationEx(0, records, ctypes.byref(size)):
        return Cores(logical, "logical CPUs (no core topology)", logical)
    count, kind = count_windows_records(records.raw[: size.value])
    return Cores(count, kind, logical)


def count_windows_records(records: bytes) -> tuple[int, str]:
    """Count the RelationProcessorCore records of GetLogicalProcessorInformationEx.

    Each record starts with its relationship and its own size (u32 each), then flags and the
    efficiency class (u8 each); the highest class is the fastest.
    """
    classes: list[int] = []
    position = 0
    while position + 10 <= len(records):
        size = int.from_bytes(records[position + 4 : position + 8], "little")
        classes.append(records[position + 9])
        position += max(size, 10)
    fastest = classes.count(max(classes, default=0))
    kind = "performance cores" if fastest < len(classes) else "physical cores"
    return max(fastest, 1), kind
