"""Stand-ins for an engine session and a tokenizer, and a small model file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import make_model
import numpy as np

# Separate embedding and head, because a small tied one repeats the last token for ever.
DEFAULTS = {"pre": "llama-bpe", "tied": False, "spectrum": "gaussian"}


class FakeTokenizer:
    """One id per byte; 256 is BOS, 257 and 258 end a text."""

    vocab_size = 259
    stop_ids = frozenset({257, 258})
    strips_space = False

    def token_bytes(self, index: int) -> bytes:
        return bytes([index]) if index < 256 else b""

    def piece_bytes(self, index: int, skip_special_tokens: bool = True) -> bytes:
        return self.token_bytes(index)


class FakeSession:
    """Says the tokens of a script, whatever it is given, and remembers that."""

    screened = False

    def __init__(self, script: Sequence[int] | str, context_length: int = 100) -> None:
        self._script = list(script.encode()) if isinstance(script, str) else list(script)
        self._said = 0
        self.given: list[int] = []
        self.calls: list[tuple[int, str]] = []
        self.context_length = context_length

    @property
    def position(self) -> int:
        return len(self.given)

    def truncate(self, position: int) -> None:
        del self.given[position:]

    def expect(self, tokens: int) -> None:
        """Nothing to prepare."""

    def forward(self, ids: Any, logits: str = "last") -> Any:
        self.given += list(ids)
        self.calls.append((len(ids), logits))
        if logits == "none":
            return None
        row = np.zeros(FakeTokenizer.vocab_size, dtype=np.float32)
        row[self._script[min(self._said, len(self._script) - 1)]] = 9.0
        self._said += 1
        return row


def tiny_model(path: Path, **changes: Any) -> Path:
    """A file of the tiny preset with random weights, which names its splitting rule."""
    return make_model.make("tiny", path, force=True, **{**DEFAULTS, **changes})
