"""Damaged and hostile vocabularies each give one clear error."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vocabularies import (
    bpe_metadata,
    open_gguf,
    sentencepiece_metadata,
    trained_bpe,
    trained_sentencepiece,
    write_gguf,
)

from bitnet_cy.errors import BitNetError, FormatError, OptionError, UnsupportedError
from bitnet_cy.tokenizer import load

TOKENS: list[str] = bpe_metadata()["tokenizer.ggml.tokens"]
PIECES: list[str] = sentencepiece_metadata()["tokenizer.ggml.tokens"]
BYTE_PIECE = PIECES.index("<0x0A>")


def _swapped(values: list[str], index: int, value: str) -> list[str]:
    return [*values[:index], value, *values[index + 1 :]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "has no tokenizer"),
        ({"model": 7}, "model is not a string"),
        ({"tokens": None}, "tokens is missing"),
        ({"tokens": []}, "tokens is"),
        ({"tokens": [1, 2, 3]}, "tokens is not an array of strings"),
        ({"tokens": "abc"}, "tokens is not an array of strings"),
        ({"merges": None}, "merges is missing"),
        ({"merges": ["a b c"]}, "merge 0 is 'a b c'"),
        ({"merges": ["ab"]}, "merge 0 is 'ab'"),
        ({"merges": ["a b", "a zzz"]}, "needs the token"),
        ({"tokens": _swapped(TOKENS, 300, TOKENS[5])}, "tokens 5 and 300 are both"),
        ({"token_type": [1, 3]}, "token_type holds 2 values"),
        ({"token_type": np.full(len(TOKENS), 9, np.int32)}, "token_type holds values outside"),
        ({"token_type": np.ones(len(TOKENS), np.float32)}, "token_type holds"),
        ({"bos_token_id": len(TOKENS)}, "bos_token_id is"),
        ({"eos_token_id": -7}, "eos_token_id is -7"),
        ({"eot_token_id": 10**9}, "eot_token_id is"),
        ({"bos_token_id": "1"}, "bos_token_id is not an integer"),
        ({"add_bos_token": 1}, "add_bos_token is not true or false"),
    ],
)
def test_defects_of_a_byte_level_vocabulary(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=message):
        open_gguf(tmp_path, bpe_metadata(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, "scores is missing"),
        ({"token_type": None}, "token_type is missing"),
        ({"scores": [0.5]}, "scores holds 1 values"),
        ({"scores": np.full(len(PIECES), np.nan, np.float32)}, "scores"),
        ({"tokens": _swapped(PIECES, 300, PIECES[299])}, "tokens 299 and 300 are both"),
        ({"tokens": _swapped(PIECES, BYTE_PIECE, "<0xZZ>")}, "<0xZZ>"),
        ({"unknown_token_id": 10**6}, "unknown_token_id"),
        ({"unknown_token_id": None, "token_type": np.ones(len(PIECES), np.int32)}, "no unknown"),
        ({"add_space_prefix": "yes"}, "add_space_prefix is not true or false"),
    ],
)
def test_defects_of_a_sentencepiece_vocabulary(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=message):
        open_gguf(tmp_path, sentencepiece_metadata(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "model is 'bert'.*gpt2 and llama"),
        ({"pre": "falcon_e"}, "pre is 'falcon_e'.*llama-bpe.*pre="),
        ({"pre": None}, "pre is missing"),
    ],
)
def test_vocabularies_we_do_not_read_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        open_gguf(tmp_path, bpe_metadata(**changes))


def test_a_rule_can_be_given_for_a_file_without_one(tmp_path: Path) -> None:
    named = open_gguf(tmp_path, bpe_metadata())
    given = open_gguf(tmp_path, bpe_metadata(pre=None), pre="llama-bpe")
    assert given.encode("I've 12345 kings!") == named.encode("I've 12345 kings!")


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "v.gguf", bpe_metadata())
    with pytest.raises(OptionError, match="pre is 'nonsense'"):
        load(path, pre="nonsense")
    with pytest.raises(OptionError, match="path must name a file"):
        load(3)  # type: ignore[arg-type]
    model = tmp_path / "tokenizer.model"
    model.write_bytes(trained_sentencepiece())
    with pytest.raises(OptionError, match="pre is for GGUF files"):
        load(model, pre="gpt-2")
    with pytest.raises(OptionError, match="pre is for byte-level vocabularies"):
        open_gguf(tmp_path, sentencepiece_metadata(), pre="gpt-2")


def test_empty_entries_are_gaps_not_duplicates(tmp_path: Path) -> None:
    metadata = bpe_metadata(merges=[])
    metadata["tokenizer.ggml.tokens"][300] = metadata["tokenizer.ggml.tokens"][301] = ""
    tokenizer = open_gguf(tmp_path, metadata)
    assert tokenizer.decode([300, 301]) == ""
    spm = sentencepiece_metadata()
    spm["tokenizer.ggml.tokens"][300] = spm["tokenizer.ggml.tokens"][301] = ""
    assert open_gguf(tmp_path, spm).decode([300]) == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"hello there",
        b"{",
        b'{"model": 1}',
        b"[1]",
        b"\xff\xfe" * 50,
        b"IQ== 0",
    ],
)
def test_files_that_are_no_vocabulary(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(FormatError):
        load(path)


@pytest.mark.parametrize(
    "lines",
    [
        b"IQ== 0\nIg== 2\n",
        b"IQ== 0\nIQ== 1\n",
        b"IQ== 0\n*** 1\n",
        b"IQ== 0\nIg==\n",
        b"IQ== 0\n 1\n",
        b"IQ== 0\nIg== x\n",
        b"IQ== 0\n\nIg== 1\n",
    ],
)
def test_defects_of_a_rank_file_are_named_by_line(lines: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(lines)
    with pytest.raises(FormatError, match="line 2"):
        load(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        load(tmp_path / "nothing")
    with pytest.raises(FormatError, match="holds no vocabulary.*tokenizer.json"):
        load(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, bpe_metadata())
    with pytest.raises(FormatError, match="several vocabularies"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["[1, 2]", "{", "\ud800", "null"])
def test_damaged_files_beside_a_vocabulary_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained_sentencepiece())
    (tmp_path / "tokenizer_config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FormatError, match="tokenizer_config.json"):
        load(tmp_path)


@pytest.mark.parametrize("second", ["0360", "999999999"])
def test_added_tokens_that_do_not_fit(second: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained_sentencepiece())
    added = {"360": {"content": "<pad>"}, second: {"content": "<x>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(FormatError, match="taken or out of range"):
        load(tmp_path)


def _mutated(data: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    changed = bytearray(data)
    if chance.random() < 0.3:
        del changed[chance.randrange(len(changed)) :]
    for _ in range(chance.choice([1, 2, 5, 50])):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["gguf", "json", "model"])
def test_mutated_files_give_a_tokenizer_or_one_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if kind == "gguf":
        data = write_gguf(path, bpe_metadata()).read_bytes()
    elif kind == "json":
        data = trained_bpe("llama-bpe").to_str().encode()
    else:
        data = trained_sentencepiece()
    for seed in range(120):
        path.write_bytes(_mutated(data, seed))
        try:
            tokenizer = load(path)
            tokenizer.decode(tokenizer.encode("Hällo wörld\n"))
        except BitNetError as error:
            assert str(error)
