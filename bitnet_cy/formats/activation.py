"""The activation of BitNet GGUF files that name none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LLAMA3_VOCABULARY = 128256
_LARGE_ROPE_BASE = 100_000.0


def bitnet_activation(metadata: Mapping[str, Any], architecture: str) -> str:
    """Tell "relu2" or "silu" from the other keys of a file of this architecture.

    What tells the two kinds apart: the 1bitLLM models (SiLU) have a Llama-2 vocabulary, a small
    rope base and as many key-value heads as heads; BitNet-b1.58-2B-4T has none of the three.
    """
    heads = metadata.get(f"{architecture}.attention.head_count")
    is_2b_kind = (
        architecture == "bitnet-25"
        or metadata.get(f"{architecture}.vocab_size") == _LLAMA3_VOCABULARY
        or metadata.get(f"{architecture}.rope.freq_base", 0.0) >= _LARGE_ROPE_BASE
        or metadata.get(f"{architecture}.attention.head_count_kv", heads) != heads
    )
    return "relu2" if is_2b_kind else "silu"
