"""Scaled positions: how a model reads longer texts than it was first trained on, and GGUF's keys.

config.json says the same in other words, which `bitnet_cy.convert.scaling` knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitnet_cy.errors import FormatError, UnsupportedError

KINDS = ("linear", "yarn")
BETA_FAST, BETA_SLOW = 32.0, 1.0
_PREFIX = "rope.scaling."


@dataclass(frozen=True)
class RopeScaling:
    """kind: "linear", where every pair turns `factor` times slower, or "yarn" (Peng et al., 2023).

    YaRN leaves pairs as they are that turn more than beta_fast times over the original_length
    positions of the first training, slows those that turn less than beta_slow times, and mixes in
    between. attention_factor: of rotated queries and keys.
    """

    kind: str
    factor: float
    original_length: int = 0
    beta_fast: float = BETA_FAST
    beta_slow: float = BETA_SLOW
    attention_factor: float = 1.0


def usual_attention_factor(factor: float, weight: float = 1.0) -> float:
    """What YaRN takes where a file names no other."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def check(scaling: RopeScaling, where: str) -> RopeScaling:
    """The same; FormatError unless its numbers can be computed with."""
    numbers = (scaling.factor, scaling.beta_fast, scaling.beta_slow, scaling.attention_factor)
    length = scaling.original_length or int(scaling.kind == "linear")
    if not all(1e-6 < number < 1e6 for number in numbers) or not 0 < length < 1 << 31:
        raise FormatError(
            f"{where} has factor {scaling.factor}, beta_fast {scaling.beta_fast}, beta_slow "
            f"{scaling.beta_slow}, attention factor {scaling.attention_factor} and original length "
            f"{scaling.original_length}; positive numbers are needed"
        )
    return scaling


def from_keys(keys: Mapping[str, Any], context_length: int) -> RopeScaling | None:
    """What GGUF keys (without their prefix) say; None if positions are not scaled.

    context_length: the original one where the file names none. UnsupportedError for other kinds.
    """
    kind = keys.get(f"{_PREFIX}type", "none")
    factor = _number(keys, "factor", 1.0)
    known = kind if isinstance(kind, str) else ""
    if known == "none" or (known == "linear" and factor == 1):
        return None
    if known not in KINDS:
        raise UnsupportedError(
            f"rope scaling {kind!r:.40} by {factor} is not supported; {' and '.join(KINDS)} are"
        )
    if kind == "linear":
        return check(RopeScaling(kind, factor), "rope.scaling")
    if _number(keys, "yarn_log_multiplier", 0.0):
        raise UnsupportedError(
            "rope.scaling.yarn_log_multiplier is not supported; it belongs to models of other kinds"
        )
    scaling = RopeScaling(
        kind,
        factor,
        int(_number(keys, "original_context_length", context_length)),
        _number(keys, "yarn_beta_fast", BETA_FAST),
        _number(keys, "yarn_beta_slow", BETA_SLOW),
        _number(keys, "attn_factor", 1.0) * usual_attention_factor(max(factor, 1.0)),
    )
    return check(scaling, "rope.scaling")


def to_keys(scaling: RopeScaling | None) -> dict[str, Any]:
    """What `from_keys` reads, and llama.cpp."""
    if scaling is None:
        return {}
    keys: dict[str, Any] = {"type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "yarn":
        keys["original_context_length"] = scaling.original_length
        if scaling.beta_fast != BETA_FAST:
            keys["yarn_beta_fast"] = scaling.beta_fast
        if scaling.beta_slow != BETA_SLOW:
            keys["yarn_beta_slow"] = scaling.beta_slow
        other = scaling.attention_factor / usual_attention_factor(scaling.factor)
        if abs(other - 1) > 1e-7:
            keys["attn_factor"] = other
    return {f"{_PREFIX}{key}": value for key, value in keys.items()}


def _number(keys: Mapping[str, Any], name: str, default: float) -> float:
    value = keys.get(f"{_PREFIX}{name}", default)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise FormatError(f"rope.scaling.{name} is {value!r:.60}; a number is needed")
    return float(str(np.float32(value)))  # the number that a float32 was written for
