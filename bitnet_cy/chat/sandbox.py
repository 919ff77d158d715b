"""Jinja for templates that come out of downloaded files.

Jinja's own sandbox keeps a template away from Python. This one also keeps it from running for
ever or filling the memory: the steps it takes are counted, what it builds is measured, and only
the filters and methods that chat templates use are there.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import Environment, Template, filters, nodes, pass_environment
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bitnet_cy.errors import FormatError, OptionError

MAX_SOURCE = 1 << 17  # characters
MAX_SIZE = 1 << 22  # characters and elements in one value, or in the result
MAX_TOTAL = 1 << 26  # characters of all values built, an element counted as 16
MAX_STEPS = 1_000_000  # lines of Python
MAX_SECONDS = 5.0  # of processor time, for steps that are slow
_MAX_BITS = 4096
_MAX_INDENT = 64
_MAX_PRECISION = 300
_MAX_PATTERN = 1000
_ELEMENT = 16


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _names(
    "abs capitalize count d default dictsort first float int items last length list lower map max "
    "min reject rejectattr reverse safe select selectattr sort title trim unique upper"
)
_TEXT_METHODS = _names(
    "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower "
    "isnumeric isspace istitle isupper join lower lstrip partition removeprefix removesuffix "
    "replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase "
    "title upper"
)
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, _TEXT_METHODS),
    (dict, _names("get items keys values")),
    (list, _names("count index")),
    (tuple, _names("count index")),
    (int, frozenset()),
    (float, frozenset()),
    (bytes, frozenset()),
    (range, frozenset()),
)


class RefusalError(Exception):
    """A template calling `raise_exception`."""


class Exhausted(BaseException):
    """No more steps; not an Exception, so that nothing in Jinja takes it for one of its own."""


class _Built(threading.local):
    """How much a rendering has built so far, whether or not it still holds it."""

    total = 0


_built = _Built()


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The text a template makes of its variables.

    Raises OptionError with the template's own words if it refuses the variables, FormatError if
    it is no valid template, fails, or asks for more time or memory than a chat template needs.
    """
    _built.total = 0
    try:
        template = _compiled(source)
        with _counted():
            return template.render(variables)
    except RefusalError as error:
        raise OptionError(f"the chat template refuses these messages: {error}") from None
    except Exhausted:
        reason = "runs too long"
    except RecursionError:
        reason = "is nested too deeply"
    except MemoryError:
        reason = "needs too much memory"
    except TemplateError as error:
        reason = f"does not work: {error.message or type(error).__name__}"
    except Exception as error:  # a template can provoke nearly any of Python's
        reason = f"does not work: {error or type(error).__name__}"
    raise FormatError(f"the chat template {reason[:300]}; use a model file with a sound one")


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    if len(source) > MAX_SOURCE:
        raise SecurityError(f"it has {len(source)} characters; at most {MAX_SOURCE} are read")
    return _Environment().from_string(source)


@contextmanager
def _counted() -> Iterator[None]:
    """Stop the code inside after MAX_STEPS lines or MAX_SECONDS."""
    left, deadline = MAX_STEPS, time.thread_time() + MAX_SECONDS

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or (left % 64 == 0 and time.thread_time() > deadline):
            raise Exhausted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _size(value: Any) -> int:
    """Characters and elements of a value, counted through containers; SecurityError if too many."""
    size, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        size += len(item) if isinstance(item, str) else 1
        if isinstance(item, Mapping):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
        _refuse(size + len(waiting) > MAX_SIZE)
    return size


def _refuse(too_large: bool) -> None:
    if too_large:
        raise SecurityError(f"it builds a value larger than {MAX_SIZE}")


def _measured(value: Any) -> Any:
    """A value written down in the template, unless it is too large."""
    _size(value)
    return _counting(value)


def _counting(value: Any) -> Any:
    """A value just built, unless it is one too many."""
    if isinstance(value, str):
        _built.total += len(value)
    elif isinstance(value, (list, tuple, Mapping)):
        _built.total += _ELEMENT * len(value)
    if _built.total > MAX_TOTAL:
        raise SecurityError(f"it builds values larger than {MAX_TOTAL} in all")
    return value


def _counting_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)  # with the marks by which Jinja passes the context
    def counting(*args: Any, **kwargs: Any) -> Any:
        return _counting(function(*args, **kwargs))

    return counting


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(_measured(value))


def _concatenate(parts: Iterable[Any]) -> str:
    """Join parts as text, counting while they come."""
    texts, size = [], 0
    for part in parts:
        texts.append(_text(part))
        size += len(texts[-1])
        _refuse(size > MAX_SIZE)
    _counting(text := "".join(texts))
    return text


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    whole, new = _text(text), _text(new)
    _refuse(len(whole) + whole.count(old) * len(new) > MAX_SIZE)
    return whole.replace(old, new, -1 if count is None else count)


@pass_environment
def _join(
    environment: Environment, value: Iterable[Any], d: str = "", attribute: str | None = None
) -> str:
    if attribute is not None:
        value = map(filters.make_attrgetter(environment, attribute), value)
    return _join_with(_text(d), value)


def _join_with(separator: str, value: Iterable[Any]) -> str:
    parts = list(value)
    _refuse(len(separator) * len(parts) > MAX_SIZE)
    return _concatenate(
        text for index, part in enumerate(parts) for text in (separator if index else "", part)
    )


def _indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text, step = _text(s), width if isinstance(width, str) else " " * min(width, _MAX_INDENT)
    _refuse((text.count("\n") + 1) * len(step) + len(text) > MAX_SIZE)
    return str(filters.do_indent(text, step, first, blank))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face's templates expect it: not escaped for HTML."""
    if indent is not None:
        indent = min(int(indent), _MAX_INDENT)
    return json.dumps(
        _measured(value),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    """Ten to the power of a great precision would take long."""
    return filters.do_round(
        value, max(-_MAX_PRECISION, min(int(precision), _MAX_PRECISION)), method
    )


def _raise_exception(message: object) -> None:
    raise RefusalError(message)


def _strftime_now(pattern: str) -> str:
    _refuse(len(pattern) > _MAX_PATTERN)
    return datetime.datetime.now().strftime(pattern)


def _check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be huge, before it is computed."""
    if operator == "+" and isinstance(left, (str, list, tuple)):
        _size([left, right])
    elif operator == "%" and isinstance(left, str):
        if re.search(r"\d{4}|\*", left):
            raise SecurityError("it formats text to a great width")
        _refuse(len(left) + left.count("%") * _size(right) > MAX_SIZE)
    elif operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
                _refuse(_size(sequence) * times > MAX_SIZE)
    if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length()
        _refuse(bits + right.bit_length() > _MAX_BITS)


class _Generator(CodeGenerator):
    """Compiles templates so that every value they write down is measured."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._write_measured(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._write_measured(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._write_measured(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _write_measured(self, visit: Callable[[Any, Frame], None], node: Any, frame: Frame) -> None:
        self.write("environment.measured(")
        visit(node, frame)
        self.write(")")


class _Generation(Extension):
    """The tag `generation`, with which Hugging Face's templates mark the assistant's words."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_concatenate)
    measured = staticmethod(_measured)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=_text,
        )
        found = {name: filters.FILTERS[name] for name in _FILTERS}
        found |= {
            "indent": _indent,
            "join": _join,
            "replace": _replace,
            "round": _round,
            "string": _text,
            "tojson": _to_json,
        }
        self.filters = {name: _counting_filter(function) for name, function in found.items()}
        self.globals = {
            "dict": dict,
            "namespace": self.globals["namespace"],
            "raise_exception": _raise_exception,
            "range": self.globals["range"],
            "strftime_now": _strftime_now,
        }

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is not among the methods, so it needs no wrapper."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return _counting(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        found = super().getitem(obj, argument)
        return _counting(found) if isinstance(argument, slice) else found

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _counting(_replace(owner, *args, **kwargs))
        if isinstance(owner, str) and name == "join":
            return _join_with(owner, *args, **kwargs)
        return _counting(super().call(__context, __obj, *args, **kwargs))
