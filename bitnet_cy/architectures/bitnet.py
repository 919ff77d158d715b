"""The BitNet family: BitNet-b1.58-2B-4T (ReLU²) and the 1bitLLM models (SiLU)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitnet_cy.architectures.family import Family

_LLAMA3_VOCABULARY = 128256
_LARGE_ROPE_BASE = 100_000.0


def _activation(metadata: Mapping[str, Any], architecture: str) -> str:
    """The official files name no activation. What tells the two kinds apart: the 1bitLLM models
    have a Llama-2 vocabulary, a small rope base and as many key-value heads as heads."""
    heads = metadata.get(f"{architecture}.attention.head_count")
    is_2b_kind = (
        architecture == "bitnet-25"
        or metadata.get(f"{architecture}.vocab_size") == _LLAMA3_VOCABULARY
        or metadata.get(f"{architecture}.rope.freq_base", 0.0) >= _LARGE_ROPE_BASE
        or metadata.get(f"{architecture}.attention.head_count_kv", heads) != heads
    )
    return "relu2" if is_2b_kind else "silu"


BITNET = Family(
    architectures=("bitnet", "bitnet-25", "bitnet-b1.58"),
    rope_interleaved=False,
    activation=_activation,
    sub_norms=True,
)
