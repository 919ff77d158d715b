"""How fast the pairs of a head turn when positions are scaled."""

from __future__ import annotations

import math

from bitnet_cy.engine.weights import Rope
from bitnet_cy.formats.rope import RopeScaling


def scaled(base: float, head_dim: int, scaling: RopeScaling | None) -> Rope:
    """The rope of a base, its positions scaled."""
    plain = Rope.of_base(base, head_dim)
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return Rope(tuple(frequency / scaling.factor for frequency in plain.frequencies))
    first, last = _mixed_pairs(base, head_dim, scaling)
    kept = [
        1 - min(max((pair - first) / (last - first), 0.0), 1.0) for pair in range(head_dim // 2)
    ]
    return Rope(
        tuple(
            frequency * (share + (1 - share) / scaling.factor)
            for frequency, share in zip(plain.frequencies, kept, strict=True)
        ),
        scaling.attention_factor,
    )


def _mixed_pairs(base: float, head_dim: int, scaling: RopeScaling) -> tuple[float, float]:
    """YaRN keeps the pairs up to the first and slows those from the last."""

    def pair(turns: float) -> float:
        """Which pair turns so often over the original length."""
        ratio = scaling.original_length / (turns * 2 * math.pi)
        return head_dim * math.log(ratio) / (2 * math.log(base))

    first = max(math.floor(pair(scaling.beta_fast)), 0)
    last = min(math.ceil(pair(scaling.beta_slow)), head_dim - 1)
    return first, last if last != first else first + 0.001
