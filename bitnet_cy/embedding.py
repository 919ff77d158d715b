"""Texts to vectors: pooling what a network makes of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_cy import checks, engine
from bitnet_cy.errors import OptionError

POOLINGS = ("mean", "cls", "last")
TOKENS_AT_ONCE = 512
"""Most tokens of one step, unless one text is longer."""


def embed(
    network: engine.Network,
    texts: Sequence[list[int]],
    pooling: str,
    normalize: bool,
    batch_size: int,
    threads: int,
) -> NDArray[np.float32]:
    """Vectors float32 [len(texts), hidden] of texts of token ids, none of them empty.

    A text's vector is the same bits whichever texts are beside it.
    """
    out = np.zeros((len(texts), network.shape.hidden_size), np.float32)
    groups = list(batches([len(ids) for ids in texts], batch_size))
    rows = max((sum(len(texts[place]) for place in group) for group in groups), default=0)
    if not rows:
        return out
    encoder = engine.Encoder(network, rows, threads)
    for group in groups:
        states = encoder.forward([texts[place] for place in group])
        first = 0
        for place in group:
            out[place] = pooled(states[first : first + len(texts[place])], pooling)
            first += len(texts[place])
    return normalized(out) if normalize else out


def batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Places of texts, the shortest first, in groups of few enough texts and tokens."""
    group: list[int] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if group and (len(group) == batch_size or tokens + lengths[place] > TOKENS_AT_ONCE):
            yield group
            group, tokens = [], 0
        group.append(place)
        tokens += lengths[place]
    if group:
        yield group


def pooled(states: NDArray[np.float32], pooling: str) -> NDArray[np.float32]:
    """One vector of the hidden states [tokens, hidden] of a text."""
    if pooling == "mean":
        return states.mean(axis=0, dtype=np.float64).astype(np.float32)
    return states[0] if pooling == "cls" else states[-1]


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [n, hidden] of length 1; a vector of zeros stays one."""
    lengths = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def chosen_pooling(asked: Any, stored: str | None) -> str:
    """The user's word, then the file's."""
    if asked is not None:
        checks.member("pooling", asked, POOLINGS)
        return str(asked)
    if stored is None:
        raise OptionError(
            "the model's file names no pooling, as embedding models' do; choose one of "
            f"{', '.join(POOLINGS)} (pooling)"
        )
    return stored
