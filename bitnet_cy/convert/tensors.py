"""Which tensors a model has, and what each is called in a GGUF file and in a checkpoint.

The order is that of the published GGUF files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bitnet_cy.convert.shape import Shape

EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Slot:
    """A tensor that a model of a given shape has.

    name: in a GGUF file. aliases: names in checkpoints, the usual one first, without the prefix
    "model." that most have. heads: of q and k in Llama files, whose rows are reordered by head.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    is_ternary: bool = False
    heads: int | None = None


@dataclass(frozen=True)
class _Part:
    """A row of the table below; `sizes` are what `Shape.size` knows, rows first."""

    name: str
    aliases: tuple[str, ...]
    sizes: tuple[str, ...]
    only_bitnet: bool = False


_LAYER = (
    _Part("attn_norm", ("input_layernorm",), ("hidden",)),
    _Part("attn_q", ("self_attn.q_proj",), ("heads", "hidden")),
    _Part("attn_k", ("self_attn.k_proj",), ("kv_heads", "hidden")),
    _Part("attn_v", ("self_attn.v_proj",), ("kv_heads", "hidden")),
    _Part(
        "attn_sub_norm",
        ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
        ("heads",),
        only_bitnet=True,
    ),
    _Part("attn_output", ("self_attn.o_proj",), ("hidden", "heads")),
    _Part("ffn_norm", ("post_attention_layernorm",), ("hidden",)),
    _Part("ffn_gate", ("mlp.gate_proj",), ("ffn", "hidden")),
    _Part("ffn_up", ("mlp.up_proj",), ("ffn", "hidden")),
    _Part("ffn_sub_norm", ("mlp.ffn_sub_norm", "mlp.ffn_layernorm"), ("ffn",), only_bitnet=True),
    _Part("ffn_down", ("mlp.down_proj",), ("hidden", "ffn")),
)


def slots(shape: Shape, tied: bool) -> Iterator[Slot]:
    """Every tensor of a model; `tied` if its head is the embedding."""
    matrix = (shape.size("vocab"), shape.size("hidden"))
    yield Slot(EMBEDDING, ("embed_tokens.weight",), matrix)
    for layer in range(shape.n_layers):
        for part in _LAYER:
            if shape.family == "bitnet" or not part.only_bitnet:
                yield _slot(part, layer, shape)
    yield Slot("output_norm.weight", ("norm.weight",), (shape.size("hidden"),))
    if not tied:
        yield Slot(HEAD, ("lm_head.weight",), matrix)


def _slot(part: _Part, layer: int, shape: Shape) -> Slot:
    heads = None
    if shape.family == "llama" and part.name in ("attn_q", "attn_k"):
        heads = shape.n_heads if part.name == "attn_q" else shape.n_kv_heads
    return Slot(
        f"blk.{layer}.{part.name}.weight",
        tuple(f"layers.{layer}.{alias}.weight" for alias in part.aliases),
        tuple(map(shape.size, part.sizes)),
        is_ternary=len(part.sizes) == 2,
        heads=heads,
    )
