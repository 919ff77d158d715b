"""Checkpoints and model files from one form to another, without loss and without surprises."""

from bitnet_cy.convert.conversion import EMBEDDINGS, TYPES, convert
from bitnet_cy.convert.report import Report, Row

__all__ = ["EMBEDDINGS", "TYPES", "Report", "Row", "convert"]
