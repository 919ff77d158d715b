"""Encoding and decoding with vocabularies stored in GGUF files."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import (
    PROSE,
    SPECIAL,
    TEXTS,
    bpe_metadata,
    open_gguf,
    sentencepiece_metadata,
    trained_bpe,
    trained_sentencepiece,
    write_gguf,
)

from bitnet_cy.errors import OptionError
from bitnet_cy.tokenizer import StreamDecoder, Tokenizer, load
from bitnet_cy.tokenizer.split_rules import RULES

BPE_RULES = sorted(set(RULES) - {"llama3", "llama-v3"})


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return open_gguf(tmp_path_factory.mktemp("bpe"), bpe_metadata())


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return open_gguf(tmp_path_factory.mktemp("spm"), sentencepiece_metadata())


@pytest.fixture(params=["bpe", "spm"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("rule", BPE_RULES)
def test_byte_level_ids_are_those_of_the_library_that_trained_them(
    rule: str, tmp_path: Path
) -> None:
    library = trained_bpe(rule)
    ours = open_gguf(tmp_path, bpe_metadata(rule))
    library.encode_special_tokens = True
    library.normalizer = RULES[rule].normalizer()
    for text in TEXTS:
        wanted = library.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False) == wanted, repr(text)


def test_sentencepiece_ids_are_those_of_the_model_they_came_from(spm: Tokenizer) -> None:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=trained_sentencepiece())
    for text in [*TEXTS, PROSE]:
        assert spm.encode(text, add_special_tokens=False) == model.encode(text), repr(text)


def test_decoding_gives_the_text_back(tokenizer: Tokenizer) -> None:
    """SentencePiece writes spaces as U+2581, so one that was in the text comes back as a space."""
    for text in [*TEXTS, PROSE]:
        if "\u2581" not in text or tokenizer.pre:
            assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_any_text_survives(text: str, bpe: Tokenizer, spm: Tokenizer) -> None:
    for each in (bpe, spm):
        assert each.decode(each.encode(text)) == text


@settings(max_examples=60, deadline=None)
@given(data=st.data(), skip=st.booleans(), continuation=st.booleans())
def test_streamed_text_is_the_decoded_text(
    data: st.DataObject, skip: bool, continuation: bool, bpe: Tokenizer, spm: Tokenizer
) -> None:
    each = data.draw(st.sampled_from([bpe, spm]))
    ids = data.draw(st.lists(st.integers(0, each.vocab_size - 1)))
    stream = StreamDecoder(each, skip, continuation)
    pushed = [stream.push(index) for index in ids]
    assert "".join(pushed) + stream.flush() == each.decode(ids, skip, continuation)


def test_streaming_never_splits_a_character(tokenizer: Tokenizer) -> None:
    text = "日本語 👩‍👩‍👧 e\u0301"
    stream = StreamDecoder(tokenizer)
    assert "\ufffd" not in "".join(map(stream.push, tokenizer.encode(text)))


def test_an_unfinished_character_becomes_one_replacement(bpe: Tokenizer) -> None:
    ids = [i for i in range(bpe.vocab_size) if bpe.token_bytes(i) in (b"\xf0", b"\x9f")]
    stream = StreamDecoder(bpe)
    ids.sort(key=lambda index: bpe.token_bytes(index) != b"\xf0")
    assert [stream.push(index) for index in ids] == ["", ""]
    assert stream.flush() == bpe.decode(ids) == "\ufffd"


def test_token_bytes_joined_are_the_text(tokenizer: Tokenizer) -> None:
    text = "a king, 日本 👍"
    raw = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert raw.decode().removeprefix(" ") == text


def test_control_tokens_have_no_bytes_but_a_name(bpe: Tokenizer) -> None:
    index = bpe.special_tokens["<|eot_id|>"]
    assert bpe.token_bytes(index) == b""
    assert bpe.decode([index]) == ""
    assert bpe.decode([index], skip_special_tokens=False) == "<|eot_id|>"


def test_special_tokens_are_parsed_only_where_allowed(bpe: Tokenizer) -> None:
    text = "a<|eot_id|>b"
    plain = bpe.encode(text, add_special_tokens=False)
    parsed = bpe.encode(text, add_special_tokens=False, parse_special=True)
    assert not set(plain) & set(bpe.special_tokens.values())
    assert bpe.decode(plain) == text
    assert bpe.special_tokens["<|eot_id|>"] in parsed
    assert bpe.decode(parsed) == "ab"


def test_user_defined_tokens_are_found_in_any_text(spm: Tokenizer) -> None:
    ids = spm.encode("a<sep>b", add_special_tokens=False)
    assert "<sep>" in [spm.token_text(index) for index in ids]
    assert spm.encode("<s>", add_special_tokens=False)[0] != spm.bos_id
    assert spm.encode("<s>", add_special_tokens=False, parse_special=True) == [spm.bos_id]


def test_bos_and_eos_are_added_as_the_file_says(tmp_path: Path) -> None:
    text, count = "king", len(bpe_metadata()["tokenizer.ggml.tokens"])
    for keys, before, after in [
        ({}, [count - 4], []),
        ({"add_bos_token": False}, [], []),
        ({"add_eos_token": True}, [count - 4], [count - 3]),
        ({"bos_token_id": None}, [], []),
        ({"bos_token_id": 0xFFFFFFFF}, [], []),
    ]:
        tokenizer = open_gguf(tmp_path, bpe_metadata(**keys))
        plain = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text) == before + plain + after, keys
    assert not open_gguf(tmp_path, bpe_metadata("gpt-2")).add_bos
    assert not open_gguf(tmp_path, bpe_metadata("falcon3")).add_bos
    assert open_gguf(tmp_path, sentencepiece_metadata()).add_bos


def test_eos_and_end_of_turn_both_stop(bpe: Tokenizer, tmp_path: Path) -> None:
    assert bpe.stop_ids == {bpe.eos_id, bpe.special_tokens["<|eot_id|>"]}
    count = bpe.vocab_size
    keyed = open_gguf(tmp_path, bpe_metadata(eot_token_id=count - 1, token_type=None))
    assert count - 1 in keyed.stop_ids
    assert "<|eot_id|>" in keyed.special_tokens


def test_sentencepiece_space_prefix_follows_the_file(tmp_path: Path) -> None:
    plain = open_gguf(tmp_path, sentencepiece_metadata(add_space_prefix=False))
    with_space = open_gguf(tmp_path, sentencepiece_metadata())
    assert plain.encode(" king") == with_space.encode("king")
    assert plain.decode(plain.encode(" king")) == " king"
    assert with_space.decode(with_space.encode(" king")) == " king"


def test_a_continuation_keeps_its_first_space(spm: Tokenizer) -> None:
    ids = spm.encode("king", add_special_tokens=False)
    assert spm.decode(ids) == "king"
    assert spm.decode(ids, continuation=True) == " king"


def test_empty_text_is_only_what_is_added(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == [tokenizer.bos_id]
    assert tokenizer.encode("", add_special_tokens=False) == []
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("unit", ["a", " ", "\n", "日", "<", "ab ", "\x00", "<|eot_id|>"])
def test_long_text_is_no_trouble(unit: str, tokenizer: Tokenizer) -> None:
    text = unit * (100_000 // len(unit))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", [b"bytes", None, 3, ["a"]])
def test_text_of_a_wrong_type_is_refused(text: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(OptionError, match="text must be a str"):
        tokenizer.encode(text)


def test_a_lone_surrogate_is_refused_with_its_place(tokenizer: Tokenizer) -> None:
    with pytest.raises(OptionError, match=r"U\+D800 at position 2"):
        tokenizer.encode("ab\ud800")


@pytest.mark.parametrize("ids", [[-1], [10**9], ["a"], [1.5], [None], "12", b"1", 7, None])
def test_ids_that_are_none_are_refused(ids: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(OptionError, match="id"):
        tokenizer.decode(ids)


def test_numpy_ids_decode(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a king")
    assert tokenizer.decode(np.array(ids)) == "a king"


def test_text_the_vocabulary_cannot_write_is_refused(tmp_path: Path) -> None:
    metadata = bpe_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    tokens[tokens.index("Q")] = "no byte"
    tokenizer = open_gguf(tmp_path, metadata)
    with pytest.raises(OptionError, match="byte 0x51"):
        tokenizer.encode("Quite")
    assert tokenizer.decode(tokenizer.encode("king")) == "king"


def test_threads_share_a_tokenizer(tokenizer: Tokenizer) -> None:
    wanted = [tokenizer.encode(text) for text in TEXTS]
    results: list[list[list[int]]] = []
    threads = [
        Thread(target=lambda: results.append([tokenizer.encode(text) for text in TEXTS]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [wanted, wanted]


def test_the_longest_special_token_wins(tmp_path: Path) -> None:
    metadata = bpe_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    tokens[-4:] = ["<|a", "<|a|>", "<|a|>>", "|>>"]
    tokenizer = open_gguf(tmp_path, metadata)
    first = len(tokens) - 4
    assert tokenizer.split("x<|a|>>y<|ab|>>", True) == ["x", first + 2, "y", first, "b", first + 3]


def test_load_closes_the_file_and_keeps_the_vocabulary(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "v.gguf", bpe_metadata())
    tokenizer = load(path)
    path.unlink()
    assert tokenizer.decode(tokenizer.encode("a king")) == "a king"
    assert sorted(tokenizer.special_tokens) == sorted(SPECIAL)
    assert tokenizer.pre == "llama-bpe"
