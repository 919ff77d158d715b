"""Finding special tokens in text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialToken:
    """A token found in text as a whole instead of being built by merges.

    control: found only where the caller lets special tokens be parsed; a token that is not
    (GGUF calls it user-defined) is found in any text.
    strip_left, strip_right: whitespace beside the token belongs to it.
    """

    id: int
    control: bool = True
    strip_left: bool = False
    strip_right: bool = False


class SpecialSplitter:
    """Cuts text at special tokens; the leftmost wins, then the longest."""

    def __init__(self, tokens: Mapping[str, SpecialToken]) -> None:
        self._tokens = dict(tokens)
        self._all = _Finder(list(tokens))
        self._plain = _Finder([text for text, token in tokens.items() if not token.control])

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """The text as pieces: strings, none of them empty, and ids of special tokens."""
        finder = self._all if parse_special else self._plain
        pieces: list[str | int] = []
        end, strip = 0, False
        for start, found in finder.find(text):
            if start < end:
                continue
            token = self._tokens[found]
            _add(pieces, text[end:start], strip, token.strip_left)
            pieces.append(token.id)
            end, strip = start + len(found), token.strip_right
        _add(pieces, text[end:], strip, False)
        return pieces


def _add(pieces: list[str | int], text: str, strip_left: bool, strip_right: bool) -> None:
    if strip_left:
        text = text.lstrip()
    if strip_right:
        text = text.rstrip()
    if text:
        pieces.append(text)


class _Finder:
    """Occurrences of any of a set of strings, at each place the longest one.

    Candidates are found by their first character, then compared by length, so that thousands of
    strings cost no more than the few that start alike.
    """

    def __init__(self, texts: list[str]) -> None:
        self._lengths: dict[str, list[int]] = {}
        self._texts = frozenset(texts)
        for text in texts:
            lengths = self._lengths.setdefault(text[0], [])
            if len(text) not in lengths:
                lengths.append(len(text))
        for lengths in self._lengths.values():
            lengths.sort(reverse=True)
        starts = "".join(map(re.escape, self._lengths))
        self._start = re.compile(f"[{starts}]") if starts else None

    def find(self, text: str) -> list[tuple[int, str]]:
        """Positions and strings; they may overlap."""
        if self._start is None:
            return []
        found = []
        for match in self._start.finditer(text):
            start = match.start()
            for length in self._lengths[match.group()]:
                candidate = text[start : start + length]
                if candidate in self._texts:
                    found.append((start, candidate))
                    break
        return found
