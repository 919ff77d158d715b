"""Byte-level byte-pair encoding, as in GPT-2, Llama 3, Falcon and Qwen vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitnet_cy.errors import FormatError, OptionError
from bitnet_cy.tokenizer import byte_level
from bitnet_cy.tokenizer.split_rules import SplitRule


class ByteLevelMerger:
    """Merges within the words of a splitting rule.

    vocabulary: entry -> id for the tokens that merges may make. merges: "left right", the most
    wanted first. Raises FormatError if a merge names an entry that is not in the vocabulary.
    """

    prefixes_space = False

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[str], rule: SplitRule) -> None:
        from tokenizers import Tokenizer, models

        pairs = [tuple(merge.split(" ")) for merge in merges]
        try:
            model = models.BPE(vocabulary, pairs, ignore_merges=rule.ignore_merges)
        except Exception as error:
            raise _explain(vocabulary, merges, error) from None
        self._tokenizer = Tokenizer(model)
        normalizer = rule.normalizer()
        if normalizer is not None:
            self._tokenizer.normalizer = normalizer
        self._tokenizer.pre_tokenizer = rule.build()
        self._missing = {
            byte for byte in range(256) if byte_level.to_text(bytes([byte])) not in vocabulary
        }

    def encode(self, text: str, is_first: bool) -> list[int]:
        if self._missing:
            self._refuse_missing(text)
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def token_bytes(self, token: str) -> bytes:
        return byte_level.to_bytes(token)

    def _refuse_missing(self, text: str) -> None:
        """The library would leave out bytes the vocabulary lacks without a word."""
        lost = self._missing.intersection(text.encode("utf-8"))
        if lost:
            raise OptionError(
                f"the text holds byte 0x{min(lost):02X}, for which this vocabulary has no token; "
                "remove it from the text"
            )


def _explain(
    vocabulary: Mapping[str, int], merges: Sequence[str], error: Exception
) -> FormatError:
    """The first merge that cannot be, in words."""
    for index, merge in enumerate(merges):
        parts = merge.split(" ")
        if len(parts) != 2:
            return FormatError(
                f"merge {index} is {merge[:80]!r}; two entries with one space between are expected"
            )
        for entry in (*parts, "".join(parts)):
            if entry not in vocabulary:
                return FormatError(
                    f"merge {index} ({merge[:80]!r}) needs the token {entry[:80]!r}, which the "
                    "vocabulary does not have; the file is damaged"
                )
    return FormatError(f"the vocabulary is damaged: {error}")
