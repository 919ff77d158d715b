"""Text to token ids and back, from a GGUF file's or a checkpoint's own vocabulary."""

from __future__ import annotations

from bitnet_cy.tokenizer.gguf_vocabulary import from_gguf
from bitnet_cy.tokenizer.loading import load
from bitnet_cy.tokenizer.stream import StreamDecoder
from bitnet_cy.tokenizer.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "from_gguf", "load"]
