"""Shape: the numbers and switches of one model, from and to the two places that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitnet_cy.convert import attention, scaling
from bitnet_cy.convert.attention import Window
from bitnet_cy.convert.families import ARCHITECTURES, CLASSES, FAMILIES, Family
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import rope
from bitnet_cy.formats.activation import ACTIVATION_DTYPES, bitnet_activation
from bitnet_cy.formats.rope import RopeScaling

LARGEST = 2**24 - 1
ACTIVATIONS = ("relu2", "silu", "gelu")
POOLINGS = {1: "mean", 2: "cls", 3: "last"}
_TANH_GELU = "gelu_pytorch_tanh"
_OTHER_MODELS = ("expert_count", "attn_logit_softcapping", "final_logit_softcapping", "logit_scale")


@dataclass(frozen=True)
class Shape:
    """Sizes (counts) of one model.

    family: a key of FAMILIES. activation: "relu2", "silu" or "gelu". input_norms: every matrix
    has a norm for its input. scaling: of positions, in layers that see everything. window: None if
    every layer does. attention_scale: of
    scores, 0 for 1 / sqrt(head_dim). activation_dtype: "int8" or "float32", None if the types of
    the matrices tell. pooling: of an embedding model.
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
    input_norms: bool = False
    scaling: RopeScaling | None = None
    window: Window | None = None
    attention_scale: float = 0.0
    activation_dtype: str | None = None
    pooling: str | None = None

    @property
    def kind(self) -> Family:
        """What models of the family have in common."""
        return FAMILIES[self.family]

    def has(self, feature: str) -> bool:
        """Whether blocks have "sub_norms", "head_norms", "post_norms" or "input_norms"."""
        return self.input_norms if feature == "input_norms" else feature in self.kind.features

    def size(self, name: str) -> int:
        """The length that a tensor table names: hidden, ffn, heads, kv_heads or vocab."""
        return {
            "hidden": self.hidden_size,
            "ffn": self.ffn_size,
            "heads": self.n_heads * self.head_dim,
            "kv_heads": self.n_kv_heads * self.head_dim,
            "vocab": self.vocab_size,
            "head": self.head_dim,
        }[name]


def from_config(config: Mapping[str, Any], name: str) -> Shape:
    """The shape that a checkpoint's config.json describes.

    Raises UnsupportedError for another kind of model or a feature that is not run (biases, other
    ways to scale positions), and FormatError for missing or absurd numbers.
    """
    family = _family(config)
    _refuse_features(config)
    read = _Reader(config, "config.json: ")
    n_heads, hidden_size = read.count("num_attention_heads"), read.count("hidden_size")
    head_dim = read.count("head_dim", max(1, hidden_size // n_heads))
    n_layers = read.count("num_hidden_layers")
    is_gemma = FAMILIES[family].norm_offset > 0
    return Shape(
        family=family,
        name=name,
        vocab_size=read.count("vocab_size"),
        hidden_size=hidden_size,
        ffn_size=read.count("intermediate_size"),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=read.count("num_key_value_heads", n_heads),
        head_dim=head_dim,
        context_length=read.count("max_position_embeddings"),
        rope_base=_rope_base(config, read),
        norm_eps=read.number("rms_norm_eps"),
        activation=_configured_activation(config, FAMILIES[family]),
        scaling=scaling.from_config(config),
        window=attention.from_config(config, n_layers) if is_gemma else None,
        attention_scale=_configured_scale(read, head_dim) if is_gemma else 0.0,
    )


def from_metadata(metadata: Mapping[str, Any], name: str) -> Shape:
    """The shape that a GGUF file's metadata describes; errors as in `from_config`."""
    prefix = metadata.get("general.architecture")
    if not isinstance(prefix, str) or prefix not in ARCHITECTURES:
        raise UnsupportedError(
            f"general.architecture is {prefix!r:.60}; bitnet_cy converts "
            f"{', '.join(ARCHITECTURES)} models"
        )
    keys = {k[len(prefix) + 1 :]: metadata[k] for k in metadata if k.startswith(f"{prefix}.")}
    read = _Reader(keys, f"{prefix}.")
    n_heads, hidden_size = read.count("attention.head_count"), read.count("embedding_length")
    rotated = read.count("rope.dimension_count", max(1, hidden_size // n_heads))
    head_dim = read.count("attention.key_length", rotated)
    _refuse_keys(prefix, keys, read, head_dim)
    title = metadata.get("general.name")
    n_layers = read.count("block_count")
    dtype = keys.get("activation_dtype")
    return Shape(
        family=ARCHITECTURES[prefix],
        name=title if isinstance(title, str) else name,
        vocab_size=read.count("vocab_size", LARGEST),
        hidden_size=hidden_size,
        ffn_size=read.count("feed_forward_length"),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=read.count("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        context_length=read.count("context_length"),
        rope_base=_shortest(read.number("rope.freq_base", 10000.0)),
        norm_eps=_shortest(read.number("attention.layer_norm_rms_epsilon")),
        activation=_stored_activation(metadata, prefix, keys),
        scaling=rope.from_keys(keys, read.count("context_length")),
        window=attention.from_keys(keys, n_layers),
        attention_scale=_shortest(read.number("attention.scale", -1))
        if "attention.scale" in keys
        else 0.0,
        activation_dtype=dtype if dtype in ACTIVATION_DTYPES else None,
        pooling=POOLINGS.get(keys.get("pooling_type", 0)),
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
    if shape.family == "bitnet" or shape.activation != shape.kind.activation:
        keys["hidden_activation"] = shape.activation
    if shape.attention_scale:
        keys["attention.scale"] = shape.attention_scale
    if not shape.kind.causal:
        keys["attention.causal"] = False
    if shape.activation_dtype is not None:
        keys["activation_dtype"] = shape.activation_dtype
    if shape.pooling is not None:
        keys["pooling_type"] = {name: key for key, name in POOLINGS.items()}[shape.pooling]
    keys |= attention.to_keys(shape.window) | rope.to_keys(shape.scaling)
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def to_config(shape: Shape, tied: bool) -> dict[str, Any]:
    """The config.json of a shape, without what belongs to the tokenizer."""
    config = {
        "architectures": [shape.kind.classes[0]],
        "model_type": shape.kind.model_type,
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
    } | scaling.to_config(shape.scaling)
    if shape.kind.norm_offset:
        scalar = shape.attention_scale**-2 if shape.attention_scale else shape.head_dim
        config |= attention.to_config(shape.window, shape.n_layers, shape.rope_base, shape.scaling)
        config["hidden_activation"] = _TANH_GELU
        scalar = round(scalar, 3)  # transformers takes whole numbers alone
        config["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
        config["use_bidirectional_attention"] = not shape.kind.causal
    return config


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
        if type(value) not in (int, float) or not 0 < value < 1e30:
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
    if not isinstance(name, str) or name not in CLASSES:
        raise UnsupportedError(
            f"config.json names the architecture {name!r:.60}; bitnet_cy converts "
            f"{', '.join(CLASSES)}"
        )
    if CLASSES[name] == "gemma3" and config.get("use_bidirectional_attention"):
        return "gemma-embedding"
    return CLASSES[name]


def _refuse_features(config: Mapping[str, Any]) -> None:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UnsupportedError(f"config.json sets {key}; models with biases are not supported")
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "use_sliding_window"):
        if config.get(key):
            raise UnsupportedError(f"config.json sets {key}, which is not supported")
    inner = config.get("rope_parameters")
    for values in (config, inner if isinstance(inner, dict) else {}):
        if values.get("partial_rotary_factor") not in (None, 1):
            raise UnsupportedError(
                "config.json sets partial_rotary_factor; heads that are rotated in part are not "
                "supported"
            )


def _refuse_keys(prefix: str, keys: Mapping[str, Any], read: _Reader, head_dim: int) -> None:
    """What a file may say and a Shape cannot: dropping it would change the model."""
    for key in ("attention.value_length", "rope.dimension_count"):
        if read.count(key, head_dim) != head_dim:
            raise UnsupportedError(
                f"{prefix}.{key} is {keys[key]} where heads have {head_dim}; values of another "
                "length and heads that are rotated in part are not supported"
            )
    causal = FAMILIES[ARCHITECTURES[prefix]].causal
    if keys.get("attention.causal", causal) is not causal:
        raise UnsupportedError(
            f"{prefix}.attention.causal is {keys['attention.causal']!r:.20}, which is not "
            f"supported for {prefix} models"
        )
    for key in _OTHER_MODELS:
        if str(keys.get(key, 0)) not in ("0", "0.0", "False"):
            raise UnsupportedError(f"the file sets {prefix}.{key}, which is not supported")


def _rope_base(config: Mapping[str, Any], read: _Reader) -> float:
    """Newer configurations keep the base among the `rope_parameters`."""
    inner = config.get("rope_parameters")
    if isinstance(inner, dict) and isinstance(inner.get("full_attention"), dict):
        inner = inner["full_attention"]
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
    if ARCHITECTURES[prefix] == "bitnet":
        return bitnet_activation(metadata, prefix)
    return FAMILIES[ARCHITECTURES[prefix]].activation


def _configured_activation(config: Mapping[str, Any], family: Family) -> str:
    """GGUF's "gelu" is the approximation by tanh; that of config.json is exact, and not run."""
    is_gemma = family.activation == "gelu"
    key = "hidden_activation" if is_gemma else "hidden_act"
    value = config.get(key) or (_TANH_GELU if is_gemma else None)
    if value == _TANH_GELU:
        return "gelu"
    if value not in ("relu2", "silu"):
        raise UnsupportedError(
            f"config.json: {key} is {value!r:.60}; bitnet_cy runs relu2, silu and {_TANH_GELU}"
        )
    return str(value)


def _configured_scale(read: _Reader, head_dim: int) -> float:
    scalar = read.number("query_pre_attn_scalar", 256)
    return 0.0 if scalar == head_dim else float(scalar**-0.5)
