"""Scaled positions from and to config.json, where they are `rope_scaling` or `rope_parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import rope
from bitnet_cy.formats.rope import RopeScaling

_UNSCALED = ("default", "none")
_GLOBAL = "full_attention"
_LARGEST = 1e30


def from_config(config: Mapping[str, Any]) -> RopeScaling | None:
    """How config.json scales the positions of layers that see everything; None if it does not."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise FormatError(f"config.json: rope_scaling is {found!r:.60}; an object is expected")
    parts = {kind: part for kind, part in found.items() if isinstance(part, dict)}
    if not parts:
        return _from_parameters(found, config)
    for kind, part in parts.items():
        if kind != _GLOBAL and _from_parameters(part, config) is not None:
            raise UnsupportedError(
                f"config.json scales the positions of {kind} layers, which is not supported; those "
                f"of {_GLOBAL} layers are"
            )
    return _from_parameters(parts.get(_GLOBAL, {}), config)


def _from_parameters(found: Mapping[str, Any], config: Mapping[str, Any]) -> RopeScaling | None:
    kind = found.get("rope_type", found.get("type", "default"))
    if kind in _UNSCALED or (kind == "linear" and found.get("factor", 1.0) == 1.0):
        return None
    if kind not in rope.KINDS or found.get("truncate", True) is not True:
        raise UnsupportedError(
            f"config.json scales positions by {kind!r:.40} (rope_scaling); "
            f"{' and '.join(rope.KINDS)} with their usual rounding are supported"
        )
    longest = _number(config, "max_position_embeddings", 0.0)
    length = _number(found, "original_max_position_embeddings", longest)
    factor = _number(found, "factor", longest / length if length else 1.0)
    if kind == "linear":
        return rope.check(RopeScaling(kind, factor), "config.json: rope_scaling")
    scaling = RopeScaling(
        kind,
        factor,
        int(length),
        _number(found, "beta_fast", rope.BETA_FAST),
        _number(found, "beta_slow", rope.BETA_SLOW),
        _number(found, "attention_factor", _usual_attention_factor(found, factor)),
    )
    return rope.check(scaling, "config.json: rope_scaling")


def to_config(scaling: RopeScaling | None) -> dict[str, Any]:
    """What `from_config` reads, for models whose layers are all of one kind."""
    return {} if scaling is None else {"rope_scaling": to_parameters(scaling)}


def to_parameters(scaling: RopeScaling | None) -> dict[str, Any]:
    """The same for layers of one kind."""
    if scaling is None:
        return {"rope_type": "default"}
    found: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "yarn":
        found |= {
            "original_max_position_embeddings": scaling.original_length,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "attention_factor": scaling.attention_factor,
        }
    return found


def _usual_attention_factor(found: Mapping[str, Any], factor: float) -> float:
    above, below = _number(found, "mscale", 0.0), _number(found, "mscale_all_dim", 0.0)
    if not above or not below:
        return rope.usual_attention_factor(factor)
    return rope.usual_attention_factor(factor, above) / rope.usual_attention_factor(factor, below)


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key)
    value = default if value is None else value
    if type(value) not in (int, float) or not abs(value) < _LARGEST:
        raise FormatError(f"config.json: {key} is {value!r:.60}; a number is needed")
    return float(value)
