"""The vocabulary of a model as GGUF metadata (keys `tokenizer.*`, GGUF v3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.chat.templates import choose
from bitnet_cy.convert import vocabulary_files
from bitnet_cy.convert.vocabulary_files import UNUSED, Entries
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats.gguf import GGUFFile
from bitnet_cy.tokenizer import Tokenizer, from_gguf, load

PREFIX = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
_PLACEHOLDER = "BITNETAssistant"
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>")
_MESSAGE_END = "<|eom_id|>"

# Texts that splitting rules treat differently: numbers, contractions, spaces, scripts, emoji.
PROBES = (
    "Hello, World! It's 1234567 o'clock; they'LL say 'we've 3.14159'.",
    "  two  spaces\n\n\tand a tab\r\n   before CR LF \n x",
    "naïve café — Straße, ΑΒΓ, Привет мир, 你好世界, こんにちは, 한국어, नमस्ते, مرحبا",
    "e\u0301 \u00e9 \u212b \ufb01 \U0001f9d1\u200d\U0001f680\U0001f1e9\U0001f1ea \u00a0\u2003x",
    "def f(x_1, y=2):\n    return x_1**2 + y  # `a` $b^c|d~ <e> http://x.y/z?q=1&r=%20",
    "a" * 40 + "0" * 17 + "!?" * 9 + " " * 11 + "\u2581under_score",
)


@dataclass(frozen=True)
class Vocabulary:
    """GGUF keys, the tokenizer they come from (None if not understood), and what was repaired."""

    keys: Mapping[str, Any]
    tokenizer: Tokenizer | None
    notes: tuple[str, ...] = ()


def from_folder(folder: Path, config: Mapping[str, Any], size: int, pre: str | None) -> Vocabulary:
    """The vocabulary of a checkpoint folder, filled up to `size` tokens with unused ones."""
    tokenizer = load(folder)
    entries = vocabulary_files.read(folder, tokenizer, pre)
    missing = size - len(entries.tokens)
    if missing < 0:
        raise FormatError(
            f"{folder} has a vocabulary of {len(entries.tokens)} tokens and embeddings for {size}; "
            "its files do not belong together"
        )
    tokens = [token or f"<|empty_{index}|>" for index, token in enumerate(entries.tokens)]
    keys = _named(
        model=entries.model,
        pre=entries.pre,
        tokens=[*tokens, *(f"<|unused_{index}|>" for index in range(missing))],
        scores=_scores(entries, missing),
        token_type=np.array([*entries.types, *[UNUSED] * missing], np.int32),
        merges=entries.merges,
        bos_token_id=_id(tokenizer.bos_id, config.get("bos_token_id"), size),
        eos_token_id=_id(tokenizer.eos_id, config.get("eos_token_id"), size),
        unknown_token_id=entries.unknown_id,
        padding_token_id=_id(None, config.get("pad_token_id"), size),
        add_bos_token=tokenizer.add_bos,
        add_eos_token=tokenizer.add_eos or None,
        add_space_prefix=entries.add_space_prefix,
    )
    keys |= _turn_ends(tokenizer, keys.get(f"{PREFIX}eos_token_id"))
    if tokenizer.chat_template is not None:
        keys[_TEMPLATE] = tokenizer.chat_template
    return Vocabulary(keys, tokenizer)


def from_file(file: GGUFFile, family: str, pre: str | None) -> Vocabulary | None:
    """The keys to add or change in a file's vocabulary; None if it has none.

    Published files lack the splitting rule and the end of a turn, and one has a wrong template.
    A vocabulary of a kind that is not understood is left as it is.
    """
    if f"{PREFIX}model" not in file.metadata:
        return None
    try:
        tokenizer = from_gguf(file, pre)
    except UnsupportedError as error:
        return Vocabulary({}, None, (f"the vocabulary is copied without a check: {error}",))
    keys: dict[str, Any] = {}
    notes: list[str] = []
    if tokenizer.pre and file.metadata.get(f"{PREFIX}pre") != tokenizer.pre:
        keys[f"{PREFIX}pre"] = tokenizer.pre
        notes.append(f"the splitting rule is named: {PREFIX}pre = {tokenizer.pre}")
    for key, index in _turn_ends(tokenizer, file.metadata.get(f"{PREFIX}eos_token_id")).items():
        if key not in file.metadata:
            keys[key] = index
            notes.append(f"the end of a turn is named: {key} = {index}")
    if tokenizer.chat_template and _PLACEHOLDER in tokenizer.chat_template:
        try:
            keys[_TEMPLATE] = choose(tokenizer, family)
            notes.append("the converter's placeholder template is replaced by the model's own")
        except UnsupportedError:
            pass  # a base model: the placeholder does no harm
    return Vocabulary(keys, tokenizer, tuple(notes))


def compare(source: Tokenizer, written: Tokenizer) -> None:
    """FormatError unless both make the same of `PROBES` and end texts alike."""
    for text in PROBES:
        expected, found = source.encode(text), written.encode(text)
        if expected != found:
            first = next(
                (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
                min(len(expected), len(found)),
            )
            raise FormatError(
                f"the written vocabulary splits {text[:30]!r} otherwise than the source, from "
                f"token {first} on; name the splitting rule (pre, --pre) if the source's is wrong"
            )
    # The GGUF reader also knows ends by name; it must not know fewer than the source.
    if not source.stop_ids <= written.stop_ids:
        lost = sorted(source.stop_ids - written.stop_ids)
        raise FormatError(f"tokens {lost} end a text in the source, but not in the written file")


def _named(**values: Any) -> dict[str, Any]:
    return {PREFIX + name: value for name, value in values.items() if value is not None}


def _scores(entries: Entries, missing: int) -> np.ndarray | None:
    if entries.scores is None:
        return None
    return np.array([*entries.scores, *[0.0] * missing], np.float32)


def _id(known: int | None, configured: Any, size: int) -> int | None:
    """The tokenizer's word, else config.json's, where an end may be a list."""
    if known is not None:
        return known
    value = configured[0] if isinstance(configured, list) and configured else configured
    return value if type(value) is int and 0 <= value < size else None


def _turn_ends(tokenizer: Tokenizer, eos_id: int | None) -> dict[str, int]:
    """`eot_token_id` and `eom_token_id`, for ends of text that are not EOS."""
    names = tokenizer.special_tokens
    others = sorted(tokenizer.stop_ids - {eos_id})
    eom = names.get(_MESSAGE_END)
    turns = [names[name] for name in _TURN_ENDS if names.get(name) in others]
    rest = [index for index in others if index not in (*turns, eom)]
    eot = next(iter([*turns, *rest]), None)
    if eom not in others:
        eom = next((index for index in rest if index != eot), None)
    return _named(eot_token_id=eot, eom_token_id=eom)
