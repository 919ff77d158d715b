"""The model families bitnet_cy runs: what a file holds, and its weights for the engine."""

from bitnet_cy.architectures.arrangement import CHOICES, Arrangement
from bitnet_cy.architectures.build import build
from bitnet_cy.architectures.config import ModelConfig
from bitnet_cy.architectures.describe import FAMILIES, describe

__all__ = ["CHOICES", "FAMILIES", "Arrangement", "ModelConfig", "build", "describe"]
