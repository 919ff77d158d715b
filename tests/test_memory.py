"""What does not fit the memory is refused, with both numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fixtures_machine import cgroup_v2, put

from bitnet_cy import memory
from bitnet_cy.errors import ResourceError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="imitates Linux's /proc and /sys")


@LINUX
def test_available_memory_is_the_least_of_the_machine_and_its_cgroups(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert memory._machine(tmp_path) == 8000 * 1024
    cgroup_v2(
        tmp_path,
        "/a",
        a__memory_max="1000000",
        a__memory_current="900000",
        a__memory_stat="anon 1\nactive_file 100000\ninactive_file 200000",
        memory_max="max",
        memory_current="5",
    )
    assert memory.available(tmp_path) == 1000000 - 900000 + 300000


@LINUX
def test_what_does_not_fit_the_memory_is_an_error_with_both_numbers(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", "MemAvailable: 2000 kB\n")
    memory.require(2048000, "it", "do less", tmp_path)
    with pytest.raises(ResourceError, match=r"it needs 3 MB and 2.05 MB are available; do less"):
        memory.require(3000000, "it", "do less", tmp_path)


def test_where_the_memory_is_unknown_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda root: None)
    memory.require(1 << 60, "it", "do less")


def test_this_process_has_used_some_memory() -> None:
    peak = memory.peak_resident()
    assert peak is None or 1 << 20 < peak < 1 << 44


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1180_000_000, "1.18 GB"), (5e15, "5,000 TB")],
)
def test_sizes_read_well(nbytes: float, text: str) -> None:
    assert memory.size(nbytes) == text
