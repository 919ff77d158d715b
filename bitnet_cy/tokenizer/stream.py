"""Text of tokens as they arrive, never a part of a character."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitnet_cy.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """Turns ids into text one at a time.

    All that `push` and `flush` return, joined, is `tokenizer.decode` of the same ids with the
    same options. Bytes of an unfinished character are held back until it is complete.
    """

    def __init__(
        self, tokenizer: Tokenizer, skip_special_tokens: bool = True, continuation: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_space and not continuation

    def push(self, index: int) -> str:
        """The text that one more id completes, often a word, sometimes nothing."""
        raw = self._tokenizer.piece_bytes(index, self._skip)
        if self._strip and raw:
            raw = raw[1:] if raw.startswith(b" ") else raw
            self._strip = False
        return self._decoder.decode(raw)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)
