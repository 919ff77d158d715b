"""Vocabularies for generated models: from a file, or synthetic ones of any size."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.errors import FormatError, OptionError
from bitnet_cy.formats import gguf
from bitnet_cy.tokenizer import tiktoken_file
from bitnet_cy.tokenizer.byte_level import to_text

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

LLAMA3_SPECIALS = dict(enumerate(tiktoken_file.special_tokens(), 128000))
FALCON3_SPECIALS = {
    8: "<|system|>", 9: "<|user|>", 10: "<|assistant|>", 11: "<|endoftext|>", 2023: "<|pad|>",
}  # fmt: skip


@dataclass
class Vocabulary:
    """Tokens by id, with what their kind of tokenizer needs."""

    model: str  # "gpt2": byte-level BPE; "llama": SentencePiece
    tokens: list[str]
    types: list[int]
    scores: np.ndarray
    merges: list[str] | None = None

    def metadata(self, pre: str | None) -> dict[str, Any]:
        """The `tokenizer.ggml` keys; `pre` names the split rule and may be missing."""
        keys: dict[str, Any] = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.scores": self.scores.astype(np.float32),
            "tokenizer.ggml.token_type": np.array(self.types, np.int32),
            "tokenizer.ggml.merges": self.merges,
        }
        return {key: value for key, value in keys.items() if value is not None}

    def fill(self, size: int) -> Vocabulary:
        """The vocabulary with unused tokens up to `size`."""
        missing = size - len(self.tokens)
        if missing < 0:
            raise OptionError(
                f"the vocabulary has {len(self.tokens)} tokens, the model {size}; choose a smaller "
                "vocabulary or another preset"
            )
        names = {0: "<pad>", 1: "</line>"} if self.model == "llama" else {}
        self.tokens += [names.get(i, f"<|unused_{i}|>") for i in range(missing)]
        self.types += [CONTROL if i in names else UNUSED for i in range(missing)]
        self.scores = np.concatenate([self.scores, np.zeros(missing, np.float32)])
        return self


def from_file(path: Path, specials: dict[int, str] | None) -> Vocabulary:
    """The vocabulary of a GGUF file, or of a tiktoken rank file with `specials` added."""
    if path.suffix == ".gguf":
        return _from_gguf(path)
    if specials is None:
        raise OptionError(f"{path.name}: this model has a SentencePiece vocabulary; give a .gguf")
    try:
        ranks = [to_text(token) for token in tiktoken_file.tokens_of(path.read_bytes())]
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from None
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None
    tokens = dict(enumerate(ranks))
    merges = tiktoken_file.merges_of({token: rank for rank, token in tokens.items()})
    tokens |= {index: name for index, name in specials.items() if index >= len(ranks)}
    return _byte_level(tokens, [" ".join(pair) for pair in merges], set(specials))


def synthetic_bytes(size: int, specials: dict[int, str]) -> Vocabulary:
    """A byte-level vocabulary of `size`: the bytes, then strings of letters, and `specials`."""
    tokens, merges = dict(specials), []
    pieces = itertools.chain(
        ((to_text(bytes([byte])), None) for byte in range(256)),
        _letter_strings(to_text(b" ")),
    )
    for index in range(size):
        if index not in tokens:
            tokens[index], merge = next(pieces)
            if merge:
                merges.append(merge)
    return _byte_level(tokens, merges, set(specials))


def synthetic_sentencepiece(size: int) -> Vocabulary:
    """A SentencePiece vocabulary of `size` in the order of Llama's."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    letters = ["▁", *string.ascii_lowercase]
    words = itertools.chain(letters, (token for token, _ in _letter_strings("▁")))
    count = max(size - len(tokens), 0)
    scores = np.concatenate([np.zeros(len(tokens)), -np.arange(count)])
    tokens += itertools.islice(words, count)
    return Vocabulary("llama", tokens, types + [NORMAL] * count, scores)


def _letter_strings(space: str) -> Iterator[tuple[str, str]]:
    """Ever longer strings of letters, some after a space, each with the merge that makes it."""
    shorter = [space, *string.ascii_lowercase]
    while True:
        longer = []
        for left, right in itertools.product(shorter, string.ascii_lowercase):
            longer.append(left + right)
            yield left + right, f"{left} {right}"
        shorter = longer


def _byte_level(tokens: dict[int, str], merges: list[str], controls: set[int]) -> Vocabulary:
    size = max(tokens) + 1
    names = [tokens.get(index, f"<|unused_{index}|>") for index in range(size)]
    types = [
        CONTROL if index in controls else NORMAL if index in tokens else UNUSED
        for index in range(size)
    ]
    return Vocabulary("gpt2", names, types, np.zeros(size, np.float32), merges)


def _from_gguf(path: Path) -> Vocabulary:
    with gguf.read(path) as file:
        keys = file.metadata
        try:
            tokens = list(keys["tokenizer.ggml.tokens"])
            model = keys["tokenizer.ggml.model"]
        except KeyError as error:
            raise FormatError(f"{path.name} holds no vocabulary: key {error} is missing") from None
        types = keys.get("tokenizer.ggml.token_type", np.ones(len(tokens), np.int32)).tolist()
        scores = keys.get("tokenizer.ggml.scores", np.zeros(len(tokens), np.float32))
        merges = keys.get("tokenizer.ggml.merges")
        return Vocabulary(model, tokens, types, scores, merges and list(merges))
