"""Prompt lookup: what it gains where a text repeats itself, what it costs where nothing does."""

from __future__ import annotations

import bitnet_cy
from measures.plan import Plan, random_ids
from measures.record import Section

PARAGRAPH = (
    "Once upon a time there was a king who had three daughters. The eldest was proud, the second "
    "was vain, but the youngest was as good as she was beautiful. One day the king went into the "
    "forest to hunt, and he lost his way among the trees. "
)
LOOKUPS = (0, 8, 16)


def measure(plan: Plan, section: Section) -> None:
    """The embedded model, greedy after a paragraph given twice, and drawing after random tokens."""
    new = 16 if plan.quick else 160
    for threads in plan.threads:
        model = bitnet_cy.load(threads=threads)
        section.note(model=model.path.name)
        repeating = model.tokenizer.encode(2 * PARAGRAPH + PARAGRAPH[:40])
        cases = {
            "repeating": (repeating, {"temperature": 0.0}),
            "random": (random_ids(model, 64), {"temperature": 1.0, "seed": 1}),
        }
        for _ in plan.rounds(15):
            for name, (ids, options) in cases.items():
                _round(section, model, name, ids, options | {"max_new_tokens": new})


def _round(
    section: Section, model: bitnet_cy.Model, name: str, ids: list[int], options: dict[str, float]
) -> None:
    """One text with each lookup; the same tokens every time, or the figures mean nothing."""
    threads, plain = model.threads.count, 0.0
    texts = set()
    for lookup in LOOKUPS:
        result = model.generate(ids, prompt_lookup_num_tokens=lookup, **options)
        texts.add(tuple(result.token_ids))
        rate = result.decode_tokens_per_second
        plain = rate if lookup == 0 else plain
        labels = {"text": name, "lookup": lookup, "threads": threads}
        section.sample("decode", "tok/s", rate, **labels)
        section.sample("gain", "ratio", rate / plain, **labels)
    if len(texts) != 1:
        raise bitnet_cy.BitNetError(f"prompt lookup changed the tokens of the {name} text")
