"""Shape: the numbers and switches of one model, from and to the two places that hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats.activation import bitnet_activation

LARGEST = 2**24 - 1
ACTIVATIONS = ("relu2", "silu")
_BITNET = ("bitnet", "bitnet-25", "bitnet-b1.58")
_CLASSES = {
    "BitNetForCausalLM": "bitnet",
    "BitnetForCausalLM": "bitnet",
    "LlamaForCausalLM": "llama",
}
_UNUSED_SCALING = ("default", "none", "linear")


@dataclass(frozen=True)
class Shape:
    """Sizes (counts) of one model.

    family: "bitnet" (sub-norms; q and k rows in half-split order) or "llama" (no sub-norms; q and
    k rows interleaved in GGUF files). activation: "relu2" or "silu".
    """

    family: str
    name: str
    vocab_size: int
    hidden_size: int
    ffn_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    context_length: int
    rope_base: float
    norm_eps: float
    activation: str

    def size(self, name: str) -> int:
        """The length that a tensor table names: hidden, ffn, heads, kv_heads or vocab."""
        return {
            "hidden": self.hidden_size,
            "ffn": self.ffn_size,
            "heads": self.n_heads * self.head_dim,
            "kv_heads": self.n_kv_heads * self.head_dim,
            "vocab": self.vocab_size,
        }[name]


def from_config(config: Mapping[str, Any], name: str) -> Shape:
    """The shape that a checkpoint's config.json describes.

    Raises UnsupportedError for another kind of model or a feature that is not run (biases, scaled
    positions), and FormatError for missing or absurd numbers.
    """
    family = _family(config)
    _refuse_features(config)
    read = _Reader(config, "config.json: ")
    n_heads, hidden_size = read.count("num_attention_heads"), read.count("hidden_size")
    return Shape(
        family=family,
        name=name,
        vocab_size=read.count("vocab_size"),
        hidden_size=hidden_size,
        ffn_size=read.count("intermediate_size"),
        n_layers=read.count("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=read.count("num_key_value_heads", n_heads),
        head_dim=read.count("head_dim", max(1, hidden_size // n_heads)),
        context_length=read.count("max_position_embeddings"),
        rope_base=_rope_base(config, read),
        norm_eps=read.number("rms_norm_eps"),
        activation=_known_activation(config.get("hidden_act"), "config.json: hidden_act"),
    )


def from_metadata(metadata: Mapping[str, Any], name: str) -> Shape:
    """The shape that a GGUF file's metadata describes; errors as in `from_config`."""
    prefix = metadata.get("general.architecture")
    if prefix != "llama" and prefix not in _BITNET:
        raise UnsupportedError(
            f"general.architecture is {prefix!r:.60}; bitnet_cy converts {', '.join(_BITNET)} and "
            "llama models"
        )
    keys = {k[len(prefix) + 1 :]: metadata[k] for k in metadata if k.startswith(f"{prefix}.")}
    read = _Reader(keys, f"{prefix}.")
    n_heads, hidden_size = read.count("attention.head_count"), read.count("embedding_length")
    rotated = read.count("rope.dimension_count", max(1, hidden_size // n_heads))
    if keys.get("rope.scaling.type", "none") != "none" and keys.get("rope.scaling.factor", 1) != 1:
        raise UnsupportedError("the file scales positions (rope.scaling), which is not supported")
    title = metadata.get("general.name")
    return Shape(
        family="llama" if prefix == "llama" else "bitnet",
        name=title if isinstance(title, str) else name,
        vocab_size=read.count("vocab_size", LARGEST),
        hidden_size=hidden_size,
        ffn_size=read.count("feed_forward_length"),
        n_layers=read.count("block_count"),
        n_heads=n_heads,
        n_kv_heads=read.count("attention.head_count_kv", n_heads),
        head_dim=read.count("attention.key_length", rotated),
        context_length=read.count("context_length"),
        rope_base=_shortest(read.number("rope.freq_base", 10000.0)),
        norm_eps=_shortest(read.number("attention.layer_norm_rms_epsilon")),
        activation=_stored_activation(metadata, prefix, keys),
    )


def to_metadata(shape: Shape, architecture: str) -> dict[str, Any]:
    """The GGUF keys of a shape; `architecture` is their prefix."""
    keys: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "context_length": shape.context_length,
        "embedding_length": shape.hidden_size,
        "block_count": shape.n_layers,
        "feed_forward_length": shape.ffn_size,
        "rope.dimension_count": shape.head_dim,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "attention.layer_norm_rms_epsilon": float(shape.norm_eps),
        "rope.freq_base": float(shape.rope_base),
    }
    if shape.head_dim * shape.n_heads != shape.hidden_size:
        keys["attention.key_length"] = keys["attention.value_length"] = shape.head_dim
    if shape.family == "bitnet" or shape.activation != "silu":
        keys["hidden_activation"] = shape.activation
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def to_config(shape: Shape, tied: bool) -> dict[str, Any]:
    """The config.json of a shape, without what belongs to the tokenizer."""
    is_bitnet = shape.family == "bitnet"
    return {
        "architectures": ["BitNetForCausalLM" if is_bitnet else "LlamaForCausalLM"],
        "model_type": "bitnet" if is_bitnet else "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": shape.activation,
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
    }


class _Reader:
    """Counts and positive numbers by key; FormatError names the key as the file has it."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values, self._where = values, where

    def count(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if type(value) is not int or not 0 < value <= LARGEST:
            raise FormatError(f"{self._where}{key} is {value!r:.60}; a count is needed")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            raise FormatError(f"{self._where}{key} is {value!r:.60}; a positive number is needed")
        return float(value)

    def _value(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        value = default if value is None else value
        if value is None:
            raise FormatError(f"{self._where}{key} is missing; it is needed to build the model")
        return value


def _family(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in _CLASSES:
        raise UnsupportedError(
            f"config.json names the architecture {name!r:.60}; bitnet_cy converts "
            f"{', '.join(_CLASSES)}"
        )
    return _CLASSES[name]


def _refuse_features(config: Mapping[str, Any]) -> None:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UnsupportedError(f"config.json sets {key}; models with biases are not supported")
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise FormatError(f"config.json: rope_scaling is {scaling!r:.60}; an object is expected")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in _UNUSED_SCALING or scaling.get("factor", 1.0) != 1.0:
        raise UnsupportedError(
            f"config.json scales positions by {kind!r:.40} (rope_scaling), which is not supported"
        )


def _rope_base(config: Mapping[str, Any], read: _Reader) -> float:
    """Newer configurations keep the base among the `rope_parameters`."""
    inner = config.get("rope_parameters")
    if isinstance(inner, dict) and inner.get("rope_theta") is not None:
        return _Reader(inner, "config.json: rope_parameters.").number("rope_theta")
    return read.number("rope_theta", 10000.0)


def _shortest(value: float) -> float:
    """The number a float32 was written for: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _known_activation(value: Any, where: str) -> str:
    if value not in ACTIVATIONS:
        raise UnsupportedError(
            f"{where} is {value!r:.60}; bitnet_cy runs {' and '.join(ACTIVATIONS)}"
        )
    return str(value)


def _stored_activation(metadata: Mapping[str, Any], prefix: str, keys: Mapping[str, Any]) -> str:
    """The file's word, or what is known of published files that say nothing."""
    if "hidden_activation" in keys:
        return _known_activation(keys["hidden_activation"], f"{prefix}.hidden_activation")
    if prefix == "llama":
        return "silu"
    return bitnet_activation(metadata, prefix)
