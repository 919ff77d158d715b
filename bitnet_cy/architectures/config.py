"""ModelConfig: what a model is, read from its metadata."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_cy.engine.weights import Shape


@dataclass(frozen=True)
class ModelConfig:
    """Sizes (counts), switches and names of one model.

    rope_interleaved: rotary pairs are (2i, 2i+1) instead of (i, i + head_dim / 2).
    activation: "relu2" or "silu", applied to the gate. sub_norms: whether the inputs of the
    attention output and of the down projection are normalized. tied_head: the output head is the
    token embedding.
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
            rope_base=self.rope_base,
            rope_interleaved=self.rope_interleaved,
            activation=self.activation,
        )
