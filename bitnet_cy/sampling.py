"""From logits to a token id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_cy.errors import BitNetError

Logits = NDArray[np.float32]
Ids = NDArray[np.integer[Any]]
Ask = tuple[int, "NDArray[np.uint8] | None"]

MOST_WANTED = 64
"""The most largest logits that are worth a search of the head."""


class Sampler:
    """Chooses the next token. One sampler serves one generation.

    The steps, in this order: repetition penalty (over the prompt and all that was generated),
    temperature, top_k, top_p, min_p, then a draw from what is left. A temperature of 0 takes the
    likeliest token after the penalty, the lowest id among equals, and ignores the other steps.
    The draws come from NumPy's PCG64: the same seed and logits give the same ids.

    Arguments
        temperature: logits are divided by it.
        top_k: keep the k likeliest tokens (the lowest ids among equals); 0 keeps all.
        top_p: of those, keep the smallest set whose probabilities sum to at least top_p.
        min_p: of those, keep tokens at least min_p times as probable as the likeliest.
        repetition_penalty: divides the positive and multiplies the negative logits of tokens seen
            before (Keskar et al. 2019, CTRL).
        seed: None draws a fresh one.
        seen: ids that count as seen from the start, usually the prompt's.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        seen: Iterable[int] = (),
    ) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.min_p = min_p
        self.repetition_penalty = repetition_penalty
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._seen = np.unique(np.fromiter(seen, dtype=np.intp))

    def wanted(self, vocab_size: int) -> Ask | None:
        """Which logits decide the next token: the k largest, and those listed; None: all.

        Listed (uint8 [vocab_size], 1 for each, or None for none) are the tokens whose logits the
        repetition penalty changes.
        """
        k = 1 if self.temperature == 0.0 else self.top_k
        if not 0 < k <= MOST_WANTED:
            return None
        if self.repetition_penalty == 1.0 or not len(self._seen):
            return k, None
        listed = np.zeros(vocab_size, dtype=np.uint8)
        listed[self._seen] = 1
        return k, listed

    def sample(self, logits: Logits, ids: Ids | None = None) -> int:
        """Choose the token that follows; it counts as seen from then on.

        `logits` is float32 [vocab] and is left as it was; or float32 [n] of ascending `ids`, among
        them all that are wanted(): then the token is the same. Raises BitNetError if any is NaN
        or infinite.
        """
        logits = self._penalized(_checked(logits, ids), ids)
        if self.temperature == 0.0:
            chosen = int(np.argmax(logits))
        else:
            chosen = self._draw(*self.candidates(logits))
        token = chosen if ids is None else int(ids[chosen])
        self._see(token)
        return token

    def candidates(self, logits: Logits) -> tuple[Ids, NDArray[np.float64]]:
        """The indices that may be drawn and their weights: float64, relative to the likeliest's 1.

        Only for a temperature above 0.
        """
        ids: Ids = np.arange(len(logits))
        if 0 < self.top_k < len(logits):
            ids = top_k(logits, self.top_k)
        with np.errstate(over="ignore"):
            scaled = (logits[ids] - logits.max()).astype(np.float64) / self.temperature
        weights = np.exp(scaled)
        if self.top_p < 1.0:
            kept = nucleus(weights, self.top_p)
            ids, weights = ids[kept], weights[kept]
        if self.min_p > 0.0:
            kept = np.flatnonzero(weights >= self.min_p)
            ids, weights = ids[kept], weights[kept]
        return ids, weights

    def _draw(self, ids: Ids, weights: NDArray[np.float64]) -> int:
        cumulative = np.cumsum(weights)
        drawn = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(ids[min(int(drawn), len(ids) - 1)])

    def _penalized(self, logits: Logits, ids: Ids | None = None) -> Logits:
        if self.repetition_penalty == 1.0 or not len(self._seen):
            return logits
        logits = logits.copy()
        seen = self._seen if ids is None else np.searchsorted(ids, self._seen)
        values = logits[seen]
        penalty = np.float32(self.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        return logits

    def _see(self, token: int) -> None:
        place = int(np.searchsorted(self._seen, token))
        if place == len(self._seen) or self._seen[place] != token:
            self._seen = np.insert(self._seen, place, token)


def _checked(logits: Logits, ids: Ids | None) -> Logits:
    """min and max pass a NaN on, so two reductions find whatever is not finite."""
    if not (np.isfinite(logits.max()) and np.isfinite(logits.min())):
        bad = int(np.flatnonzero(~np.isfinite(logits))[0])
        token = bad if ids is None else ids[bad]
        raise BitNetError(
            f"the logit of token {token} is {logits[bad]}: the model file is damaged, or this is a "
            "bug in bitnet_cy; please report it with the output of `bitnet-cy info`"
        )
    return logits


def top_k(values: NDArray[np.floating[Any]], k: int) -> Ids:
    """The indices of the k largest values, ascending; among equals the lowest indices."""
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > threshold)
    equal = np.flatnonzero(values == threshold)[: k - len(above)]
    return np.sort(np.concatenate([above, equal]))


def nucleus(weights: NDArray[np.float64], share: float) -> Ids:
    """The indices, ascending, of the fewest weights that sum to at least `share` of the total.

    `weights` are at least 0; among equals the lowest indices are taken. The bits of such floats
    order as integers, so their upper ones sort the weights into bins, and only the bin in which
    the sum is reached has to be sorted itself.
    """
    bins = weights.view(np.int64) >> 46  # exponent and 6 bits of the fraction
    sums = np.bincount(bins, weights)[::-1].cumsum()  # from the heaviest bin down
    wanted = share * sums[-1]
    place = min(int(np.searchsorted(sums, wanted)), len(sums) - 1)
    reached = len(sums) - 1 - place
    above = np.flatnonzero(bins > reached)
    within = np.flatnonzero(bins == reached)
    within = within[np.argsort(-weights[within], kind="stable")]
    missing = wanted - (sums[place - 1] if place else 0.0)
    needed = int(np.searchsorted(weights[within].cumsum(), missing)) + 1
    return np.sort(np.concatenate([above, within[:needed]]))
