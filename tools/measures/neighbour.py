"""Beside a busy process, and at rest: what others notice of the engine, and it of them."""

from __future__ import annotations

import subprocess
import sys
import time

import bitnet_cy
from bitnet_cy import Model, engine
from measures.plan import Plan, decode_step, random_ids
from measures.record import Section

SPIN = "while True: pass"


def measure(plan: Plan, section: Section) -> None:
    """Decode alone and beside one process that takes a core, in turn; then do nothing."""
    threads = max(plan.threads)
    models = {"embedded": bitnet_cy.load(threads=threads)}
    if plan.model is not None:
        models["full size"] = plan.load(threads)
    section.note(model=[model.path.name for model in models.values()], threads=threads)
    sessions = {name: _session(model) for name, model in models.items()}
    for _ in plan.rounds(5):
        for name, session in sessions.items():
            tokens = 8 if name == "full size" or plan.quick else 200
            alone = _rate(session, tokens)
            beside = _beside_busy(session, tokens)
            for place, rate in (("alone", alone), ("beside a busy process", beside)):
                labels = {"model": name, "place": place, "threads": threads}
                section.sample("decode", "tok/s", rate, **labels)
            section.sample("share kept", "ratio", beside / alone, model=name, threads=threads)
        used = time.process_time()
        time.sleep(0.5)
        idle = (time.process_time() - used) / 0.5
        section.sample("processor use at rest", "ratio", idle, threads=threads)


def _session(model: Model) -> engine.Session:
    session = model.new_session(256)
    session.forward(random_ids(model, 32), logits="none")
    return session


def _rate(session: engine.Session, tokens: int) -> float:
    session.truncate(32)
    token, start = 5, time.perf_counter()
    for _ in range(tokens):
        token = decode_step(session, token)
    return tokens / (time.perf_counter() - start)


def _beside_busy(session: engine.Session, tokens: int) -> float:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as busy:
        try:
            time.sleep(0.2)
            return _rate(session, tokens)
        finally:
            busy.kill()
