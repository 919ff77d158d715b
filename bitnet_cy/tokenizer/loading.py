"""Opening a vocabulary, whatever file holds it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bitnet_cy.errors import BitNetError, FormatError, OptionError
from bitnet_cy.tokenizer import huggingface, sentencepiece_file, tiktoken_file
from bitnet_cy.tokenizer.gguf_vocabulary import from_gguf
from bitnet_cy.tokenizer.settings import Settings
from bitnet_cy.tokenizer.tokenizer import Tokenizer

KINDS = "a GGUF file, tokenizer.json, tokenizer.model, a tiktoken rank file or a folder with one"
_LARGEST = 1 << 28
_FILES = ("tokenizer.json", "tokenizer.model")


def load(path: str | os.PathLike[str], pre: str | None = None) -> Tokenizer:
    """The tokenizer of a file or a Hugging Face folder, recognised by content.

    Reads GGUF files with or without tensors, `tokenizer.json`, SentencePiece's `tokenizer.model`,
    tiktoken rank files (with Llama 3's rules and special tokens), and folders that hold one of
    these; beside it `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json`
    count too. pre: splitting rule for a GGUF file whose own is missing or wrong.
    Raises FormatError for damaged files, UnsupportedError for other kinds, OptionError for a
    wrong `path` or `pre`.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"path must name a file, not be {type(path).__name__}; give {KINDS}")
    path = Path(path)
    try:
        if path.is_dir():
            return _open(_inside(path), Settings.beside(path), pre)
        return _open(path, Settings(), pre)
    except FileNotFoundError:
        raise FormatError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, BitNetError):
            raise
        raise FormatError(f"cannot read {path}: {error}") from None


def _inside(folder: Path) -> Path:
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted([*folder.glob("*.tiktoken"), *folder.glob("*.gguf")])
    if len(others) == 1:
        return others[0]
    raise FormatError(
        f"{folder} holds {'several vocabularies' if others else 'no vocabulary'}; give {KINDS}"
    )


def _open(path: Path, settings: Settings, pre: str | None) -> Tokenizer:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"GGUF"):
        from bitnet_cy.formats import gguf

        with gguf.read(path) as opened:
            return from_gguf(opened, pre)
    if pre is not None:
        raise OptionError(f"pre is for GGUF files; {path.name} carries its own splitting rule")
    size = path.stat().st_size
    if not 0 < size <= _LARGEST:
        raise FormatError(f"{path} has {size} bytes and is no vocabulary; give {KINDS}")
    read = _reader(head)
    try:
        return read(path.read_bytes(), settings)
    except BitNetError as error:
        raise type(error)(f"{path.name}: {error}") from None


def _reader(head: bytes) -> Callable[[bytes, Settings], Tokenizer]:
    if tiktoken_file.looks_like(head):
        return tiktoken_file.read
    if huggingface.looks_like(head):
        return huggingface.read
    return sentencepiece_file.read
