"""What a bug report needs to know: versions, processor, kernels, threads, memory."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from bitnet_cy import cgroup, cores, engine, memory, threads

DEPENDENCIES = ("numpy", "tokenizers", "sentencepiece", "jinja2", "tqdm", "huggingface_hub")


def info() -> dict[str, Any]:
    """Describe this installation and machine, as plain values that JSON can hold.

    Keys: "version", "python", "platform", "dependencies" (name -> version, or None), "cpu"
    (name, cores, features), "kernels" (chosen, available, operations), "threads" (count, reason,
    openmp) and "memory" (available bytes, or None).
    """
    compiled = engine.info()
    machine = cores.usable()
    choice = threads.choose(openmp=bool(compiled["openmp"]))
    return {
        "version": version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "dependencies": {name: _installed(name) for name in DEPENDENCIES},
        "cpu": {
            "name": cpu_name(),
            "machine": platform.machine(),
            "logical": machine.logical,
            "usable": f"{machine.count} {machine.kind}",
            "quota": threads.cpu_quota(),
            "features": list(compiled["features"]),
        },
        "kernels": {
            "chosen": compiled["kernel"],
            "available": list(compiled["available"]),
            "operations": dict(compiled["operations"]),
            "forced": os.environ.get("BITNET_CY_KERNEL") or None,
        },
        "threads": {
            "count": choice.count,
            "reason": choice.reason,
            "openmp": bool(compiled["openmp"]),
        },
        "memory": {"available": memory.available()},
    }


def version() -> str:
    """The version of the installed package."""
    return _installed("bitnet_cy") or "unknown"


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's name as the system gives it."""
    for line in cgroup.read_text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
