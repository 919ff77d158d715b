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
    file names one. sub_norms: attn_sub_norm and ffn_sub_norm are present.
    """

    architectures: tuple[str, ...]
    rope_interleaved: bool
    activation: Callable[[Mapping[str, Any], str], str]
    sub_norms: bool
