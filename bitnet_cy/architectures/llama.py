"""The Llama family in ternary form: Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E."""

from __future__ import annotations

from bitnet_cy.architectures.family import Family

LLAMA = Family(
    architectures=("llama",),
    rope_interleaved=True,
    activation=lambda metadata, architecture: "silu",
    sub_norms=False,
)
