"""How much memory there is, how much this process has used, and whether something fits."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from bitnet_cy import cgroup, cores
from bitnet_cy.errors import ResourceError


def require(nbytes: int, what: str, remedy: str, root: Path = Path("/")) -> None:
    """Raise ResourceError unless `nbytes` of memory can still be had.

    `what` names what needs them, `remedy` what to do. Where the system does not say how much
    there is, nothing is refused.
    """
    left = available(root)
    if left is not None and nbytes > left:
        raise ResourceError(f"{what} needs {size(nbytes)} and {size(left)} are available; {remedy}")


def size(nbytes: float) -> str:
    """A number of bytes for people, in decimal units: "1.18 GB"."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            value = nbytes / factor
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{nbytes:.0f} bytes"


def available(root: Path = Path("/")) -> int | None:
    """Bytes this process can still use: of the machine, its cgroups, its address space limit.

    Cached file pages count as available, for the kernel gives them up. On macOS this is the whole
    memory of the machine. None where the system does not say.
    """
    limits = [_machine(root), _address_space(root)]
    limits += [_left_in(folder) for folder in cgroup.directories("memory", root)]
    return min((limit for limit in limits if limit is not None), default=None)


def peak_resident() -> int | None:
    """The most bytes of memory this process has held at once, None where it is not known."""
    if sys.platform == "win32":
        return _windows_peak()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _machine(root: Path) -> int | None:
    if sys.platform == "darwin":
        return cores.sysctl("hw.memsize") or None
    if sys.platform == "win32":
        return _windows_available()
    return _kilobytes(root / "proc/meminfo", "MemAvailable")


def _kilobytes(path: Path, key: str) -> int | None:
    for line in cgroup.read_text(path).splitlines():
        name, _, value = line.partition(":")
        if name == key and value.split()[:1]:
            return int(value.split()[0]) * 1024
    return None


def _address_space(root: Path) -> int | None:
    """What `ulimit -v` leaves: mapped files count against it too."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _kilobytes(root / "proc/self/status", "VmSize")
    return None if limit == resource.RLIM_INFINITY else max(limit - (used or 0), 0)


def _left_in(folder: Path) -> int | None:
    """What one cgroup leaves, its file cache counted as free; None without a limit."""
    for limit_name, usage_name, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        limit = cgroup.read_text(folder / limit_name).strip()
        usage = cgroup.read_text(folder / usage_name).strip()
        if limit.isdigit() and usage.isdigit():
            cache = _file_cache(folder, prefix)
            return max(int(limit) - int(usage) + cache, 0)
    return None


def _file_cache(folder: Path, prefix: str) -> int:
    lines = (line.split() for line in cgroup.read_text(folder / "memory.stat").splitlines())
    numbers = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    return sum(numbers.get(f"{prefix}{state}_file", 0) for state in ("active", "inactive"))


class _MemoryStatus(ctypes.Structure):
    """Windows: MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    )


def _windows_available() -> int | None:
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    found = ctypes.CDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.available) if found else None


class _MemoryCounters(ctypes.Structure):
    """Windows: PROCESS_MEMORY_COUNTERS."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("faults", ctypes.c_uint32),
        ("peak_resident", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 7),
    )


def _windows_peak() -> int | None:
    counters = _MemoryCounters()
    counters.length = ctypes.sizeof(counters)
    kernel32 = ctypes.CDLL("kernel32")
    kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel32.GetCurrentProcess())
    found = kernel32.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.length)
    return int(counters.peak_resident) if found else None
