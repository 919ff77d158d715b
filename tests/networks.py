"""Small random networks, once for the engine and once for the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference

from bitnet_cy.engine import Layer, Matrix, Network, Rope, Shape, Ternary
from bitnet_cy.formats import floats, ternary

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
WITH_INPUT_NORMS = ("q", "k", "v", "gate", "up")

#: What the families look like; sizes are those of `make`.
QWEN3: dict[str, Any] = {"activation": "silu", "sub_norms": False, "head_norms": True}
GEMMA3: dict[str, Any] = {
    "activation": "gelu", "sub_norms": False, "head_norms": True, "post_norms": True,
    "embedding_scale": float(np.sqrt(192)), "attention_scale": 0.2, "layers": 3,
    "windows": (7, 0, 40), "bases": (10000.0, 1e6, 10000.0),
}  # fmt: skip


def make(
    *,
    hidden: int = 192,
    ffn: int = 320,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    layers: int = 2,
    vocab: int = 300,
    activation: str = "relu2",
    interleaved: bool = False,
    sub_norms: bool = True,
    matrix_type: str = "F16",
    seed: int = 0,
    head: np.ndarray | None = None,
    output_norm: np.ndarray | None = None,
    head_norms: bool = False,
    post_norms: bool = False,
    input_norms: bool = False,
    windows: tuple[int, ...] = (),
    bases: tuple[float, ...] = (),
    group: int = 0,
    rope: Rope | None = None,
    **switches: Any,
) -> tuple[Network, reference.Model]:
    """head: float32 [vocab, hidden]; without, it is the embedding. group: columns a scale.

    rope: of blocks without a base. switches: embedding_scale, attention_scale, causal, weight_only.
    """
    rng = np.random.default_rng(seed)
    widths = {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}
    shapes: dict[str, tuple[int, int]] = {name: (rows, hidden) for name, rows in widths.items()}
    shapes |= {"o": (hidden, heads * head_dim), "down": (hidden, ffn)}
    shapes |= {"gate": (ffn, hidden), "up": (ffn, hidden)}
    norms = {"attn_norm": hidden, "ffn_norm": hidden}
    norms |= {"attn_sub_norm": heads * head_dim, "ffn_sub_norm": ffn}
    norms |= {"q_norm": head_dim, "k_norm": head_dim} if head_norms else {}
    norms |= {"attn_post_norm": hidden, "ffn_post_norm": hidden} if post_norms else {}
    norms |= {f"{name}_norm_in": hidden for name in WITH_INPUT_NORMS if input_norms}
    blocks = [_block(rng, shapes, norms, sub_norms, group) for _ in range(layers)]
    for block, window, base in zip(blocks, windows, bases, strict=False):
        block.window, block.base = window, base
    raw = floats.encode(matrix_type, rng.standard_normal((vocab, hidden)).astype(np.float32))
    values = floats.decode(matrix_type, raw, (vocab, hidden))
    matrix = head_matrix = Matrix(raw, matrix_type, vocab, hidden)
    head_values = values
    if head is not None:
        raw = floats.encode(matrix_type, head)
        head_matrix = Matrix(raw, matrix_type, vocab, hidden)
        head_values = floats.decode(matrix_type, raw, (vocab, hidden))
    norm = _norm_weights(rng, hidden)
    output_norm = norm if output_norm is None else output_norm
    shape = Shape(
        layers,
        hidden,
        ffn,
        heads,
        kv_heads,
        head_dim,
        vocab,
        1e-5,
        rope or Rope.of_base(10000.0, head_dim),
        interleaved,
        activation,
        **switches,
    )
    network = Network(
        shape, [_layer(block, head_dim) for block in blocks], matrix, head_matrix, output_norm
    )
    model = reference.Model(
        heads, kv_heads, head_dim, activation, interleaved, 1e-5, 10000.0, values, head_values,
        output_norm, blocks, **switches,
        scaled=(np.array(rope.frequencies), rope.factor) if rope else None,
    )  # fmt: skip
    return network, model


def _norm_weights(rng: np.random.Generator, size: int) -> np.ndarray:
    return (1 + 0.2 * rng.standard_normal(size)).astype(np.float32)


def _block(
    rng: np.random.Generator,
    shapes: dict[str, tuple[int, int]],
    norms: dict[str, int],
    sub_norms: bool,
    group: int = 0,
) -> reference.Block:
    linears: dict[str, tuple[np.ndarray, Any]] = {
        name: (rng.integers(-1, 2, shape).astype(np.int8), float(np.sqrt(1.5 / shape[1])))
        for name, shape in shapes.items()
    }
    for name, (trits, scale) in linears.items() if group else ():
        spread = np.exp(rng.normal(0, 0.3, (len(trits), trits.shape[1] // group)))
        linears[name] = trits, (scale * spread).astype(np.float32)
    weights: dict[str, Any] = {name: _norm_weights(rng, size) for name, size in norms.items()}
    if not sub_norms:
        weights |= {"attn_sub_norm": None, "ffn_sub_norm": None}
    return reference.Block(linears, weights)


def _layer(block: reference.Block, head_dim: int) -> Layer:
    packed = {
        name: Ternary(ternary.pack_rows(trits), *trits.shape, scale)
        for name, (trits, scale) in block.linears.items()
    }
    norms = {key: value for key, value in block.norms.items() if not key.endswith("_norm_in")}
    inputs = [block.norms.get(f"{name}_norm_in") for name in WITH_INPUT_NORMS]
    return Layer(
        **packed,
        **norms,
        input_norms=None if inputs[0] is None else tuple(inputs),
        window=block.window,
        rope=block.base and Rope.of_base(block.base, head_dim),
    )
