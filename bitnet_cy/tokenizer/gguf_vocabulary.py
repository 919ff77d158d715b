"""The vocabulary in the metadata of a GGUF file (keys `tokenizer.*`, GGUF v3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.tokenizer import split_rules
from bitnet_cy.tokenizer.bpe import ByteLevelMerger, read_merges
from bitnet_cy.tokenizer.sentencepiece_model import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    SentencePieceMerger,
    build_model,
    byte_value,
)
from bitnet_cy.tokenizer.special import SpecialToken
from bitnet_cy.tokenizer.tokenizer import END_NAMES, Tokenizer, Vocabulary

if TYPE_CHECKING:
    from bitnet_cy.formats.gguf import GGUFFile

PREFIX = "tokenizer.ggml."
_MODELS = ("gpt2", "llama")


def from_gguf(gguf: GGUFFile, pre: str | None = None) -> Tokenizer:
    """The tokenizer of an open GGUF file, with or without tensors; the file may be closed after.

    pre: the splitting rule to use whatever the file says (one of `split_rules.RULES`).
    Raises FormatError for missing or inconsistent keys, UnsupportedError for kinds of vocabulary
    or splitting rules bitnet_cy does not have, OptionError for a wrong `pre`.
    """
    if pre is not None and pre not in split_rules.RULES:
        raise OptionError(f"pre is {pre!r}; supported are {', '.join(split_rules.RULES)}")
    keys = _Keys(gguf.metadata)
    model = keys.text("model")
    if model is None:
        raise FormatError(
            f"{gguf.path.name} has no tokenizer ({PREFIX}model is missing); use a file converted "
            "with its vocabulary, or give token ids"
        )
    if model not in _MODELS:
        raise UnsupportedError(
            f"{PREFIX}model is {model!r}; bitnet_cy reads {' and '.join(_MODELS)} vocabularies: "
            "convert the model with one of these"
        )
    tokens = keys.tokens()
    types = keys.types(len(tokens))
    if model == "llama":
        if pre is not None:
            raise OptionError("pre is for byte-level vocabularies; this file's is of another kind")
        return _sentencepiece(keys, tokens, types, gguf.metadata)
    return _byte_level(keys, tokens, types, gguf.metadata, pre)


class _Keys:
    """Typed access to the `tokenizer.ggml.` keys."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata

    def _get(self, name: str, kind: type, what: str) -> Any:
        value = self._metadata.get(PREFIX + name)
        if value is not None and type(value) is not kind:
            raise FormatError(f"{PREFIX}{name} is not {what}; the file is damaged")
        return value

    def text(self, name: str) -> str | None:
        value: str | None = self._get(name, str, "a string")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value: bool | None = self._get(name, bool, "true or false")
        return default if value is None else value

    def index(self, name: str, count: int) -> int | None:
        """A token id; 2**32 - 1 is how some converters write that there is none."""
        value: int | None = self._get(name, int, "an integer")
        if value is None or value in (-1, 0xFFFFFFFF):
            return None
        if not 0 <= value < count:
            raise FormatError(
                f"{PREFIX}{name} is {value}, but the vocabulary has {count} tokens; "
                "the file is damaged"
            )
        return value

    def strings(self, name: str) -> list[str]:
        value = self._get(name, list, "an array of strings")
        if value is None:
            raise FormatError(f"{PREFIX}{name} is missing; the file has no complete vocabulary")
        strings: list[str] = value
        return strings

    def tokens(self) -> list[str]:
        tokens = self.strings("tokens")
        if not tokens:
            raise FormatError(f"{PREFIX}tokens is empty; the file has no complete vocabulary")
        return tokens

    def numbers(self, name: str, count: int, kinds: str) -> np.ndarray | None:
        value: np.ndarray | None = self._get(name, np.ndarray, "an array of numbers")
        if value is None:
            return None
        if value.dtype.kind not in kinds or len(value) != count:
            raise FormatError(
                f"{PREFIX}{name} holds {len(value)} values of type {value.dtype}, but there are "
                f"{count} tokens; the file is damaged"
            )
        return value

    def types(self, count: int) -> np.ndarray | None:
        types = self.numbers("token_type", count, "iu")
        if types is not None and not ((types >= 0) & (types <= BYTE)).all():
            raise FormatError(
                f"{PREFIX}token_type holds values outside 0 to 6; the file is damaged"
            )
        return types


def _byte_level(
    keys: _Keys,
    tokens: list[str],
    types: np.ndarray | None,
    metadata: Mapping[str, Any],
    pre: str | None,
) -> Tokenizer:
    name = pre or split_rules.choose(keys.text("pre"), tokens)
    rule = split_rules.RULES[name]
    index = _index(tokens)
    merges = read_merges(keys.strings("merges"))
    vocabulary = _vocabulary(keys, tokens, types, metadata, rule.add_bos, name)
    for text, token in vocabulary.special.items():
        if token.control:
            index.pop(text, None)
    return Tokenizer(vocabulary, ByteLevelMerger(index, merges, rule))


def _sentencepiece(
    keys: _Keys, tokens: list[str], types: np.ndarray | None, metadata: Mapping[str, Any]
) -> Tokenizer:
    scores = keys.numbers("scores", len(tokens), "f")
    if types is None or scores is None:
        raise FormatError(
            f"{PREFIX}{'token_type' if types is None else 'scores'} is missing; a vocabulary of "
            "the llama kind needs it"
        )
    if not np.isfinite(scores).all():
        raise FormatError(f"{PREFIX}scores holds values that are no numbers; the file is damaged")
    _index(tokens)
    unknown = keys.index("unknown_token_id", len(tokens))
    model = build_model(
        tokens, scores.tolist(), types.tolist(), unknown, keys.flag("add_space_prefix", True)
    )
    vocabulary = _vocabulary(keys, tokens, types, metadata, True, "")
    return Tokenizer(vocabulary, SentencePieceMerger(model))


def _index(tokens: list[str]) -> dict[str, int]:
    """Entry -> id. Empty entries fill gaps in some files; any other must be there only once."""
    index = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(index) != len(tokens) and len(index) - ("" in index) != len(tokens) - tokens.count(""):
        first: dict[str, int] = {}
        for number, token in enumerate(tokens):
            if token and first.setdefault(token, number) != number:
                raise FormatError(
                    f"tokens {first[token]} and {number} are both {token[:80]!r}; "
                    "the vocabulary is damaged"
                )
    index.pop("", None)
    return index


def _vocabulary(
    keys: _Keys,
    tokens: list[str],
    types: np.ndarray | None,
    metadata: Mapping[str, Any],
    add_bos: bool,
    pre: str,
) -> Vocabulary:
    count = len(tokens)
    bos_id = keys.index("bos_token_id", count)
    eos_id = keys.index("eos_token_id", count)
    ends = [keys.index(name, count) for name in ("eot_token_id", "eom_token_id")]
    if types is None:
        types = np.full(count, NORMAL)
    kinds = {number: int(types[number]) for number in np.flatnonzero(types > NORMAL).tolist()}
    _mark_controls(kinds, tokens, [bos_id, eos_id, *ends])
    template = metadata.get("tokenizer.chat_template")
    return Vocabulary(
        tokens=tokens,
        special={
            tokens[number]: SpecialToken(number, control=kind != USER_DEFINED)
            for number, kind in kinds.items()
            if kind in (CONTROL, UNKNOWN, USER_DEFINED) and tokens[number]
        },
        silent=frozenset(
            number for number, kind in kinds.items() if kind in (CONTROL, UNKNOWN, UNUSED)
        ),
        bos_id=bos_id,
        eos_id=eos_id,
        end_ids=frozenset(number for number in ends if number is not None),
        add_bos=keys.flag("add_bos_token", add_bos),
        add_eos=keys.flag("add_eos_token", False),
        chat_template=template if isinstance(template, str) else None,
        pre=pre,
        byte_values={
            number: byte_value(tokens[number]) for number, kind in kinds.items() if kind == BYTE
        },
    )


def _mark_controls(kinds: dict[int, int], tokens: list[str], ids: list[int | None]) -> None:
    """Some converters forget to mark begin, end and end-of-turn tokens as control tokens."""
    names = set(END_NAMES)
    places = [number for number, token in enumerate(tokens) if token in names]
    places += [number for number in ids if number is not None and tokens[number][:1] == "<"]
    for number in places:
        kinds.setdefault(number, CONTROL)
