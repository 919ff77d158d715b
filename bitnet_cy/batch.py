"""Several generations at once: one step reads the weights once for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bitnet_cy.generation import Chunk, Session, Writer, evaluate


@dataclass(frozen=True)
class Member:
    """One generation of a batch: its key, its session and its writer."""

    key: int
    session: Session
    writer: Writer


class Batch:
    """Generations that share steps. They may be added at any time and leave when finished.

    `together(sessions, ids)` appends one token to each session in one step and gives the logits,
    float32 [len(sessions), vocab]: the engine's forward_together.
    """

    def __init__(self, together: Callable[[Sequence[Any], Sequence[int]], Any]) -> None:
        self._together = together
        self._new: list[Member] = []
        self._running: list[Member] = []

    def __len__(self) -> int:
        return len(self._new) + len(self._running)

    def add(self, key: int, session: Session, writer: Writer) -> None:
        """Let a generation take part from the next step on. The session is empty."""
        self._new.append(Member(key, session, writer))

    def step(self) -> Iterator[tuple[int, Chunk]]:
        """One token for every generation, with its key; finished ones leave the batch.

        Prompts of new members are evaluated one after the other, each in blocks.
        """
        running, self._running = self._running, []
        if running:
            start = time.perf_counter()
            ids = [member.writer.pending[0] for member in running]
            logits = self._together([member.session for member in running], ids)
            for member, row in zip(running, logits, strict=True):
                yield self._take(member, row, start)
        while self._new:
            member = self._new.pop(0)
            start = time.perf_counter()
            yield self._take(member, evaluate(member.session, member.writer.pending), start)

    def _take(self, member: Member, logits: Any, start: float) -> tuple[int, Chunk]:
        chunk = member.writer.take(logits, start)
        if not member.writer.finished:
            self._running.append(member)
        return member.key, chunk
