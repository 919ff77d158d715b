"""Threads that work ahead of whoever uses what they make."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Made = TypeVar("Made")
Job = Callable[[], Made]


class Workers:
    """Runs jobs on `threads` threads. NumPy lets go of the interpreter while it works."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool, self._ahead = pool, threads + 1

    def in_order(self, jobs: Iterable[Job[Made]]) -> Generator[Made, None, None]:
        """What the jobs make, in their order, begun at most one job ahead of the threads.

        So no more is in memory than the threads work on, and one result. An error of a job is
        raised in its turn.
        """
        begun: deque[Future[Made]] = deque()
        try:
            for job in jobs:
                begun.append(self._pool.submit(job))
                if len(begun) >= self._ahead:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Workers for a block of code, at the end of which none is at work any more."""
    with ThreadPoolExecutor(threads, "bitnet_cy-convert") as pool:
        yield Workers(pool, threads)
