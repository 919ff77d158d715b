"""What to measure with, and for how long: the same for every section."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import bitnet_cy


@dataclass(frozen=True)
class Plan:
    """The options of one section's run.

    model: a GGUF file, None: the embedded model. threads: counts to measure, the most first.
    seconds: no new round begins after them. yardstick: a folder with the peer's program; peer:
    the file it runs. text: held-out text for what is lost. quick: few and small rounds, to see
    that all works; its figures mean nothing.
    """

    model: Path | None
    threads: tuple[int, ...]
    seconds: float
    quick: bool = False
    yardstick: Path | None = None
    peer: Path | None = None
    text: Path | None = None
    started: float = field(default_factory=time.monotonic)

    def rounds(self, most: int) -> Iterator[int]:
        """Numbers of rounds: at least one, at most `most`, none begun after the plan's time."""
        for number in range(min(most, 2) if self.quick else most):
            if number and self.late:
                return
            yield number

    @property
    def late(self) -> bool:
        """Whether the plan's time is over."""
        return time.monotonic() - self.started > self.seconds

    def load(self, threads: int, **options: Any) -> bitnet_cy.Model:
        """The model under test."""
        return bitnet_cy.load(self.model, threads=threads, **options)


def random_ids(model: bitnet_cy.Model, count: int, seed: int = 0) -> list[int]:
    """Token ids that mean nothing."""
    ids = np.random.default_rng(seed).integers(0, model.config.vocab_size, count)
    return [int(token) for token in ids]


def multiply_adds(model: bitnet_cy.Model) -> int:
    """Ternary multiply-adds that one token takes."""
    c = model.config
    heads, kv_heads = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    layer = c.hidden_size * (2 * heads + 2 * kv_heads + 3 * c.ffn_size)
    return int(c.n_layers * layer)


def ternary_bytes(model: bitnet_cy.Model) -> int:
    """Bytes of ternary weights that a decoded token reads."""
    return sum(model.network.parts["ternary"].values())
