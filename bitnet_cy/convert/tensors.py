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
    offset: what GGUF files add to the values of checkpoints.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    is_ternary: bool = False
    heads: int | None = None
    offset: float = 0.0


@dataclass(frozen=True)
class _Part:
    """A row of the table below; `sizes` are what `Shape.size` knows, rows first."""

    name: str
    aliases: tuple[str, ...]
    sizes: tuple[str, ...]
    feature: str = ""
    offset: bool = True


def _input_norm(name: str, matrix: str, size: str) -> _Part:
    """The norm of a matrix's own input, as transformers and BitNet's embedding models name it."""
    aliases = (f"{matrix}.rms_norm", f"{matrix}.norm")
    return _Part(f"{name}_norm_in", aliases, (size,), "input_norms", offset=False)


_LAYER = (
    _Part("attn_norm", ("input_layernorm",), ("hidden",)),
    _Part("attn_q", ("self_attn.q_proj",), ("heads", "hidden")),
    _Part("attn_k", ("self_attn.k_proj",), ("kv_heads", "hidden")),
    _Part("attn_v", ("self_attn.v_proj",), ("kv_heads", "hidden")),
    _Part(
        "attn_sub_norm",
        ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
        ("heads",),
        "sub_norms",
    ),
    _Part("attn_q_norm", ("self_attn.q_norm",), ("head",), "head_norms"),
    _Part("attn_k_norm", ("self_attn.k_norm",), ("head",), "head_norms"),
    _Part("attn_output", ("self_attn.o_proj",), ("hidden", "heads")),
    _Part("post_attention_norm", ("post_attention_layernorm",), ("hidden",), "post_norms"),
    _Part("ffn_norm", ("pre_feedforward_layernorm", "post_attention_layernorm"), ("hidden",)),
    _Part("ffn_gate", ("mlp.gate_proj",), ("ffn", "hidden")),
    _Part("ffn_up", ("mlp.up_proj",), ("ffn", "hidden")),
    _Part("ffn_sub_norm", ("mlp.ffn_sub_norm", "mlp.ffn_layernorm"), ("ffn",), "sub_norms"),
    _Part("ffn_down", ("mlp.down_proj",), ("hidden", "ffn")),
    _Part("post_ffw_norm", ("post_feedforward_layernorm",), ("hidden",), "post_norms"),
    _input_norm("attn_q", "self_attn.q_proj", "hidden"),
    _input_norm("attn_k", "self_attn.k_proj", "hidden"),
    _input_norm("attn_v", "self_attn.v_proj", "hidden"),
    _input_norm("attn_output", "self_attn.o_proj", "heads"),
    _input_norm("ffn_gate", "mlp.gate_proj", "hidden"),
    _input_norm("ffn_up", "mlp.up_proj", "hidden"),
    _input_norm("ffn_down", "mlp.down_proj", "ffn"),
)


def slots(shape: Shape, tied: bool) -> Iterator[Slot]:
    """Every tensor of a model; `tied` if its head is the embedding."""
    matrix = (shape.size("vocab"), shape.size("hidden"))
    yield Slot(EMBEDDING, ("embed_tokens.weight",), matrix)
    for layer in range(shape.n_layers):
        for part in _LAYER:
            if not part.feature or shape.has(part.feature):
                yield _slot(part, layer, shape)
    offset = shape.kind.norm_offset
    yield Slot("output_norm.weight", ("norm.weight",), (shape.size("hidden"),), offset=offset)
    if not tied:
        yield Slot(HEAD, ("lm_head.weight",), matrix)


def _slot(part: _Part, layer: int, shape: Shape) -> Slot:
    heads = None
    if shape.kind.interleaved and part.name in ("attn_q", "attn_k"):
        heads = shape.n_heads if part.name == "attn_q" else shape.n_kv_heads
    is_ternary = len(part.sizes) == 2
    aliases = part.aliases
    if part.name == "ffn_norm":  # what comes before the feed-forward, by its name or its place
        aliases = aliases[:1] if shape.has("post_norms") else aliases[1:]
    return Slot(
        f"blk.{layer}.{part.name}.weight",
        tuple(f"layers.{layer}.{alias}.weight" for alias in aliases),
        tuple(map(shape.size, part.sizes)),
        is_ternary=is_ternary,
        heads=heads,
        offset=shape.kind.norm_offset if part.offset and not is_ternary else 0.0,
    )
