"""Imitations of a machine's /proc and /sys under a folder."""

from __future__ import annotations

from pathlib import Path


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def machine(root: Path, cores_of_cpus: list[tuple[int, int]]) -> None:
    """A machine whose CPU n belongs to (package, core)."""
    for cpu, (package, core) in enumerate(cores_of_cpus):
        folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
        put(root, f"{folder}/physical_package_id", f"{package}\n")
        put(root, f"{folder}/core_id", f"{core}\n")


def cgroup_v2(root: Path, group: str, **files: str) -> None:
    put(root, "proc/self/cgroup", f"0::{group}\n")
    put(
        root,
        "proc/self/mountinfo",
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
    )
    for name, text in files.items():
        put(root, f"sys/fs/cgroup/{name.replace('__', '/').replace('_', '.')}", text + "\n")
