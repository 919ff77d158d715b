"""The walls of this machine: plain reads, and multiply-adds of each instruction."""

from __future__ import annotations

import numpy as np

from bitnet_cy import engine
from measures.plan import Plan, ternary_bytes
from measures.record import Section


def measure(plan: Plan, section: Section) -> None:
    """Read as many bytes as a token's ternary weights, from plain memory and from the file.

    NumPy asks for huge pages; the file's pages are small, and the engine runs on these.
    """
    model = plan.load(max(plan.threads))
    size = max(ternary_bytes(model), 1 << 20)
    sources = {"memory": np.ones(size, np.uint8), "mapped file": np.memmap(model.path, mode="r")}
    section.note(bytes=size, model=model.path.name)
    for data in sources.values():
        engine.read_rate(data[:size], max(plan.threads))
    for _ in plan.rounds(9):
        for threads in plan.threads:
            for name, data in sources.items():
                rate = engine.read_rate(data[:size], threads)
                section.sample("plain read", "B/s", rate, source=name, threads=threads)
            for name, peak in engine.multiply_add_peaks(threads).items():
                section.sample("multiply-adds", "1/s", peak, instruction=name, threads=threads)
