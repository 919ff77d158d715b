"""The Qwen3 family in ternary form: BitNet-embedding-0.6B, Ternary-Bonsai."""

from __future__ import annotations

from bitnet_cy.architectures.family import Family

QWEN3 = Family(
    architectures=("qwen3",),
    rope_interleaved=False,
    activation=lambda metadata, architecture: "silu",
    sub_norms=False,
    head_norms=True,
)
