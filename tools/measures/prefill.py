"""Prompts: tokens per second, and as a share of the multiply-adds an AVX2 core can do."""

from __future__ import annotations

import time

from bitnet_cy import Model, engine
from bitnet_cy.engine import kernels, timing
from bitnet_cy.generation import evaluate
from measures.plan import Plan, multiply_adds, random_ids
from measures.record import Section

ROUNDS = {128: 5, 512: 3, 2048: 2}


def measure(plan: Plan, section: Section) -> None:
    """The fastest kernels first, with most threads first, so that little time gives the most."""
    best = kernels.selected()
    names = [best, *(name for name in ("avx2",) if name in kernels.available() and name != best)]
    models = {threads: plan.load(threads) for threads in plan.threads}
    rounds = {16: 2, 40: 2} if plan.quick else ROUNDS
    section.note(model=next(iter(models.values())).path.name)
    try:
        for tokens, most in rounds.items():
            for number in plan.rounds(most):
                for kernel in names:
                    for threads, model in models.items():
                        slow = kernel != best or threads != max(models)
                        if tokens > 512 and slow and (number or plan.late):
                            continue
                        if tokens <= model.context_length:
                            _round(section, model, kernel, threads, tokens)
    finally:
        kernels.select(best)


def _round(section: Section, model: Model, kernel: str, threads: int, tokens: int) -> None:
    kernels.select(kernel)
    session = model.new_session(tokens)
    session.time_stages()
    ids = random_ids(model, tokens)
    before = engine.multiply_add_peaks(threads, 2)
    start = time.perf_counter()
    evaluate(session, ids)
    seconds = time.perf_counter() - start
    after = engine.multiply_add_peaks(threads, 2)
    rate = multiply_adds(model) * tokens / seconds
    parts = timing.by_part(session.stage_seconds)
    labels = {"tokens": tokens, "threads": threads, "kernel": kernel}
    section.sample("prompt", "tok/s", tokens / seconds, **labels)
    section.sample("multiply-adds", "1/s", rate, **labels)
    for name, spent in parts.items():
        section.sample(f"{name} share of time", "ratio", spent / seconds, **labels)
    product = multiply_adds(model) * tokens / parts["ternary"]
    section.sample("multiply-adds in products", "1/s", product, **labels)
    for name in before:
        peak = max(before[name], after[name])
        section.sample("share of peak", "ratio", rate / peak, instruction=name, **labels)
