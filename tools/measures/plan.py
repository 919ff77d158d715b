"""What to measure with, and for how long: the same for every section."""

from __future__ import annotations

import inspect
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
    gaussian: Path | None = None
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

    def load(self, threads: int, path: Path | None = None, **options: Any) -> bitnet_cy.Model:
        """The model under test, or another."""
        return bitnet_cy.load(path or self.model, threads=threads, **options)


def choices(name: str) -> list[dict[str, str]]:
    """Ways to load a model that give the same tokens at different speeds: options of one name.

    None but the default where this version of the package has no such option, so that older
    versions can be measured too.
    """
    values = {"weights": ("2bit", "1.6bit"), "head": ("screened", "full")}[name]
    offered = inspect.signature(bitnet_cy.load).parameters
    return [{name: value} for value in values] if name in offered else [{}]


def decode_step(session: Any, token: int, k: int = 1) -> int:
    """Append a token and give the likeliest next one, as generation does.

    k: of a screened head the k largest logits are searched; 0: all are computed.
    """
    if k and getattr(session, "screened", False):
        ids, logits = session.forward_top([token], k)[0]
        return int(ids[np.argmax(logits)])
    return int(np.argmax(session.forward([token])))


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
