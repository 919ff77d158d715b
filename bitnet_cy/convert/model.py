"""A model between two files: what it is, its tensors, its vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnet_cy.convert.shape import Shape
from bitnet_cy.convert.weights import Weight
from bitnet_cy.tokenizer import Tokenizer


@dataclass(frozen=True)
class Model:
    """An open source, or what was written, opened again.

    path: the file or folder. tied: whether the head is the embedding. weights: in the order of
    GGUF files. keys: GGUF metadata that goes along, above all the vocabulary's. tokenizer: what
    the vocabulary does, None if there is none. notes: what was repaired on the way. forget: gives
    back the memory of pages that were read. close: lets go of the files.
    """

    path: Path
    shape: Shape
    tied: bool
    weights: tuple[Weight, ...]
    keys: dict[str, Any]
    tokenizer: Tokenizer | None
    forget: Callable[[], None]
    close: Callable[[], None]
    notes: list[str] = field(default_factory=list)
