"""Prompt lookup: guess the next tokens from an earlier place in the same text.

Saxena 2023, "Prompt Lookup Decoding": where the last tokens occurred before, what followed then is
a cheap draft of what follows now. The draft is only ever a guess that the model checks, so it
changes how many tokens one step yields, never which.
"""

from __future__ import annotations

from collections.abc import Iterable

NGRAMS = (3, 2)


class PromptLookup:
    """Drafts of up to `most` tokens; how long they are follows how well they did."""

    def __init__(self, ids: Iterable[int], most: int) -> None:
        self._most = most
        self._length = min(most, 4)
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        for token in ids:
            self.push(token)

    def push(self, token: int) -> None:
        """The text goes on with this token."""
        for size in NGRAMS:
            if len(self._ids) >= size:
                self._after[tuple(self._ids[-size:])] = len(self._ids)
        self._ids.append(token)

    def draft(self, room: int) -> list[int]:
        """What followed the last time the text ended like this: at most `room` tokens."""
        length = min(room, self._length)
        for size in NGRAMS:
            start = self._after.get(tuple(self._ids[-size:]))
            if start is not None and len(self._ids) >= size and length > 0:
                return self._ids[start : start + length]
        return []

    def judge(self, drafted: int, accepted: int) -> None:
        """Grow after a draft that held throughout, shrink after one that failed early."""
        if accepted == drafted:
            self._length = min(self._most, self._length * 2)
        elif 2 * accepted < drafted:
            self._length = max(1, self._length // 2)
