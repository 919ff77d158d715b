"""ModelConfig: what a model is, read from its metadata."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_cy.architectures.rope import scaled
from bitnet_cy.engine.weights import Shape
from bitnet_cy.formats.rope import RopeScaling


@dataclass(frozen=True)
class ModelConfig:
    """Sizes (counts), switches and names of one model.

    rope_interleaved: rotary pairs are (2i, 2i+1) instead of (i, i + head_dim / 2).
    activation: "relu2", "silu" or "gelu", applied to the gate. sub_norms: whether the inputs of
    the attention output and of the down projection are normalized. tied_head: the output head is
    the token embedding. head_norms, post_norms, causal: as in Family. input_norms: every linear
    layer normalizes its own input. embedding_scale, attention_scale: factors of embeddings and of
    scores (0: 1 / sqrt(head_dim)). windows: keys that a query of each layer sees, 0 for all.
    rope_base, rope_scaling: of layers that see all keys. local_rope_base: of the others, which are
    not scaled. activation_dtype: what linear layers multiply weights with, "int8" (BitNet b1.58)
    or "float32" (models whose weights alone are ternary). pooling: how an embedding model makes
    one vector of its tokens', "mean", "cls" or "last"; None for others.
    """

    architecture: str
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
    rope_interleaved: bool
    norm_eps: float
    activation: str
    sub_norms: bool
    tied_head: bool
    head_norms: bool = False
    post_norms: bool = False
    causal: bool = True
    input_norms: bool = False
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    windows: tuple[int, ...] = ()
    local_rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    activation_dtype: str = "int8"
    pooling: str | None = None

    def shape(self) -> Shape:
        """The part the engine needs."""
        return Shape(
            n_layers=self.n_layers,
            hidden_size=self.hidden_size,
            ffn_size=self.ffn_size,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            norm_eps=self.norm_eps,
            rope=scaled(self.rope_base, self.head_dim, self.rope_scaling),
            rope_interleaved=self.rope_interleaved,
            activation=self.activation,
            embedding_scale=self.embedding_scale,
            attention_scale=self.attention_scale,
            causal=self.causal,
            weight_only=self.activation_dtype == "float32",
        )
