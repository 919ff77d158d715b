"""What GGUF files of ternary models leave unsaid: the activation, and whether it is quantized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ACTIVATION_DTYPES = ("int8", "float32")
_LLAMA3_VOCABULARY = 128256
_LARGE_ROPE_BASE = 100_000.0
# Types with a scale for each group of weights, made for models whose weights alone are ternary.
_WEIGHT_ONLY = {"Q2_0", "Q2_0_128", "PQ2_0", "PTQ1_0"}


def activation_dtype(type_names: Iterable[str]) -> str:
    """Tell "int8" (BitNet b1.58) or "float32" from the types of a file's tensors."""
    return "float32" if _WEIGHT_ONLY & set(type_names) else "int8"


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
