"""Byte-level byte-pair encoding, as in GPT-2, Llama 3, Falcon and Qwen vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from bitnet_cy.errors import FormatError, OptionError
from bitnet_cy.tokenizer import byte_level
from bitnet_cy.tokenizer.split_rules import SplitRule

Pair = tuple[str, str]


class ByteLevelMerger:
    """Merges within the words of a splitting rule.

    vocabulary: entry -> id for the tokens that merges may make. merges: pairs of entries, the
    most wanted first. Raises FormatError if a merge needs an entry the vocabulary does not have.
    """

    prefixes_space = False

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[Pair], rule: SplitRule) -> None:
        from tokenizers import Tokenizer, models

        try:
            # The constructor is several times faster than a JSON description of the same model.
            model = models.BPE(vocabulary, merges, ignore_merges=rule.ignore_merges)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library's panics are no `Exception`
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


def read_merges(lines: Sequence[str]) -> list[Pair]:
    """Merges written as "left right"."""
    return cast("list[Pair]", [tuple(line.split(" ")) for line in lines])


def _explain(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, ...]], error: BaseException
) -> FormatError:
    """The first merge that cannot be, in words."""
    for index, pair in enumerate(merges):
        if len(pair) != 2:
            return FormatError(
                f"merge {index} is {' '.join(pair)[:80]!r}; two entries with one space between "
                "are expected: the file is damaged"
            )
        for entry in (*pair, "".join(pair)):
            if entry not in vocabulary:
                return FormatError(
                    f"merge {index} needs the token {entry[:80]!r}, which the vocabulary does not "
                    "have; the file is damaged"
                )
    return FormatError(f"the vocabulary is damaged: {error}")
