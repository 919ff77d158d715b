"""The output head alone: all logits, and the largest ones found exactly by a screen.

Every token decoded is a random one, so that the head sees different activations.
"""

from __future__ import annotations

from collections.abc import Mapping

from bitnet_cy import BitNetError, engine
from bitnet_cy.engine import timing
from measures.plan import Plan, choices, decode_step, random_ids
from measures.record import Section

PROMPT = 32
SEARCHES = {"all": 0, "largest": 1, "40 largest": 40}


def measure(plan: Plan, section: Section) -> None:
    """The model's head and, where there is a file of it, one of plain Gaussian numbers."""
    files = {"a real spectrum": plan.model, "Gaussian numbers": plan.gaussian}
    for name, path in files.items():
        if name == "Gaussian numbers" and path is None:
            continue
        for threads in plan.threads:
            model = plan.load(threads, path=path, **choices("head")[0])
            session = model.new_session(PROMPT + 32)
            ids = random_ids(model, PROMPT + (4 if plan.quick else 16))
            session.forward(ids[:PROMPT], logits="none")
            if hasattr(session, "make_screen"):
                session.make_screen()
            for _ in plan.rounds(5):
                _round(section, session, ids, {"head": name, "threads": threads})


def _round(
    section: Section, session: engine.Session, ids: list[int], labels: Mapping[str, object]
) -> None:
    """The same tokens with every search; a search must find what the full head finds."""
    full, expected = 0.0, None
    searches = SEARCHES if getattr(session, "screened", False) else {"all": 0}
    for logits, k in searches.items():
        session.truncate(PROMPT)
        session.time_stages()
        found = [decode_step(session, token, k) for token in ids[PROMPT:]]
        spent = timing.by_part(session.stage_seconds)["head"] / len(found)
        full, expected = full or spent, expected or found
        if found != expected:
            raise BitNetError(f"the screen found other tokens among the {logits} than the head")
        section.sample("head time", "s", spent, logits=logits, **labels)
        share = spent / full
        section.sample("share of the full head's time", "ratio", share, logits=logits, **labels)
