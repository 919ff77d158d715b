"""Small vocabularies trained on the spot, and where the published ones are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_cy.formats import gguf
from bitnet_cy.tokenizer import Tokenizer, from_gguf

GOLDEN = json.loads((Path(__file__).parent / "data" / "tokenizer_golden.json").read_text("utf-8"))
TEXTS: list[str] = GOLDEN["texts"]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|user|>"]
PROSE = (
    "Once upon a time there was a king who had three daughters, and the youngest was the fairest. "
    "She couldn't sleep; it's said that they'll never know why. In 1812 there were 120 of them! "
    "Und wenn sie nicht gestorben sind, so leben sie noch heute.\n\n    def king(x):\n\treturn x\n"
)


def shared(name: str) -> Path:
    """A published vocabulary, or skip."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside the repository")
    return path


def corpus() -> Iterator[str]:
    for _ in range(4):
        yield from [PROSE, *TEXTS]


@cache
def trained_bpe(rule: str) -> Any:
    """A byte-level BPE of the `tokenizers` library with 600 merges and SPECIAL at the end."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from bitnet_cy.tokenizer.split_rules import RULES

    library = Library(models.BPE(ignore_merges=RULES[rule].ignore_merges))
    library.pre_tokenizer = RULES[rule].build()
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=856, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(corpus(), trainer)
    library.add_special_tokens(SPECIAL)
    return library


def bpe_metadata(rule: str = "llama-bpe", **changes: Any) -> dict[str, Any]:
    """GGUF metadata of `trained_bpe`; `changes` override keys, None removes one."""
    state = json.loads(trained_bpe(rule).to_str())["model"]
    tokens = [*sorted(state["vocab"], key=state["vocab"].get), *SPECIAL]
    count = len(tokens)
    metadata = {
        "model": "gpt2",
        "pre": rule,
        "tokens": tokens,
        "token_type": np.array([1] * (count - len(SPECIAL)) + [3] * len(SPECIAL), np.int32),
        "merges": [" ".join(pair) for pair in state["merges"]],
        "bos_token_id": count - 4,
        "eos_token_id": count - 3,
    }
    return _keys(metadata | changes)


@cache
def trained_sentencepiece() -> bytes:
    """A SentencePiece BPE model with byte fallback, as Llama 2's are configured."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROSE.splitlines() * 3),
        model_writer=out,
        vocab_size=360,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<sep>"],
        minloglevel=2,
    )
    return out.getvalue()


def sentencepiece_metadata(**changes: Any) -> dict[str, Any]:
    """GGUF metadata of `trained_sentencepiece`, as converters write it."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=trained_sentencepiece())
    ids = range(len(model))
    tokens = [model.id_to_piece(index) for index in ids]
    types = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
        for i in ids
    ]
    types[tokens.index("<sep>")] = 4
    metadata = {
        "model": "llama",
        "tokens": tokens,
        "scores": np.array([model.get_score(i) for i in ids], np.float32),
        "token_type": np.array(types, np.int32),
        "bos_token_id": model.bos_id(),
        "eos_token_id": model.eos_id(),
        "unknown_token_id": model.unk_id(),
    }
    return _keys(metadata | changes)


def _keys(metadata: Mapping[str, Any]) -> dict[str, Any]:
    keys = {"general.architecture": "bitnet"}
    for name, value in metadata.items():
        if value is not None:
            stored = gguf.Typed([], "str") if isinstance(value, list) and not value else value
            keys[name if "." in name else f"tokenizer.ggml.{name}"] = stored
    return keys


def write_gguf(path: Path, metadata: Mapping[str, Any]) -> Path:
    """A vocabulary-only GGUF file."""
    gguf.write(path, metadata, [], force=True)
    return path


def open_gguf(folder: Path, metadata: Mapping[str, Any], pre: str | None = None) -> Tokenizer:
    with gguf.read(write_gguf(folder / "vocabulary.gguf", metadata)) as file:
        return from_gguf(file, pre)
