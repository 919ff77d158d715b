"""Which layers of a model see a window only, from and to config.json and GGUF metadata.

Gemma 3 has five such layers before each that sees everything, with a rope base of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitnet_cy.convert import scaling
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats.rope import RopeScaling

PATTERN = 6
LOCAL_ROPE_BASE = 10000.0
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Window:
    """size: keys seen, as files name it. local: for each layer. rope_base: of those layers."""

    size: int
    local: tuple[bool, ...]
    rope_base: float


def pattern(n_layers: int, length: int) -> tuple[bool, ...]:
    """Every layer but the last of so many sees a window."""
    return tuple(bool((layer + 1) % length) for layer in range(n_layers))


def from_config(config: Mapping[str, Any], n_layers: int) -> Window | None:
    """The window that config.json names; None if no layer has one."""
    size = config.get("sliding_window")
    types = config.get("layer_types")
    if types is None:
        local = pattern(n_layers, config.get("sliding_window_pattern") or PATTERN)
    else:
        local = tuple(kind == _LOCAL for kind in types)
        unknown = set(types) - {_LOCAL, _GLOBAL}
        if unknown or len(local) != n_layers:
            raise UnsupportedError(
                f"config.json: layer_types names {len(local)} layers of kinds "
                f"{sorted(map(str, set(types)))}; known are {_LOCAL} and {_GLOBAL}, one for each "
                "layer"
            )
    if not size or not any(local):
        return None
    if type(size) is not int or size < 1:
        raise FormatError(f"config.json: sliding_window is {size!r:.40}; a count is needed")
    return Window(size, local, rope_base(config, _LOCAL, "rope_local_base_freq", LOCAL_ROPE_BASE))


def rope_base(config: Mapping[str, Any], kind: str, key: str, default: float) -> float:
    """The base of layers of a kind: by rope_parameters, else by a key of its own."""
    inner = config.get("rope_parameters")
    inner = inner.get(kind, inner) if isinstance(inner, dict) else {}
    value = inner.get("rope_theta") if kind in (config.get("rope_parameters") or {}) else None
    value = config.get(key) if value is None else value
    value = default if value is None else value
    if type(value) not in (int, float) or not 0 < value < 1e30:
        raise FormatError(f"config.json: {key} is {value!r:.40}; a positive number is needed")
    return float(value)


def to_config(
    window: Window | None, n_layers: int, base: float, scaled: RopeScaling | None
) -> dict[str, Any]:
    """What `from_config` reads."""
    local = window.local if window else (False,) * n_layers
    local_base = window.rope_base if window else LOCAL_ROPE_BASE
    return {
        "sliding_window": window.size if window else 4096,
        "layer_types": [_LOCAL if flag else _GLOBAL for flag in local],
        "rope_local_base_freq": local_base,
        "rope_parameters": {
            _LOCAL: {"rope_type": "default", "rope_theta": local_base},
            _GLOBAL: {"rope_theta": base} | scaling.to_parameters(scaled),
        },
    }


def from_keys(keys: Mapping[str, Any], n_layers: int) -> Window | None:
    """The window that GGUF keys (without their prefix) name; None if they name none."""
    size = keys.get("attention.sliding_window")
    if not size:
        return None
    stored = keys.get("attention.sliding_window_pattern", PATTERN)
    local = (
        pattern(n_layers, stored)
        if isinstance(stored, int)
        else tuple(bool(flag) for flag in stored)
    )
    if len(local) != n_layers:
        raise FormatError(f"attention.sliding_window_pattern is not one of {n_layers} layers")
    return Window(int(size), local, float(keys.get("rope.freq_base_swa", LOCAL_ROPE_BASE)))


def to_keys(window: Window | None) -> dict[str, Any]:
    """What `from_keys` reads."""
    if window is None:
        return {}
    keys: dict[str, Any] = {"attention.sliding_window": window.size}
    if window.local != pattern(len(window.local), PATTERN):
        keys["attention.sliding_window_pattern"] = list(window.local)
    if window.rope_base != LOCAL_ROPE_BASE:
        keys["rope.freq_base_swa"] = window.rope_base
    return keys
