"""Vocabularies in files other than GGUF: tokenizer.json, tokenizer.model, ranks, folders."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vocabularies import (
    PROSE,
    SPECIAL,
    TEXTS,
    bpe_metadata,
    sentencepiece_metadata,
    trained_bpe,
    trained_sentencepiece,
    write_gguf,
)

from bitnet_cy.errors import UnsupportedError
from bitnet_cy.tokenizer import byte_level, load, split_rules


def library_json(**changes: Any) -> dict[str, Any]:
    """`trained_bpe` as the contents of a tokenizer.json that puts BOS in front."""
    state: dict[str, Any] = json.loads(trained_bpe("llama-bpe").to_str())
    bos = next(t["id"] for t in state["added_tokens"] if t["content"] == SPECIAL[0])
    state["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
             "use_regex": True},
            {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": SPECIAL[0], "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {
                    SPECIAL[0]: {"id": SPECIAL[0], "ids": [bos], "tokens": [SPECIAL[0]]}
                },
            },
        ],
    }  # fmt: skip
    return state | changes


def llama2_json(scheme: str | None) -> dict[str, Any]:
    """The trained SentencePiece vocabulary as a tokenizer.json.

    scheme: of a Metaspace step, as newer converters write it; None for a Prepend normalizer.
    """
    metadata = sentencepiece_metadata()
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    scores = metadata["tokenizer.ggml.scores"]
    merges = [
        (-scores[index], [token[:cut], token[cut:]])
        for token, index in vocabulary.items()
        if metadata["tokenizer.ggml.token_type"][index] == 1
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    merges.sort(key=lambda merge: merge[0])
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": tokens[index], "special": index < 3, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False}
            for index in (0, 1, 2, vocabulary["<sep>"])
        ],
        "normalizer": None
        if scheme
        else {"type": "Sequence", "normalizers": [prepend, replace]},
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False
        }
        if scheme
        else None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip],
        },
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "ignore_merges": False, "vocab": vocabulary,
                  "merges": [pair for _, pair in merges]},
    }  # fmt: skip


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), "utf-8")
    return path


@pytest.mark.parametrize("special", [False, True])
def test_tokenizer_json_gives_the_ids_of_its_library(special: bool, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library

    path = write_json(tmp_path / "tokenizer.json", library_json())
    tokenizer, library = load(path), Library.from_file(str(path))
    library.encode_special_tokens = not special
    for text in TEXTS + [f"a{name} b" for name in SPECIAL]:
        assert tokenizer.encode(text, parse_special=special) == library.encode(text).ids, repr(text)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == library.decode(ids)
    assert tokenizer.add_bos
    assert tokenizer.bos_id == tokenizer.special_tokens[SPECIAL[0]]
    assert tokenizer.stop_ids == {tokenizer.special_tokens[name] for name in SPECIAL[1:3]}


@pytest.mark.parametrize("scheme", [None, "first", "always", "never"])
def test_llama2_tokenizer_json_gives_the_ids_of_its_library(
    scheme: str | None, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer as Library

    path = write_json(tmp_path / "tokenizer.json", llama2_json(scheme))
    tokenizer, library = load(path), Library.from_file(str(path))
    for text in [*TEXTS, PROSE, "a<sep>b", "<s>a</s> b", "a <s> b"]:
        wanted = library.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, False, parse_special=True) == wanted, repr(text)
    ids = tokenizer.encode(PROSE)
    assert tokenizer.decode(ids) == library.decode(ids)


def test_sentencepiece_file_gives_the_ids_of_its_library(tmp_path: Path) -> None:
    import sentencepiece

    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained_sentencepiece())
    tokenizer = load(path)
    library = sentencepiece.SentencePieceProcessor(model_proto=trained_sentencepiece())
    for text in [*TEXTS, PROSE, "a<sep>b"]:
        assert tokenizer.encode(text) == [library.bos_id(), *library.encode(text)], repr(text)
    assert tokenizer.encode("</s>", False, parse_special=True) == [library.eos_id()]
    assert tokenizer.stop_ids == {library.eos_id()}
    assert tokenizer.decode(tokenizer.encode(" a  king\n")) == " a  king\n"


def test_a_rank_file_gives_the_ids_of_tiktoken(tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    state = json.loads(trained_bpe("llama-bpe").to_str())["model"]["vocab"]
    ranks = {byte_level.to_bytes(token): rank for token, rank in state.items()}
    path = tmp_path / "small.tiktoken"
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()]
    path.write_bytes(b"\n".join(sorted(lines, key=lambda line: int(line.split()[1]))) + b"\n")
    tokenizer = load(path)
    oracle = tiktoken.Encoding(
        "small",
        pat_str=split_rules.LLAMA3,
        mergeable_ranks=ranks,
        special_tokens=tokenizer.special_tokens,
    )
    for text in TEXTS:
        wanted = oracle.encode(text, disallowed_special=())
        assert tokenizer.encode(text, add_special_tokens=False) == wanted, repr(text)
    assert tokenizer.bos_id == len(ranks)
    assert tokenizer.vocab_size == len(ranks) + 256


def _folder_json(folder: Path) -> None:
    write_json(folder / "tokenizer.json", library_json(post_processor=None))


def _folder_model(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(trained_sentencepiece())


def _folder_gguf(folder: Path) -> None:
    write_gguf(folder / "vocabulary.gguf", bpe_metadata())


@pytest.mark.parametrize("fill", [_folder_json, _folder_model, _folder_gguf])
def test_a_folder_with_a_vocabulary_opens(fill: Callable[[Path], None], tmp_path: Path) -> None:
    fill(tmp_path)
    tokenizer = load(str(tmp_path))
    assert tokenizer.decode(tokenizer.encode("a king")) == "a king"


def test_the_files_beside_a_vocabulary_count(tmp_path: Path) -> None:
    _folder_json(tmp_path)
    config = {
        "bos_token": {"content": SPECIAL[0]},
        "eos_token": SPECIAL[1],
        "add_bos_token": True,
        "chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}],
    }
    write_json(tmp_path / "tokenizer_config.json", config)
    last = load(tmp_path).vocab_size - 1
    write_json(tmp_path / "generation_config.json", {"eos_token_id": [last, 10**6]})
    tokenizer = load(tmp_path)
    ids = [tokenizer.special_tokens[name] for name in SPECIAL]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (ids[0], ids[1], True)
    assert tokenizer.stop_ids == set(ids[1:])
    assert tokenizer.chat_template == "d"
    (tmp_path / "chat_template.jinja").write_text("j", "utf-8")
    assert load(tmp_path).chat_template == "j"


def test_added_tokens_follow_a_sentencepiece_vocabulary(tmp_path: Path) -> None:
    _folder_model(tmp_path)
    write_json(
        tmp_path / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "added_tokens_decoder": {
                "1": {"content": "<s>", "special": True},
                "360": {"content": "<pad>", "special": True},
                "362": {"content": "</line>", "special": False},
            },
        },
    )
    tokenizer = load(tmp_path)
    assert tokenizer.vocab_size == 363
    assert tokenizer.special_tokens["<pad>"] == 360
    assert tokenizer.encode("a</line>")[-1] == 362
    assert tokenizer.decode([362, 360, 361]) == "</line>"
    assert 360 not in tokenizer.encode("<pad>")


def test_whitespace_beside_a_stripping_token_belongs_to_it(tmp_path: Path) -> None:
    state = library_json(post_processor=None)
    state["added_tokens"][3] |= {"lstrip": True, "rstrip": True}
    tokenizer = load(write_json(tmp_path / "tokenizer.json", state))
    index = tokenizer.special_tokens[SPECIAL[3]]
    assert tokenizer.split(f"a \n{SPECIAL[3]} b", True) == ["a", index, "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "WordLevel"),
        ({"post_processor": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}}, "Bert"),
    ],
)
def test_other_kinds_of_tokenizer_json_are_named(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        load(write_json(tmp_path / "tokenizer.json", library_json(**change)))


def test_whole_word_tokens_are_refused(tmp_path: Path) -> None:
    state = library_json()
    state["added_tokens"][0]["single_word"] = True
    with pytest.raises(UnsupportedError, match="single_word"):
        load(write_json(tmp_path / "tokenizer.json", state))
