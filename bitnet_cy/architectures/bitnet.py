"""The BitNet family: BitNet-b1.58-2B-4T (ReLU²) and the 1bitLLM models (SiLU)."""

from __future__ import annotations

from bitnet_cy.architectures.family import Family
from bitnet_cy.formats.activation import bitnet_activation

BITNET = Family(
    architectures=("bitnet", "bitnet-25", "bitnet-b1.58"),
    rope_interleaved=False,
    activation=bitnet_activation,
    sub_norms=True,
)
