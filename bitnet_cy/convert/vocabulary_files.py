"""The entries of tokenizer.json and tokenizer.model in the terms of GGUF."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats.json_file import read_object
from bitnet_cy.tokenizer import Tokenizer, split_rules
from bitnet_cy.tokenizer.sentencepiece_model import SentencePieceMerger

if TYPE_CHECKING:
    import tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_RULE_PROBES = (
    "It's 1234567 o'clock; they'LL say 'we've 3.14159 $a^b|c~ <d>'",
    "  two  spaces\n\n\tand a tab\r\n   before CR LF \n x!!!\n\ny ?\r\n",
    "naïve — ΑΒΓ, Привет, 你好世界, नमस्ते ١٢٣٤ ½²\u00a0\u2003x",
)


@dataclass(frozen=True)
class Entries:
    """tokens: by id, with empty ones as gaps. types: as GGUF numbers them. The other fields are
    None where the kind of vocabulary has no such thing."""

    model: str
    tokens: Sequence[str]
    types: Sequence[int]
    pre: str | None = None
    merges: Sequence[str] | None = None
    scores: Sequence[float] | None = None
    unknown_id: int | None = None
    add_space_prefix: bool | None = None


def read(folder: Path, tokenizer: Tokenizer, pre: str | None) -> Entries:
    """The vocabulary of a folder that `tokenizer` was loaded from.

    A tokenizer.model is preferred for vocabularies of its kind, because it holds scores.
    Raises UnsupportedError for a splitting rule that GGUF has no name for.
    """
    path = folder / "tokenizer.json"
    state = read_object(path) if path.is_file() else None
    if state is not None and "ByteLevel" in str(state.get("pre_tokenizer")):
        return _byte_level(state, tokenizer, pre)
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece((folder / "tokenizer.model").read_bytes(), tokenizer)
    if state is not None:
        return _ranked(state, tokenizer)
    raise FormatError(f"{folder} has no tokenizer.json and no tokenizer.model; download them")


def _byte_level(state: dict[str, Any], tokenizer: Tokenizer, pre: str | None) -> Entries:
    tokens = _tokens(tokenizer)
    return Entries(
        model="gpt2",
        tokens=tokens,
        types=_types(state, tokens),
        pre=pre or _rule(state),
        merges=_merges(state),
    )


def _without_words(state: dict[str, Any]) -> tokenizers.Tokenizer:
    """What splits and normalizes text, without the vocabulary, which takes seconds to load."""
    import tokenizers

    model = {"type": "BPE", "vocab": {}, "merges": []}
    kept = {"normalizer": state.get("normalizer"), "pre_tokenizer": state.get("pre_tokenizer")}
    return tokenizers.Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "model": model} | kept)
    )


def _rule(state: dict[str, Any]) -> str:
    """The name of the rule that splits text as the file's own pre-tokenizer does.

    Rules that agree on `ignore_merges` come first; to others it makes no difference unless the
    vocabulary has words that its merges cannot make, which comparing ids would tell.
    """
    library = _without_words(state)
    expected = [library.pre_tokenizer.pre_tokenize_str(text) for text in _RULE_PROBES]
    ignores = state["model"].get("ignore_merges", False)
    rules = sorted(split_rules.RULES.items(), key=lambda item: item[1].ignore_merges != ignores)
    for name, rule in rules:
        splitter = rule.build()
        if type(library.normalizer) is type(rule.normalizer()) and expected == [
            splitter.pre_tokenize_str(text) for text in _RULE_PROBES
        ]:
            return name
    raise UnsupportedError(
        "tokenizer.json splits text by a rule that GGUF files have no name for; known are "
        f"{', '.join(split_rules.RULES)}: name the nearest (pre, --pre)"
    )


def _merges(state: dict[str, Any]) -> list[str]:
    """Merges are written as pairs, or as strings with a space between."""
    return [
        merge if isinstance(merge, str) else " ".join(merge)
        for merge in state["model"].get("merges", [])
    ]


def _tokens(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.token_text(index) for index in range(tokenizer.vocab_size)]


def _types(state: dict[str, Any], tokens: Sequence[str]) -> list[int]:
    types = [NORMAL if token else UNUSED for token in tokens]
    for entry in state.get("added_tokens", []):
        types[entry["id"]] = CONTROL if entry.get("special") else USER_DEFINED
    return types


def _ranked(state: dict[str, Any], tokenizer: Tokenizer) -> Entries:
    """A vocabulary of SentencePiece's kind that has merges in place of scores.

    With the negative rank of the merge that makes a token as its score, the best-scored pair
    is the one the merges would take.
    """
    tokens = _tokens(tokenizer)
    types = _types(state, tokens)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(_merges(state), 1):
        ranks.setdefault(merge.replace(" ", ""), rank)
    unknown = state["model"].get("unk_token")
    index = tokens.index(unknown) if unknown in tokens else None
    if index is not None:
        types[index] = UNKNOWN
    for number, token in enumerate(tokens):
        if types[number] == NORMAL and len(token) == 6 and token.startswith("<0x"):
            types[number] = BYTE
    return Entries(
        model="llama",
        tokens=tokens,
        types=types,
        scores=[-float(ranks.get(token, 0)) for token in tokens],
        unknown_id=index,
        add_space_prefix=tokenizer.strips_space,
    )


def _sentencepiece(data: bytes, tokenizer: Tokenizer) -> Entries:
    """A tokenizer.model, followed by the tokens that the checkpoint adds to it."""
    import sentencepiece

    merger = SentencePieceMerger(data)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    tokens, types = merger.pieces(), merger.kinds()
    scores = [float(processor.get_score(index)) for index in range(len(tokens))]
    for index in range(len(tokens), tokenizer.vocab_size):
        token = tokenizer.token_text(index)
        is_control = token in tokenizer.special_tokens
        tokens.append(token)
        types.append(CONTROL if is_control else USER_DEFINED if token else UNUSED)
        scores.append(0.0)
    return Entries(
        model="llama",
        tokens=tokens,
        types=types,
        scores=scores,
        unknown_id=processor.unk_id(),
        add_space_prefix=merger.prefixes_space,
    )
