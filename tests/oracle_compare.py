"""When two implementations of one model agree.

BitNet quantizes the input of every layer to int8, so two implementations that compute the same
in float32 give logits that differ in the last digits only, until one input lies on a rounding
edge: the last digit then decides between two integers. From that token on, the difference of one
step in 127 grows to the noise of the quantization itself, some hundredths of the spread of the
logits, because it moves later inputs over edges too. So:

* most tokens must agree to EXACT; a wrong formula, scale or order would spoil every one;
* all must point in the same direction, with a cosine of at least LEAST_COSINE over a sequence;
* greedy tokens must be equal up to a step where the best two are closer than that noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EXACT = 2e-5  # of the spread of the logits; ten times what float32 sums of 100 to 1000 terms give
LEAST_EXACT = 0.5  # share of tokens; the rest come after a value on a rounding edge
LEAST_COSINE = 0.999
NEAR_TIE = 0.2  # of the spread; after a value on a rounding edge, logits move by 0.1 or so
LEAST_EQUAL = 0.75  # share of greedy steps up to the first that a near tie decides otherwise


@dataclass(frozen=True, repr=False)
class Agreement:
    """differences: of each token, the largest between its logits, by their spread. cosine: the
    least of a sequence, the mean of each token's logits being 0."""

    differences: np.ndarray
    cosine: float

    @property
    def exact(self) -> float:
        return float((self.differences < EXACT).mean())

    def __bool__(self) -> bool:
        return self.exact >= LEAST_EXACT and self.cosine >= LEAST_COSINE

    def __repr__(self) -> str:
        return (
            f"<{self.exact:.0%} of {len(self.differences)} tokens exact, largest difference "
            f"{self.differences.max():.2g}, least cosine {self.cosine:.6f}>"
        )


def compare(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Agreement:
    """Logits [T, vocab] of some sequences."""
    differences, cosines = [], []
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        a, b = a.astype(np.float64), b.astype(np.float64)
        spread = (b - b.mean(axis=1, keepdims=True)).std()
        differences.append(np.abs(a - b).max(axis=1) / spread)
        a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
        cosines.append((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    return Agreement(np.concatenate(differences), float(min(cosines)))


def equal_steps(
    found: Sequence[int], expected: Sequence[int], logits: np.ndarray, near_tie: float = NEAR_TIE
) -> int:
    """How many greedy tokens are equal before the first that is not.

    `logits` [len(expected), vocab] are those that `expected` were chosen by. AssertionError if
    the tokens part where the best two of these are further apart than `near_tie`.
    """
    assert len(expected) == len(logits)
    best = np.sort(logits, axis=1)
    gaps = (best[:, -1] - best[:, -2]) / logits.std(axis=1).mean()
    for step, (a, b) in enumerate(zip(found, expected, strict=False)):
        if a != b:
            gap = gaps[step]
            assert gap < near_tie, f"step {step}: {a}, not {b}, with a gap of {gap:.2f}"
            return step
    assert len(found) == len(expected), "equal tokens, but one ends earlier"
    return len(expected)


def follow(
    ours: Any, prompts: Sequence[list[int]], answers: Sequence[tuple[list[int], np.ndarray]]
) -> tuple[Agreement, float]:
    """Our model against another engine's greedy tokens and their log-probabilities [T, vocab].

    How our logits along those tokens agree, and the share of our own greedy tokens that are equal.
    """
    found, expected, equal, total = [], [], 0, 0
    for prompt, (tokens, rows) in zip(prompts, answers, strict=True):
        z = np.asarray(ours.logits([*prompt, *tokens])[len(prompt) - 1 : -1], np.float64)
        found.append(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))
        expected.append(rows)
        written = ours.generate(prompt, max_new_tokens=len(tokens)).token_ids
        equal += equal_steps(written, tokens, rows)
        total += len(tokens)
    return compare(found, expected), equal / total
