"""Decoding several sequences at once: how the time of a step grows with their number."""

from __future__ import annotations

import time

from bitnet_cy import engine
from measures.plan import Plan, random_ids
from measures.record import Section

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
STEPS = 4


def measure(plan: Plan, section: Section) -> None:
    """Steps of 1 to 16 sessions that each hold 64 tokens."""
    for threads in plan.threads:
        model = plan.load(threads)
        section.note(model=model.path.name)
        sessions = [model.new_session(128) for _ in range(max(COUNTS))]
        for number, session in enumerate(sessions):
            session.forward(random_ids(model, 64, seed=number), logits="none")
        for _ in plan.rounds(5 if threads == max(plan.threads) else 2):
            for count in COUNTS:
                seconds = _steps(sessions[:count], count) / STEPS
                section.sample("step", "s", seconds, sequences=count, threads=threads)
                section.sample("rate", "tok/s", count / seconds, sequences=count, threads=threads)


def _steps(sessions: list[engine.Session], count: int) -> float:
    for session in sessions:
        session.truncate(64)
    start = time.perf_counter()
    for _ in range(STEPS):
        engine.forward_together(sessions, [5] * count)
    return time.perf_counter() - start
