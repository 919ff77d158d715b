"""Ids of published vocabularies on hard text, against those of llama.cpp and tiktoken."""

from __future__ import annotations

import base64
import unicodedata
from pathlib import Path

import pytest
from vocabularies import GOLDEN, TEXTS, shared, write_gguf

from bitnet_cy.errors import OptionError, UnsupportedError
from bitnet_cy.formats import gguf
from bitnet_cy.tokenizer import Tokenizer, load, split_rules, tiktoken_file


@pytest.fixture(scope="module")
def ranks() -> Path:
    return shared("llama3.tiktoken")


@pytest.fixture(scope="module")
def llama3(ranks: Path) -> Tokenizer:
    return load(ranks)


@pytest.fixture(scope="module")
def official(ranks: Path, llama3: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF vocabulary as in the official 2B file: Llama 3's, without `tokenizer.ggml.pre`."""
    ids = range(llama3.vocab_size)
    tokens = [llama3.token_text(index) for index in ids]
    merges = tiktoken_file.merges_of({token: i for i, token in enumerate(tokens[:128000])})
    assert len(merges) == 280147
    return write_gguf(
        tmp_path_factory.mktemp("official") / "official.gguf",
        {
            "general.architecture": "bitnet-b1.58",
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [1] * 128000 + [3] * 256,
            "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
            "tokenizer.ggml.bos_token_id": 128000,
            "tokenizer.ggml.eos_token_id": 128001,
            "tokenizer.ggml.add_bos_token": True,
        },
    )


def _check(tokenizer: Tokenizer, name: str) -> None:
    golden = GOLDEN["ids"][name]
    for number, text in enumerate(TEXTS):
        wanted = golden["plain"][number]
        if wanted is None:
            with pytest.raises(OptionError, match="no token"):
                tokenizer.encode(text)
            continue
        assert tokenizer.encode(text, add_special_tokens=False) == wanted, repr(text)
        parsed = golden["special"].get(str(number), wanted)
        assert tokenizer.encode(text, False, parse_special=True) == parsed, repr(text)


def test_llama3_ranks_give_the_golden_ids(llama3: Tokenizer) -> None:
    _check(llama3, "llama-bpe")
    assert llama3.encode("Hello") == [128000, 9906]
    assert llama3.vocab_size == 128256
    assert (llama3.bos_id, llama3.eos_id) == (128000, 128001)
    assert llama3.stop_ids == {128001, 128009}
    assert llama3.special_tokens["<|end_header_id|>"] == 128007
    assert llama3.special_tokens["<|reserved_special_token_250|>"] == 128255


def test_llama3_ids_are_those_of_tiktoken(llama3: Tokenizer, ranks: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    lines = [line.split() for line in ranks.read_bytes().splitlines()]
    oracle = tiktoken.Encoding(
        "llama3",
        pat_str=split_rules.LLAMA3,
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in lines},
        special_tokens=llama3.special_tokens,
    )
    for text in TEXTS:
        plain = oracle.encode(text, disallowed_special=())
        assert llama3.encode(text, add_special_tokens=False) == plain, repr(text)
        parsed = oracle.encode(text, allowed_special="all")
        assert llama3.encode(text, False, parse_special=True) == parsed, repr(text)


def test_the_official_file_without_pre_is_read_as_llama3(official: Path) -> None:
    tokenizer = load(official)
    assert tokenizer.pre == "llama-bpe"
    assert tokenizer.stop_ids == {128001, 128009}
    _check(tokenizer, "llama-bpe")


def test_the_default_rule_can_be_asked_for(official: Path) -> None:
    _check(load(official, pre="default"), "default")


def test_qwen2_composes_text_and_splits_every_digit(official: Path) -> None:
    tokenizer = load(official, pre="qwen2")
    one = tokenizer.encode("1", add_special_tokens=False)
    assert tokenizer.encode("111", add_special_tokens=False) == one * 3
    for text in ("e\u0301", "A\u030a ngstro\u0308m"):
        assert tokenizer.encode(text) == tokenizer.encode(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize("name", ["gpt-2", "falcon", "llama-spm"])
def test_published_gguf_vocabularies_give_the_golden_ids(name: str) -> None:
    _check(load(shared(f"vocab-{name}.gguf")), name)


def test_gpt2_is_known_without_its_key(tmp_path: Path) -> None:
    with gguf.read(shared("vocab-gpt-2.gguf")) as file:
        keys = {k: file.metadata.typed(k) for k in file.metadata if k != "tokenizer.ggml.pre"}
    tokenizer = load(write_gguf(tmp_path / "no-pre.gguf", keys))
    assert tokenizer.pre == "gpt-2"
    _check(tokenizer, "gpt-2")


def test_another_vocabulary_without_its_key_is_refused(tmp_path: Path) -> None:
    with gguf.read(shared("vocab-falcon.gguf")) as file:
        keys = {k: file.metadata.typed(k) for k in file.metadata if k != "tokenizer.ggml.pre"}
    path = write_gguf(tmp_path / "no-pre.gguf", keys)
    with pytest.raises(UnsupportedError, match=r"tokenizer\.ggml\.pre is missing.*llama-bpe"):
        load(path)
    _check(load(path, pre="falcon"), "falcon")
