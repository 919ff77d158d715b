"""Family: how the models of one kind differ from each other, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """One kind of decoder.

    architectures: values of general.architecture. rope_interleaved: the row order of q and k in
    GGUF files. activation: from metadata and its key prefix, used where neither the user nor the
    file names one. sub_norms: attn_sub_norm and ffn_sub_norm are present. head_norms: attn_q_norm
    and attn_k_norm are, for every head. post_norms: what attention and feed-forward add to the
    stream is normalized. scaled_embedding: embeddings are multiplied by the root of their length.
    causal: no token sees a later one. local_layers: of so many layers all but the last see a
    window only, if the file names its size; 0 if none ever does. local_rope_base: theirs.
    """

    architectures: tuple[str, ...]
    rope_interleaved: bool
    activation: Callable[[Mapping[str, Any], str], str]
    sub_norms: bool
    head_norms: bool = False
    post_norms: bool = False
    scaled_embedding: bool = False
    causal: bool = True
    local_layers: int = 0
    local_rope_base: float = 10000.0
