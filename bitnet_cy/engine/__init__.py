"""The compiled engine: weights in, logits out. It knows nothing of files and text."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Waiting threads spin this often (a few to some tens of microseconds), then sleep: an idle
#: engine uses no CPU and a busy neighbour gets its share. Read once, when OpenMP is loaded.
_SPIN_DEFAULT = {"GOMP_SPINCOUNT": "1000"}


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

from . import dense, kernels, screen  # noqa: E402
from .cache import KV_DTYPES, cache_nbytes  # noqa: E402
from .encoder import Encoder as _Encoder  # noqa: E402
from .network import Network  # noqa: E402
from .session import Session as _Session  # noqa: E402
from .session import forward_together as _forward_together  # noqa: E402
from .weights import Layer, Matrix, Rope, Shape, Ternary  # noqa: E402

__all__ = [
    "KV_DTYPES",
    "Encoder",
    "Layer",
    "Matrix",
    "Network",
    "Rope",
    "Session",
    "Shape",
    "Ternary",
    "cache_nbytes",
    "dense",
    "forward_together",
    "info",
    "kernels",
    "multiply_add_peaks",
    "read_bandwidth",
    "read_rate",
    "screen",
    "usable_threads",
]

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def usable_threads(threads: int) -> int:
    """threads, or 1 with a warning in a forked child, where OpenMP threads are gone."""
    if not _forked or threads == 1 or not kernels.has_openmp():
        return threads
    warnings.warn(
        "after os.fork() bitnet_cy runs on one thread: OpenMP threads do not survive a fork; use "
        "multiprocessing's spawn method for full speed",
        RuntimeWarning,
        stacklevel=3,
    )
    return 1


class Session(_Session):
    """A native session that stays usable after os.fork().

    screen_after: the tokens still to come from which expect() gives the network a screen of its
    head; None: never.
    """

    screen_after: int | None = None

    def forward(self, ids: Any, logits: str = "last", threads: int | None = None) -> Any:
        """As the native forward; on one thread in a forked child."""
        return super().forward(ids, logits, usable_threads(threads or self.threads))

    def forward_top(
        self,
        ids: Any,
        k: int,
        listed: NDArray[np.uint8] | None = None,
        rows: str = "last",
        threads: int | None = None,
    ) -> Any:
        """As the native forward_top; on one thread in a forked child."""
        return super().forward_top(ids, k, listed, rows, usable_threads(threads or self.threads))

    def expect(self, tokens: int) -> None:
        """Prepare for decoding so many tokens."""
        if self.screen_after is not None and tokens >= self.screen_after and not self.screened:
            self.make_screen(usable_threads(self.threads))


class Encoder(_Encoder):
    """A native encoder that stays usable after os.fork()."""

    def __init__(self, network: Network, rows: int, threads: int = 1) -> None:
        self._threads = threads

    def forward(self, sequences: Sequence[Any], threads: int | None = None) -> NDArray[np.float32]:
        """As the native forward; on one thread in a forked child."""
        return super().forward(sequences, usable_threads(threads or self._threads))


def forward_together(sessions: Sequence[Session], ids: Sequence[int], asks: Any = None) -> Any:
    """As the native forward_together; on one thread in a forked child."""
    threads = usable_threads(sessions[0].threads) if sessions else None
    return _forward_together(sessions, ids, threads, asks)


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
    data = np.ones(max(n_bytes, 1 << 20), dtype=np.uint8)
    return max(read_rate(data, threads) for _ in range(4))  # the first fills the cache


def read_rate(data: NDArray[np.uint8], threads: int) -> float:
    """Bytes per second of one plain streaming read of an array of at least 1 MB."""
    start = time.perf_counter()
    kernels.read_bytes(data, usable_threads(threads))
    return data.size / (time.perf_counter() - start)


def multiply_add_peaks(threads: int, repeats: int = 5) -> dict[str, float]:
    """Most int8 multiply-adds per second of each instruction the kernels use, best of repeats."""
    threads = usable_threads(threads)
    peaks = {}
    for name in kernels.peak_names():
        kernels.run_peak(name, 1 << 20, threads)  # the clock settles
        peaks[name] = max(_rate(name, threads) for _ in range(repeats))
    return peaks


def _rate(name: str, threads: int) -> float:
    start = time.perf_counter()
    done = kernels.run_peak(name, 1 << 20, threads)
    return done / (time.perf_counter() - start)


_forced = os.environ.get("BITNET_CY_KERNEL")
if _forced:
    kernels.select(_forced)
