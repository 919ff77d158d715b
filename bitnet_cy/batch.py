"""Several generations at once: one step reads the weights once for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bitnet_cy.generation import SEARCHED_ROWS, Chunk, Session, Writer, evaluate


@dataclass(frozen=True)
class Member:
    """One generation of a batch: its key, its session and its writer."""

    key: int
    session: Session
    writer: Writer


class Batch:
    """Generations that share steps. They may be added at any time and leave when finished.

    `together(sessions, ids, asks)` appends one token to each session in one step and gives the
    logits, all or those asked for: the engine's forward_together.
    """

    def __init__(self, together: Callable[[Sequence[Any], Sequence[int], Any], Any]) -> None:
        self._together = together
        self._new: list[Member] = []
        self._running: list[Member] = []

    def __len__(self) -> int:
        return len(self._new) + len(self._running)

    def add(self, key: int, session: Session, writer: Writer) -> None:
        """Let a generation take part from the next step on. The session is empty."""
        self._new.append(Member(key, session, writer))

    def run(self, count: int, most: int, join: Callable[[int], None]) -> list[list[Chunk]]:
        """The chunks of `count` generations, at most `most` at once; join adds one by its key."""
        chunks: list[list[Chunk]] = [[] for _ in range(count)]
        started = 0
        while started < count or len(self):
            while started < count and len(self) < most:
                join(started)
                started += 1
            for key, chunk in self.step():
                chunks[key].append(chunk)
        return chunks

    def step(self) -> Iterator[tuple[int, Chunk]]:
        """One token for every generation, with its key; finished ones leave the batch.

        Prompts of new members are evaluated one after the other, each in blocks.
        """
        running, self._running = self._running, []
        if running:
            start = time.perf_counter()
            for member, (ids, row) in zip(running, self._logits(running), strict=True):
                yield self._take(member, row, start, ids)
        while self._new:
            member = self._new.pop(0)
            start = time.perf_counter()
            logits = evaluate(member.session, member.writer.pending)
            member.session.expect(member.writer.remaining)
            yield self._take(member, logits, start)

    def _logits(self, running: list[Member]) -> list[tuple[Any, Any]]:
        """One step: for each member (ids, their logits), or (None, all logits)."""
        sessions = [member.session for member in running]
        ids = [member.writer.pending[0] for member in running]
        asks = [member.writer.wanted() for member in running]
        if (
            any(ask is None for ask in asks)
            or len(asks) > SEARCHED_ROWS
            or not sessions[0].screened
        ):
            return [(None, row) for row in self._together(sessions, ids, None)]
        return list(self._together(sessions, ids, asks))

    def _take(
        self, member: Member, logits: Any, start: float, ids: Any = None
    ) -> tuple[int, Chunk]:
        chunk = member.writer.take(logits, start, ids)
        if not member.writer.finished:
            self._running.append(member)
        return member.key, chunk
