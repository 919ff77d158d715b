"""Text to token ids and back."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bitnet_cy.errors import FormatError, OptionError
from bitnet_cy.tokenizer.special import SpecialSplitter, SpecialToken

# Tokens that end a turn or a document in the model families we know; the file's own EOS and
# end-of-turn ids come first, but several files name only one of the two.
END_NAMES = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
)

# Looking for special tokens takes time that grows with their length.
MAX_SPECIAL = 256


class Merger(Protocol):
    """The part of a tokenizer that knows one kind of vocabulary.

    prefixes_space: text begins with a space the caller did not write.
    """

    prefixes_space: bool

    def encode(self, text: str, is_first: bool) -> list[int]:
        """Ids of text without special tokens; `is_first` if nothing stands before it."""
        ...

    def token_bytes(self, token: str) -> bytes:
        """What an ordinary vocabulary entry stands for."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer file says, whatever its format.

    `tokens` are the entries as stored; `special` maps those found whole to their ids; `silent`
    are ids without text (control, unknown and unused tokens).
    """

    tokens: Sequence[str]
    special: Mapping[str, SpecialToken]
    silent: frozenset[int]
    bos_id: int | None = None
    eos_id: int | None = None
    end_ids: frozenset[int] = frozenset()
    add_bos: bool = False
    add_eos: bool = False
    chat_template: str | None = None
    pre: str = ""
    byte_values: Mapping[int, int] = field(default_factory=dict)


class Tokenizer:
    """A vocabulary ready for use. Immutable; may be shared between threads.

    vocab_size: number of ids. bos_id, eos_id: begin and end of text, None if there is none.
    stop_ids: ids that end a generation. add_bos, add_eos: what `encode` adds by default.
    chat_template: Jinja source, None if the file has none. special_tokens: control tokens by
    text. pre: the name of the splitting rule, empty for vocabularies that have none.
    """

    def __init__(self, vocabulary: Vocabulary, merger: Merger) -> None:
        self._vocabulary, self._merger = vocabulary, merger
        for text, token in vocabulary.special.items():
            if not text:
                raise FormatError(f"special token {token.id} is empty; the vocabulary is damaged")
            if len(text) > MAX_SPECIAL:
                raise FormatError(
                    f"special token {token.id} has {len(text)} characters; at most {MAX_SPECIAL} "
                    "are supported: the vocabulary is damaged"
                )
        self._splitter = SpecialSplitter(vocabulary.special)
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id, self.eos_id = vocabulary.bos_id, vocabulary.eos_id
        self.add_bos = vocabulary.add_bos and self.bos_id is not None
        self.add_eos = vocabulary.add_eos and self.eos_id is not None
        self.chat_template, self.pre = vocabulary.chat_template, vocabulary.pre
        self.special_tokens = {
            text: token.id for text, token in vocabulary.special.items() if token.control
        }
        named = {self.special_tokens[name] for name in END_NAMES if name in self.special_tokens}
        ends = vocabulary.end_ids | ({self.eos_id} if self.eos_id is not None else set())
        self.stop_ids = frozenset(named | {index for index in ends if 0 <= index < self.vocab_size})

    def encode(
        self, text: str, add_special_tokens: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Token ids of `text`.

        add_special_tokens: put BOS in front (and EOS behind) where the vocabulary asks for it.
        parse_special: turn the text of control tokens such as "<|eot_id|>" into their ids; leave
        it off for text you do not control. Raises OptionError for anything but a `str` that
        UTF-8 can write.
        """
        ids = self.encode_pieces(self.split(text, parse_special))
        if add_special_tokens and self.add_bos and self.bos_id is not None:
            ids.insert(0, self.bos_id)
        if add_special_tokens and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def split(self, text: str, parse_special: bool = False) -> list[str | int]:
        """The text cut at special tokens: strings and ids, for `encode_pieces`."""
        return self._splitter.split(_checked_text(text), parse_special)

    def encode_pieces(self, pieces: Iterable[str | int]) -> list[int]:
        """Token ids of pieces in which only the ids are special tokens; nothing is added."""
        ids: list[int] = []
        for index, piece in enumerate(pieces):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._merger.encode(_checked_text(piece), index == 0)
        return ids

    def decode(
        self,
        ids: Iterable[int],
        skip_special_tokens: bool = True,
        continuation: bool = False,
    ) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD.

        skip_special_tokens: leave out control tokens; otherwise their names appear.
        continuation: the ids go on from other text, so keep the space that vocabularies of the
        SentencePiece kind put before the first word.
        """
        parts = [self.piece_bytes(index, skip_special_tokens) for index in _checked_ids(ids)]
        raw = b"".join(parts)
        if self.strips_space and not continuation and raw.startswith(b" "):
            raw = raw[1:]
        return raw.decode("utf-8", "replace")

    @property
    def strips_space(self) -> bool:
        """Whether `decode` takes away the space that `encode` put before the text."""
        return self._merger.prefixes_space

    def piece_bytes(self, index: int, skip_special_tokens: bool = True) -> bytes:
        """What `decode` makes of one id: its bytes, or the name of a control token."""
        if skip_special_tokens or self._checked_id(index) not in self._vocabulary.silent:
            return self.token_bytes(index)
        return self._vocabulary.tokens[index].encode("utf-8", "replace")

    def token_bytes(self, index: int) -> bytes:
        """The bytes of one token: perhaps part of a character, nothing for control tokens."""
        index = self._checked_id(index)
        vocabulary = self._vocabulary
        if index in vocabulary.silent:
            return b""
        if index in vocabulary.byte_values:
            return bytes([vocabulary.byte_values[index]])
        token = vocabulary.tokens[index]
        special = vocabulary.special.get(token)
        if special is not None and special.id == index:
            return token.encode("utf-8", "replace")
        return self._merger.token_bytes(token)

    def token_text(self, index: int) -> str:
        """The vocabulary entry of one id as the file writes it, such as "Ġthe" or "▁the"."""
        return self._vocabulary.tokens[self._checked_id(index)]

    def _checked_id(self, index: int) -> int:
        try:
            number = operator.index(index)
        except TypeError:
            raise OptionError(
                f"a token id is an int, not {type(index).__name__}; pass ids as encode gives them"
            ) from None
        if not 0 <= number < self.vocab_size:
            raise OptionError(
                f"token id {number} is not in the vocabulary, which has ids from 0 to "
                f"{self.vocab_size - 1}"
            )
        return number


def _checked_text(text: str) -> str:
    if not isinstance(text, str):
        raise OptionError(f"text must be a str, not {type(text).__name__}; decode bytes first")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise OptionError(
            f"text has a lone surrogate U+{ord(text[error.start]):04X} at position {error.start}, "
            "which UTF-8 cannot write; replace it, for example with U+FFFD"
        ) from None
    return text


def _checked_ids(ids: Iterable[int]) -> Iterable[int]:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise OptionError(f"ids must be a list of ints, not {type(ids).__name__}")
    return ids
