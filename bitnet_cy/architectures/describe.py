"""Metadata of a GGUF file to a ModelConfig."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bitnet_cy.architectures.bitnet import BITNET
from bitnet_cy.architectures.config import ModelConfig
from bitnet_cy.architectures.family import Family
from bitnet_cy.architectures.gemma3 import GEMMA3, GEMMA_EMBEDDING
from bitnet_cy.architectures.llama import LLAMA
from bitnet_cy.architectures.qwen3 import QWEN3
from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import rope
from bitnet_cy.formats.activation import ACTIVATION_DTYPES, activation_dtype
from bitnet_cy.formats.gguf import GGUFFile

FAMILIES: dict[str, Family] = {
    name: family
    for family in (BITNET, LLAMA, QWEN3, GEMMA3, GEMMA_EMBEDDING)
    for name in family.architectures
}
ACTIVATIONS = ("relu2", "silu", "gelu")
POOLINGS = {1: "mean", 2: "cls", 3: "last"}
_LARGEST = 2**24 - 1


class _Keys:
    """Typed access to the metadata keys of one architecture."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self._metadata = metadata
        self._prefix = architecture

    def count(self, suffix: str, default: int | None = None) -> int:
        key = f"{self._prefix}.{suffix}"
        value = self._metadata.get(key, default)
        if value is None:
            raise FormatError(f"metadata key {key} is missing; the file does not describe a model")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST:
            raise FormatError(f"metadata key {key} is {value!r:.60}; a count is needed")
        return value

    def number(self, suffix: str, default: float | None = None) -> float:
        key = f"{self._prefix}.{suffix}"
        value = self._metadata.get(key, default)
        if value is None:
            raise FormatError(f"metadata key {key} is missing; the file does not describe a model")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise FormatError(f"metadata key {key} is {value!r:.60}; a number is needed")
        if not math.isfinite(value) or value <= 0:
            raise FormatError(f"metadata key {key} is {value}; a positive number is needed")
        return float(value)

    def text(self, suffix: str) -> str | None:
        value = self.value(suffix)
        return value if isinstance(value, str) else None

    def value(self, suffix: str) -> Any:
        return self._metadata.get(f"{self._prefix}.{suffix}")

    def all(self) -> dict[str, Any]:
        prefix = f"{self._prefix}."
        return {
            key.removeprefix(prefix): self._metadata[key]
            for key in self._metadata
            if key.startswith(prefix)
        }


def describe(
    file: GGUFFile, *, activation: str | None = None, activation_dtype: str | None = None
) -> ModelConfig:
    """Read what model a file holds.

    activation ("relu2", "silu" or "gelu") and activation_dtype ("int8" or "float32") override the
    file. Raises UnsupportedError for an architecture that is not run here, FormatError for missing
    or absurd metadata.
    """
    architecture = _architecture(file)
    family, keys = FAMILIES[architecture], _Keys(file.metadata, architecture)
    n_heads = keys.count("attention.head_count")
    hidden_size = keys.count("embedding_length")
    n_layers = keys.count("block_count")
    name = file.metadata.get("general.name")
    return ModelConfig(
        architecture=architecture,
        name=name if isinstance(name, str) else file.path.stem,
        vocab_size=_vocab_size(file, keys),
        hidden_size=hidden_size,
        ffn_size=keys.count("feed_forward_length"),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=keys.count("attention.head_count_kv", n_heads),
        head_dim=_head_dim(keys, hidden_size, n_heads),
        context_length=keys.count("context_length"),
        rope_base=keys.number("rope.freq_base", 10000.0),
        rope_interleaved=family.rope_interleaved,
        norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        activation=_activation(file.metadata, family, architecture, keys, activation),
        sub_norms=family.sub_norms,
        tied_head="output.weight" not in file.tensors,
        head_norms=family.head_norms,
        post_norms=family.post_norms,
        causal=family.causal and keys.value("attention.causal") is not False,
        input_norms=_has_input_norms(file, family),
        embedding_scale=math.sqrt(hidden_size) if family.scaled_embedding else 1.0,
        attention_scale=_attention_scale(keys),
        windows=_windows(family, keys, n_layers),
        local_rope_base=keys.number("rope.freq_base_swa", family.local_rope_base),
        rope_scaling=rope.from_keys(keys.all(), keys.count("context_length")),
        activation_dtype=_activation_dtype(file, keys, activation_dtype),
        pooling=POOLINGS.get(keys.value("pooling_type")),
    )


def _has_input_norms(file: GGUFFile, family: Family) -> bool:
    found = "blk.0.attn_q_norm_in.weight" in file.tensors
    if found and family.sub_norms:
        raise UnsupportedError(
            f"{file.path.name} has norms for the input of every matrix and sub-norms, too; no "
            "published model has both"
        )
    return found


def _attention_scale(keys: _Keys) -> float:
    return 0.0 if keys.value("attention.scale") is None else keys.number("attention.scale")


def _windows(family: Family, keys: _Keys, n_layers: int) -> tuple[int, ...]:
    """The window of each layer. Without one all layers see everything.

    A window of a model that is not causal is centered: half of it lies to either side.
    """
    if not family.local_layers or not keys.value("attention.sliding_window"):
        return (0,) * n_layers
    window = keys.count("attention.sliding_window")
    window = window if family.causal else window // 2 + 1
    pattern = keys.value("attention.sliding_window_pattern")
    if pattern is None or isinstance(pattern, int):
        pattern = pattern or family.local_layers
        local = [bool((layer + 1) % pattern) for layer in range(n_layers)]
    else:
        local = [bool(flag) for flag in pattern]
    if len(local) != n_layers:
        raise FormatError(
            f"the file says of {len(local)} layers whether they see a window, and has {n_layers}"
        )
    return tuple(window if flag else 0 for flag in local)


def _activation_dtype(file: GGUFFile, keys: _Keys, asked: str | None) -> str:
    """The user's word, then the file's, then the types of the matrices."""
    if asked is not None and asked not in ACTIVATION_DTYPES:
        raise OptionError(
            f"activation_dtype is {asked!r}; choose from {', '.join(ACTIVATION_DTYPES)}"
        )
    stored = keys.text("activation_dtype")
    if stored is not None and stored not in ACTIVATION_DTYPES:
        raise UnsupportedError(
            f"the file names activation_dtype {stored!r:.40}; bitnet_cy runs "
            f"{', '.join(ACTIVATION_DTYPES)}"
        )
    return asked or stored or activation_dtype(info.type_name for info in file.tensors.values())


def _architecture(file: GGUFFile) -> str:
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise FormatError(f"{file.path.name} has no general.architecture; it is not a model")
    if architecture not in FAMILIES:
        raise UnsupportedError(
            f"{file.path.name} is a {architecture!r:.60} model; bitnet_cy runs "
            f"{', '.join(FAMILIES)}: take a ternary BitNet b1.58 model, or llama.cpp for this one"
        )
    if not file.tensors:
        raise UnsupportedError(
            f"{file.path.name} holds no tensors, only a vocabulary; it can be tokenized with, "
            "but not generated from: take the full model"
        )
    return architecture


def _vocab_size(file: GGUFFile, keys: _Keys) -> int:
    """The rows of the embedding decide: some files announce another number of tokens."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise FormatError(f"{file.path.name} has no tensor token_embd.weight; it is not a model")
    return embedding.shape[0] if len(embedding.shape) == 2 else keys.count("vocab_size")


def _head_dim(keys: _Keys, hidden_size: int, n_heads: int) -> int:
    """attention.key_length, else rope.dimension_count, else hidden size by heads."""
    default = keys.count("rope.dimension_count", max(1, hidden_size // n_heads))
    head_dim = keys.count("attention.key_length", default)
    if keys.count("attention.value_length", head_dim) != head_dim:
        raise UnsupportedError("keys and values of different lengths are not supported")
    if keys.count("rope.dimension_count", head_dim) != head_dim:
        raise UnsupportedError(
            "rope over a part of the head is not supported; rope.dimension_count must be "
            f"the head's {head_dim}"
        )
    return head_dim


def _activation(
    metadata: Mapping[str, Any], family: Family, architecture: str, keys: _Keys, asked: str | None
) -> str:
    """The user's word, then the file's, then the family's rule."""
    if asked is not None:
        if asked not in ACTIVATIONS:
            raise OptionError(f"activation is {asked!r}; choose from {', '.join(ACTIVATIONS)}")
        return asked
    stored = keys.text("hidden_activation")
    if stored is not None and stored not in ACTIVATIONS:
        raise UnsupportedError(
            f"the file names activation {stored!r:.40}; bitnet_cy runs {', '.join(ACTIVATIONS)}"
        )
    return stored or family.activation(metadata, architecture)
