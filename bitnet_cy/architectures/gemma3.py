"""The Gemma 3 family in ternary form: BitNet-embedding-270M; in GGUF files norms hold 1 + w."""

from __future__ import annotations

from dataclasses import replace

from bitnet_cy.architectures.family import Family

GEMMA3 = Family(
    architectures=("gemma3",),
    rope_interleaved=False,
    activation=lambda metadata, architecture: "gelu",
    sub_norms=False,
    head_norms=True,
    post_norms=True,
    scaled_embedding=True,
    local_layers=6,
)
#: The same blocks, where every token sees those on both sides.
GEMMA_EMBEDDING = replace(GEMMA3, architectures=("gemma-embedding",), causal=False)
