"""tiktoken rank files, read with the rules of Llama 3 (the only ternary family that has them)."""

from __future__ import annotations

import base64
import binascii
import re

from bitnet_cy.errors import FormatError
from bitnet_cy.tokenizer import byte_level, split_rules
from bitnet_cy.tokenizer.bpe import ByteLevelMerger, Pair
from bitnet_cy.tokenizer.settings import Settings
from bitnet_cy.tokenizer.special import SpecialToken
from bitnet_cy.tokenizer.tokenizer import Tokenizer, Vocabulary

_RULE = "llama-bpe"
_FIRST_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
_RESERVED = 256
# A token of n bytes has n - 1 ways to be put together, each a pair of strings.
_LONGEST = 512
_MOST_MERGES = 1 << 21


def looks_like(head: bytes) -> bool:
    """Whether a file that starts so is a rank file: base64, a space, a number."""
    return _FIRST_LINE.match(head) is not None


def read(data: bytes, settings: Settings) -> Tokenizer:
    """A rank file: one token a line, as base64 and rank. Ranks are ids and merge priorities."""
    index = {byte_level.to_text(raw): rank for rank, raw in enumerate(tokens_of(data))}
    special = {
        text: SpecialToken(len(index) + number) for number, text in enumerate(special_tokens())
    }
    merger = ByteLevelMerger(index, merges_of(index), split_rules.RULES[_RULE])
    vocabulary = Vocabulary(
        tokens=[*index, *special],
        special=special,
        silent=frozenset(token.id for token in special.values()),
        bos_id=special["<|begin_of_text|>"].id,
        eos_id=special["<|end_of_text|>"].id,
        end_ids=settings.end_ids,
        add_bos=settings.add_bos is not False,
        add_eos=settings.add_eos is True,
        chat_template=settings.chat_template,
        pre=_RULE,
    )
    return Tokenizer(vocabulary, merger)


def tokens_of(data: bytes) -> list[bytes]:
    """The tokens in order of rank; ranks must count up from 0."""
    tokens: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            encoded, rank = line.split(b" ")
            token = base64.b64decode(encoded, validate=True)
            if int(rank) != len(tokens) or not 0 < len(token) <= _LONGEST or token in tokens:
                raise ValueError
        except (ValueError, binascii.Error):
            raise FormatError(
                f"line {number} is {line[:60]!r}; a new token in base64, of at most {_LONGEST} "
                f"bytes, and the rank {len(tokens)} are expected: the file is damaged"
            ) from None
        tokens[token] = len(tokens)
    return list(tokens)


def merges_of(index: dict[str, int]) -> list[Pair]:
    """Every way to put a token together from two others, in order of rank.

    tiktoken merges the pair whose result has the lowest rank, so all pairs that make the same
    token count alike; the order among them is that of the checkpoints' `tokenizer.json`.
    """
    merges: list[Pair] = []
    for token in index:
        pairs = [
            (token[:cut], token[cut:])
            for cut in range(1, len(token))
            if token[:cut] in index and token[cut:] in index
        ]
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: (index[pair[0]], index[pair[1]]))
        merges += pairs
        if len(merges) > _MOST_MERGES:
            raise FormatError(
                f"its tokens can be put together in more than {_MOST_MERGES} ways; the file is "
                "damaged"
            )
    return merges


def special_tokens() -> list[str]:
    """Llama 3's 256 special tokens, which follow the ranks."""
    reserved = [f"<|reserved_special_token_{number}|>" for number in range(_RESERVED - 5)]
    return [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        *reserved[:4],
        "<|start_header_id|>",
        "<|end_header_id|>",
        reserved[4],
        "<|eot_id|>",
        *reserved[5:],
    ]
