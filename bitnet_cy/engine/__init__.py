"""The compiled engine: weights in, logits out. It knows nothing of files and text."""

from __future__ import annotations

import os
import warnings
from typing import Any

#: Waiting threads spin this often (some tens of microseconds) before they sleep, so that an idle
#: engine uses no CPU and a busy neighbour gets its share. Read once, when OpenMP is loaded.
_SPIN_DEFAULT = {"GOMP_SPINCOUNT": "20000"}


def _load_native() -> None:
    added = [name for name in _SPIN_DEFAULT if name not in os.environ]
    if "OMP_WAIT_POLICY" in os.environ:
        added = []
    os.environ.update({name: _SPIN_DEFAULT[name] for name in added})
    try:
        from . import kernels  # noqa: F401
    finally:
        for name in added:
            del os.environ[name]


_load_native()

from . import kernels  # noqa: E402
from .network import Network  # noqa: E402
from .session import Session as _Session  # noqa: E402
from .weights import Layer, Matrix, Shape, Ternary  # noqa: E402

__all__ = ["Layer", "Matrix", "Network", "Session", "Shape", "Ternary", "info", "kernels"]

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Session(_Session):
    """A native session that stays usable after os.fork()."""

    def forward(self, ids: Any, logits: str = "last", threads: int | None = None) -> Any:
        """As the native forward; one thread in a forked child, where OpenMP threads are gone."""
        if _forked and kernels.has_openmp() and self.threads > 1 and threads != 1:
            warnings.warn(
                "after os.fork() bitnet_cy runs on one thread: OpenMP threads do not survive a "
                "fork; use multiprocessing's spawn method for full speed",
                RuntimeWarning,
                stacklevel=2,
            )
            threads = 1
        return super().forward(ids, logits, threads)


def info() -> dict[str, Any]:
    """What runs here: OpenMP, the kernels of this build and CPU, and which operation uses which."""
    chosen = kernels.selected()
    return {
        "openmp": kernels.has_openmp(),
        "kernel": chosen,
        "available": kernels.available(),
        "compiled": kernels.compiled(),
        "features": kernels.cpu_features(),
        "operations": kernels.operations(),
    }


def read_bandwidth(n_bytes: int, threads: int) -> float:
    """Bytes per second of a plain streaming read of n_bytes (at least 1 MB), best of three."""
    import time

    import numpy as np

    data = np.ones(max(n_bytes, 1 << 20), dtype=np.uint8)
    kernels.read_bytes(data, threads)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        kernels.read_bytes(data, threads)
        best = min(best, time.perf_counter() - start)
    return data.size / best


_forced = os.environ.get("BITNET_CY_KERNEL")
if _forced:
    kernels.select(_forced)
