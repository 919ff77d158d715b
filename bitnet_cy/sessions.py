"""Engine sessions kept for the next generation, with what they remember."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bitnet_cy.generation import Session

KEEP = 2
"""Idle sessions kept per model; each holds a KV cache."""


@dataclass
class Loan:
    """A session in use. `ids` are the tokens it was given; its user appends the new ones."""

    session: Session
    ids: list[int] = field(default_factory=list)

    def shared(self, ids: Sequence[int]) -> int:
        """How many of the tokens at the beginning of `ids` the session holds already."""
        count = 0
        for held, wanted in zip(self.ids[: self.session.position], ids, strict=False):
            if held != wanted:
                break
            count += 1
        return count


class SessionPool:
    """Lends each user a session of its own; safe to use from several threads."""

    def __init__(self, create: Callable[[], Session]) -> None:
        self._create = create
        self._idle: list[Loan] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, ids: Sequence[int], reuse: bool = False) -> Iterator[Loan]:
        """A session for evaluating `ids`, empty, or with `reuse` one that holds their beginning.

        At least the last of the ids is left to evaluate, because its logits are wanted.
        """
        loan = self._take(ids, reuse)
        loan.session.truncate(min(loan.shared(ids), len(ids) - 1) if reuse else 0)
        loan.ids = list(ids)
        try:
            yield loan
        finally:
            self._give_back(loan)

    def _take(self, ids: Sequence[int], reuse: bool) -> Loan:
        with self._lock:
            if self._idle:
                best = max(self._idle, key=lambda loan: loan.shared(ids)) if reuse else None
                loan = best or self._idle[0]
                self._idle.remove(loan)
                return loan
        return Loan(self._create())

    def _give_back(self, loan: Loan) -> None:
        with self._lock:
            if len(self._idle) < KEEP:
                self._idle.append(loan)
