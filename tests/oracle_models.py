"""Tiny random models to hand to other implementations: weights, and their GGUF file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import reference
from model_vocabulary import Vocabulary, synthetic_bytes
from presets import Shape, metadata

from bitnet_cy.formats import floats, gguf, ternary
from bitnet_cy.formats.gguf import TensorSource

SPECIALS = {0: "<|begin_of_text|>", 1: "<|end_of_text|>"}
#: Tokens that never win, for their rows of the head are zero: control tokens, and bytes that are
#: no character, which llama.cpp's server does not report until a character is complete.
SILENT = [*SPECIALS, *range(len(SPECIALS) + 128, len(SPECIALS) + 256)]
ZERO_SHARE = 0.42
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True, repr=False)
class Linear:
    """Trits int8 [rows, cols], q and k in half-split rope order; a weight is trit * scale.

    masters: the float32 weights that training had, if they are what a checkpoint holds.
    """

    trits: np.ndarray
    scale: np.float32
    masters: np.ndarray | None = None

    @classmethod
    def from_masters(cls, masters: np.ndarray) -> Linear:
        """Absmean quantization (Ma et al., 2024, "The Era of 1-bit LLMs")."""
        inverse = np.float32(1) / max(np.abs(masters).mean(), np.float32(1e-5))
        trits = np.rint(masters * inverse).clip(-1, 1).astype(np.int8)
        return cls(trits, np.float32(1) / inverse, masters)


@dataclass(frozen=True, repr=False)
class Weights:
    """A model by the names of its GGUF tensors, without `.weight`: `blk.0.attn_q` and so on.

    `vectors` hold float32 norm gains [size], `matrices` float32 [vocab, hidden]: `token_embd`
    and, unless the head is tied, `output`.
    """

    shape: Shape
    activation: str
    linears: dict[str, Linear]
    vectors: dict[str, np.ndarray]
    matrices: dict[str, np.ndarray]


def shape(architecture: str, **changes: Any) -> Shape:
    """A shape of about a hundred thousand weights."""
    sizes: dict[str, Any] = {
        "layers": 2, "hidden": 128, "ffn": 256, "heads": 4, "kv_heads": 2, "head_dim": 32,
        "vocab_size": 320, "context": 128, "rope_base": 10000.0, "bos": 0, "eos": 1,
        "specials": SPECIALS, "pre": "llama-bpe", "add_bos": True,
    }  # fmt: skip
    return Shape("oracle", architecture, **sizes | changes)


def random_weights(
    model: Shape, activation: str, seed: int, *, masters: bool = False, half_scales: bool = False
) -> Weights:
    """Weights with which every block moves the hidden state as much as the others.

    Embedding rows are short, or a tied head would repeat the last token for ever. half_scales:
    scales are float16 numbers, as formats that store such need.
    """
    rng = np.random.default_rng(seed)

    def linear(rows: int, cols: int) -> Linear:
        spread = np.float32(np.exp(rng.normal(0, 0.2)) / np.sqrt((1 - ZERO_SHARE) * cols))
        if masters:
            return Linear.from_masters(rng.normal(0, spread, (rows, cols)).astype(np.float32))
        chances = [(1 - ZERO_SHARE) / 2, ZERO_SHARE, (1 - ZERO_SHARE) / 2]
        trits = rng.choice(np.array([-1, 0, 1], np.int8), (rows, cols), p=chances)
        return Linear(trits, np.float32(np.float16(spread)) if half_scales else spread)

    def gains(size: int) -> np.ndarray:
        return np.exp(rng.normal(0, 0.3, size)).astype(np.float32)

    def matrix() -> np.ndarray:
        found = rng.normal(0, 0.05, (model.vocab_size, model.hidden)).astype(np.float32)
        found[SILENT] = 0
        return found

    sizes, norms = linear_sizes(model), norm_sizes(model)
    blocks = [f"blk.{index}." for index in range(model.layers)]
    return Weights(
        model,
        activation,
        {block + name: linear(*size) for block in blocks for name, size in sizes.items()},
        {block + name: gains(size) for block in blocks for name, size in norms.items()}
        | {"output_norm": gains(model.hidden)},
        {name: matrix() for name in ("token_embd", "output")[: 1 if model.tied else 2]},
    )


def linear_sizes(model: Shape) -> dict[str, tuple[int, int]]:
    """Rows and columns of the matrices of a block."""
    inner, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    rows = (inner, keys, keys, model.hidden, model.ffn, model.ffn, model.hidden)
    cols = (model.hidden,) * 3 + (inner,) + (model.hidden,) * 2 + (model.ffn,)
    return dict(zip(LINEARS, zip(rows, cols, strict=True), strict=True))


def norm_sizes(model: Shape) -> dict[str, int]:
    """The norms of a block."""
    inputs = {"attn_norm": model.hidden, "ffn_norm": model.hidden}
    inner = {"attn_sub_norm": model.heads * model.head_dim, "ffn_sub_norm": model.ffn}
    return inputs | inner if model.sub_norms else inputs


def random_ids(model: Shape, count: int, *seed: int) -> list[int]:
    """BOS and random tokens that are not silent."""
    usable = np.setdiff1d(np.arange(model.vocab_size), SILENT)
    return [0, *np.random.default_rng(seed).choice(usable, count - 1).tolist()]


def write_gguf(
    path: Path, weights: Weights, type_name: str = "I2_S", vocabulary: Vocabulary | None = None
) -> Path:
    """The file as a converter would write it; matrices in float32."""
    model = weights.shape
    if vocabulary is None:
        vocabulary = synthetic_bytes(model.vocab_size, SPECIALS)
    keys = metadata(model, vocabulary, type_name)
    keys[f"{model.architecture}.attention.key_length"] = model.head_dim
    keys[f"{model.architecture}.attention.value_length"] = model.head_dim
    gguf.write(path, keys, list(_sources(weights, type_name)), force=True)
    return path


def _sources(weights: Weights, type_name: str) -> Iterator[TensorSource]:
    for name, values in (weights.matrices | weights.vectors).items():
        yield TensorSource(f"{name}.weight", values.shape, "F32", floats.encode("F32", values))
    for name, linear in weights.linears.items():
        trits = stored_rows(weights.shape, name, linear.trits)
        raw = ternary.encode(type_name, trits, linear.scale)
        yield TensorSource(f"{name}.weight", trits.shape, type_name, raw)


def write_dense_gguf(path: Path, vocabulary: Mapping[str, Any]) -> Path:
    """The smallest Llama model, all zeros, with the given `tokenizer.ggml` keys."""
    size, width = len(vocabulary["tokenizer.ggml.tokens"]), 32
    keys = {
        "general.architecture": "llama", "llama.vocab_size": size, "llama.context_length": 128,
        "llama.embedding_length": width, "llama.block_count": 1, "llama.feed_forward_length": width,
        "llama.attention.head_count": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width,
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (size, width), "output_norm": (width,)}
    shapes |= {f"blk.0.{name}": (width, width) for name in LINEARS}
    shapes |= {f"blk.0.{name}": (width,) for name in ("attn_norm", "ffn_norm")}
    sources = [
        TensorSource(f"{name}.weight", axes, "F32", np.zeros(axes, np.float32).view(np.uint8))
        for name, axes in shapes.items()
    ]
    gguf.write(path, keys | dict(vocabulary), sources)
    return path


def stored_rows(model: Shape, name: str, rows: np.ndarray) -> np.ndarray:
    """Architecture `llama` stores q and k with the two halves of each head interleaved."""
    heads = {"attn_q": model.heads, "attn_k": model.kv_heads}.get(name.rpartition(".")[2])
    if model.architecture != "llama" or heads is None:
        return rows
    halves = rows.reshape(heads, 2, model.head_dim // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def read_gguf(path: Path) -> Weights:
    """The weights of a file of the BitNet family, whose rows need no reordering."""
    with gguf.read(path) as file:
        keys, tensors = file.metadata, file.tensors
        prefix = keys["general.architecture"]
        model = shape(
            prefix,
            layers=keys[f"{prefix}.block_count"],
            hidden=keys[f"{prefix}.embedding_length"],
            ffn=keys[f"{prefix}.feed_forward_length"],
            heads=keys[f"{prefix}.attention.head_count"],
            kv_heads=keys[f"{prefix}.attention.head_count_kv"],
            head_dim=keys[f"{prefix}.rope.dimension_count"],
            vocab_size=keys[f"{prefix}.vocab_size"],
            context=keys[f"{prefix}.context_length"],
            rope_base=keys[f"{prefix}.rope.freq_base"],
            norm_eps=keys[f"{prefix}.attention.layer_norm_rms_epsilon"],
            tied="output.weight" not in tensors,
        )
        found = Weights(model, keys[f"{prefix}.hidden_activation"], {}, {}, {})
        for name, info in tensors.items():
            key = name.removesuffix(".weight")
            if info.type_name in ternary.NAMES:
                values = ternary.decode(info.type_name, file.raw(name), *info.shape)
                found.linears[key] = Linear(values.trits, np.float32(values.scale))
            else:
                (found.matrices if len(info.shape) == 2 else found.vectors)[key] = file.array(name)
        return found


def numpy_model(weights: Weights) -> reference.Model:
    """The same weights for the NumPy oracle."""
    model = weights.shape
    names = ("q", "k", "v", "o", "gate", "up", "down")
    blocks = []
    for index in range(model.layers):
        found = [weights.linears[f"blk.{index}.{part}"] for part in LINEARS]
        linears = {
            name: (linear.trits, float(linear.scale))
            for name, linear in zip(names, found, strict=True)
        }
        norms = {
            name: weights.vectors.get(f"blk.{index}.{name}")
            for name in ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")
        }
        blocks.append(reference.Block(linears, norms))
    embedding = weights.matrices["token_embd"]
    return reference.Model(
        model.heads, model.kv_heads, model.head_dim, weights.activation, False, model.norm_eps,
        model.rope_base, embedding, weights.matrices.get("output", embedding),
        weights.vectors["output_norm"], blocks,
    )  # fmt: skip
