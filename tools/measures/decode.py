"""Decoding one sequence: its speed, where a token's time goes, how near to the wall it reads.

Every variant of the engine that gives the same tokens is measured in turn, round by round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from bitnet_cy import Model, engine
from bitnet_cy.engine import kernels, timing
from measures.plan import Plan, choices, decode_step, random_ids, ternary_bytes
from measures.record import Section

PROMPT = 128


@dataclass(frozen=True)
class Case:
    """One way to decode: a model loaded so, a kernel, and a session that holds the prompt."""

    labels: dict[str, Any]
    model: Model
    session: engine.Session
    kernel: str


def measure(plan: Plan, section: Section) -> None:
    """Decode after a prompt of 128 tokens, every variant once a round, between plain reads."""
    tokens = 4 if plan.quick else 8
    best = kernels.selected()
    try:
        for threads in plan.threads:
            cases = list(_cases(plan, threads, best))
            section.note(model=cases[0].model.path.name, prompt_tokens=PROMPT, new_tokens=tokens)
            plain = np.ones(max(ternary_bytes(cases[0].model), 1 << 20), np.uint8)
            for _ in plan.rounds(7 if threads == max(plan.threads) else 5):
                for case in cases:
                    _round(section, case, plain, tokens)
    finally:
        kernels.select(best)


def _cases(plan: Plan, threads: int, best: str) -> Iterator[Case]:
    """The default first, then what differs from it in one thing: head, layout, kernel."""
    layouts, heads = choices("weights"), choices("head")
    ways = [(best, layouts[0] | head) for head in heads]
    ways += [(best, layout | heads[0]) for layout in layouts[1:]]
    others = [name for name in ("avx2",) if name in kernels.available() and name != best]
    ways += [(other, layout | heads[0]) for other in others for layout in layouts]
    for kernel, options in ways:
        kernels.select(kernel)
        model = plan.load(threads, **options)
        session = model.new_session(PROMPT + 32)
        session.forward(random_ids(model, PROMPT), logits="none")
        if options.get("head") == "screened":
            session.make_screen()
        decode_step(session, 5)
        labels = {"threads": threads, "kernel": kernel, **options}
        yield Case(labels, model, session, kernel)


def _round(section: Section, case: Case, plain: np.ndarray, tokens: int) -> None:
    threads = case.labels["threads"]
    reads = [engine.read_rate(plain, threads) for _ in range(3)]
    kernels.select(case.kernel)
    case.session.truncate(PROMPT)
    case.session.time_stages()
    token, start = 5, time.perf_counter()
    for _ in range(tokens):
        token = decode_step(case.session, token)
    seconds = (time.perf_counter() - start) / tokens
    reads += [engine.read_rate(plain, threads) for _ in range(3)]
    parts = timing.by_part(case.session.stage_seconds)
    parts = {name: spent / tokens for name, spent in parts.items()}
    parts["other"] += seconds - sum(parts.values())
    rate, read = ternary_bytes(case.model) / parts["ternary"], median(reads)
    section.sample("decode", "tok/s", 1 / seconds, **case.labels)
    section.sample("plain read", "B/s", read, **case.labels)
    section.sample("ternary read", "B/s", rate, **case.labels)
    section.sample("ternary share of plain read", "ratio", rate / read, **case.labels)
    section.sample("tokens per GB of plain read", "1/GB", 1e9 / (seconds * read), **case.labels)
    for name, spent in parts.items():
        section.sample(f"{name} time", "s", spent, **case.labels)
