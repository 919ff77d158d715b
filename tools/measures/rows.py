"""Time of one step against its number of rows: no number may be a cliff."""

from __future__ import annotations

import time

from bitnet_cy.engine import kernels
from measures.plan import Plan, random_ids
from measures.record import Section

SIZES = (
    *range(1, 21), 24, 28, 32, 40, 48, 56, 64, 65, 80, 96, 112, 127, 128, 129, 160, 192, 224, 256,
    257, 320, 384, 448, 512, 513, 600,
)  # fmt: skip


def measure(plan: Plan, section: Section) -> None:
    """Steps of every size from an empty context; the AVX2 kernels once too, for comparison."""
    threads = max(plan.threads)
    model = plan.load(threads)
    sizes = [n for n in SIZES if n <= min(model.context_length, 40 if plan.quick else 600)]
    session = model.new_session(max(sizes))
    ids = random_ids(model, max(sizes))
    section.note(model=model.path.name, threads=threads)
    session.forward(ids[:32])
    best = kernels.selected()
    others = [name for name in ("avx2",) if name in kernels.available() and name != best]
    try:
        for number in plan.rounds(5):
            for kernel in [best, *others] if number < 2 else [best]:
                kernels.select(kernel)
                for n in sizes:
                    session.truncate(0)
                    start = time.perf_counter()
                    session.forward(ids[:n])
                    seconds = time.perf_counter() - start
                    section.sample("step", "s", seconds, rows=n, kernel=kernel, threads=threads)
    finally:
        kernels.select(best)
