"""Checks of options: each gives the value in its proper type or raises OptionError."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from bitnet_cy.errors import OptionError


def whole(name: str, value: Any, least: int, most: float = math.inf, hint: str = "") -> int:
    """A whole number from `least` to `most`; a bool is none. `hint` ends the message."""
    try:
        number = least - 1 if _is_bool(value) else operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise OptionError(f"{name} is {value!r}; give a whole number {_span(least, most)}{hint}")
    return number


def real(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """A finite number from `least` to `most`; a bool is none."""
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if _is_bool(value) or not least <= number <= most or math.isinf(number):
        raise OptionError(f"{name} is {value!r}; give a number {_span(least, most)}")
    return number


def strings(name: str, value: Any) -> tuple[str, ...]:
    """One string or a sequence of them, none empty."""
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, Sequence) or not all(isinstance(s, str) and s for s in several):
        raise OptionError(f"{name} is {value!r}; give a string or a list of strings, none empty")
    return tuple(several)


def member(name: str, value: Any, choices: Sequence[str]) -> None:
    """One of a few strings."""
    if value not in choices:
        raise OptionError(f"{name} is {value!r}; choose from {', '.join(choices)}")


def known(name: str, names: Sequence[str]) -> None:
    """One of the names of options; the message tells the nearest."""
    if name in names:
        return
    import difflib

    nearest = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"options are {', '.join(names)}"
    raise OptionError(f"unknown option {name}; {hint}")


def _is_bool(value: Any) -> bool:
    """NumPy's too, whose type this module need not import."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def _span(least: float, most: float) -> str:
    return f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:.15g}"
