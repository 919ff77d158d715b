"""Where the time of a step goes, by what bounds it: weights, attention, head, and the rest."""

from __future__ import annotations

from collections.abc import Mapping

_TERNARY = {"qkv", "o", "gate_up", "down"}
_ATTENTION = {"rope", "attention"}


def by_part(stage_seconds: Mapping[str, float]) -> dict[str, float]:
    """Session.stage_seconds joined to "ternary", "attention", "head" and "other".

    "other" is norms, quantization and the embedding. Stages of the head start with "head".
    """
    parts = dict.fromkeys(("ternary", "attention", "head", "other"), 0.0)
    for stage, seconds in stage_seconds.items():
        parts[_part(stage)] += seconds
    return parts


def _part(stage: str) -> str:
    if stage in _TERNARY:
        return "ternary"
    if stage in _ATTENTION:
        return "attention"
    return "head" if stage.startswith("head") else "other"
