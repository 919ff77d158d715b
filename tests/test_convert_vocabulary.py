"""Vocabularies survive a conversion: same ids, same ends, same chats; flaws are repaired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import oracle_models
import pytest
import vocabularies
from checkpoints import tiny
from vocabularies import TEXTS

import bitnet_cy
from bitnet_cy import tokenizer
from bitnet_cy.convert import convert
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import gguf
from bitnet_cy.tokenizer import Tokenizer

PREFIX = "tokenizer.ggml."
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def keys(path: Path) -> dict[str, Any]:
    with gguf.read(path) as file:
        return {key: file.metadata[key] for key in file.metadata if key.startswith("tokenizer.")}


def same(a: Tokenizer, b: Tokenizer) -> None:
    for text in TEXTS:
        for special in (False, True):
            ids = a.encode(text + "<|eot_id|>", parse_special=special)
            assert b.encode(text + "<|eot_id|>", parse_special=special) == ids
            assert a.decode(ids) == b.decode(ids)
    assert (a.bos_id, a.eos_id, a.add_bos) == (b.bos_id, b.eos_id, b.add_bos)
    assert a.stop_ids == b.stop_ids
    assert a.chat_template == b.chat_template


@pytest.mark.parametrize("rule", ["llama-bpe", "qwen2", "gpt-2", "olmo", "falcon", "default"])
def test_a_tokenizer_json_becomes_keys_with_its_rule_named(rule: str, tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "hf")
    checkpoints.write_vocabulary(path, rule, TEMPLATE)
    convert(path, tmp_path / "out.gguf")
    found = keys(tmp_path / "out.gguf")
    assert found[f"{PREFIX}model"] == "gpt2"
    assert found[f"{PREFIX}pre"] == rule
    assert found[f"{PREFIX}bos_token_id"] == 856
    assert found[f"{PREFIX}eos_token_id"] == 857
    assert found[f"{PREFIX}eot_token_id"] == 858
    assert found[f"{PREFIX}add_bos_token"] is True
    assert found["tokenizer.chat_template"] == TEMPLATE
    assert found[f"{PREFIX}token_type"].tolist() == [1] * 856 + [3] * 4 + [5] * 36
    assert len(found[f"{PREFIX}tokens"]) == 896
    with gguf.read(tmp_path / "out.gguf") as file:
        same(tokenizer.load(path), tokenizer.from_gguf(file))


def test_a_rule_is_known_whether_or_not_the_file_ignores_merges(tmp_path: Path) -> None:
    """As Falcon3's, which splits text as Llama 3 does."""
    path = tiny().write(tmp_path / "hf")
    state = json.loads((path / "tokenizer.json").read_text())
    state["model"]["ignore_merges"] = False
    (path / "tokenizer.json").write_text(json.dumps(state))
    convert(path, tmp_path / "out.gguf")
    assert keys(tmp_path / "out.gguf")[f"{PREFIX}pre"] == "llama-bpe"


def test_a_byte_level_vocabulary_travels_to_a_folder_and_transformers_reads_it(
    tmp_path: Path,
) -> None:
    path = tiny().write(tmp_path / "hf")
    checkpoints.write_vocabulary(path, "llama-bpe", TEMPLATE)
    convert(path, tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "back", type="hf")
    same(tokenizer.load(path), tokenizer.load(tmp_path / "back"))
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    ours = tokenizer.load(path)
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours.encode(text, parse_special=True)
    messages = [{"role": "user", "content": "Hi"}]
    shown = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "user: Hi<|eot_id|>assistant: "


def test_a_folder_to_a_folder_keeps_the_files_of_the_vocabulary(tmp_path: Path) -> None:
    path = tiny(form="masters").write(tmp_path / "hf")
    convert(path, tmp_path / "out", type="hf")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (path / name).read_bytes()


def sentencepiece_folder(tmp_path: Path) -> Path:
    """As 1bitLLM's: a tokenizer.model and two tokens that only tokenizer_config.json knows."""
    path = tiny("bitnet", "masters", vocab_size=384).write(tmp_path / "hf")
    checkpoints.write_tokenizer_model(path)
    return path


def test_a_tokenizer_model_keeps_scores_and_added_tokens(tmp_path: Path) -> None:
    path = sentencepiece_folder(tmp_path)
    convert(path, tmp_path / "out.gguf")
    found = keys(tmp_path / "out.gguf")
    expected = vocabularies.sentencepiece_metadata()
    assert found[f"{PREFIX}model"] == "llama"
    assert found[f"{PREFIX}tokens"][:360] == expected[f"{PREFIX}tokens"]
    np.testing.assert_array_equal(found[f"{PREFIX}scores"][:360], expected[f"{PREFIX}scores"])
    assert found[f"{PREFIX}tokens"][360:362] == ["<pad>", "</line>"]
    assert found[f"{PREFIX}token_type"][360:].tolist() == [3, 4] + [5] * 22
    same(tokenizer.load(path), bitnet_cy.load(tmp_path / "out.gguf").tokenizer)


def test_a_sentencepiece_vocabulary_travels_to_a_folder(tmp_path: Path) -> None:
    path = sentencepiece_folder(tmp_path)
    convert(path, tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "back", type="hf")
    before, after = tokenizer.load(path), tokenizer.load(tmp_path / "back")
    for text in TEXTS:
        assert after.encode(text) == before.encode(text)


def test_ends_named_by_the_generation_config_are_kept(tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "hf")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [857, 859]}))
    convert(path, tmp_path / "out.gguf")
    assert bitnet_cy.load(tmp_path / "out.gguf").tokenizer.stop_ids >= {857, 858, 859}


def test_ends_that_no_key_can_name_are_not_lost_silently(tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "hf")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4, 5, 857]}))
    with pytest.raises(FormatError, match="end a text in the source, but not in the written"):
        convert(path, tmp_path / "out.gguf")


def test_a_rule_without_a_name_is_refused_until_one_is_given(tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "hf")
    state = json.loads((path / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    state["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split, state["pre_tokenizer"]["pretokenizers"][-1]],
    }
    (path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UnsupportedError, match="GGUF files have no name for"):
        convert(path, tmp_path / "out.gguf")
    with pytest.raises(FormatError, match="splits .* otherwise than the source"):
        convert(path, tmp_path / "out.gguf", pre="gpt-2")
    assert not (tmp_path / "out.gguf").exists()


def test_a_vocabulary_can_be_left_out(tmp_path: Path) -> None:
    convert(tiny().write(tmp_path / "hf"), tmp_path / "out.gguf", with_vocabulary=False)
    assert keys(tmp_path / "out.gguf") == {}


def test_flaws_of_published_files_are_repaired_and_reported(tmp_path: Path) -> None:
    """No splitting rule, no end of a turn, and the converter's template."""
    weights = tiny().weights
    vocabulary = vocabularies.bpe_metadata()
    tokens = [*vocabulary[f"{PREFIX}tokens"], *(f"<|unused_{n}|>" for n in range(36))]
    types = np.array([1] * 856 + [3] * 4 + [5] * 36, np.int32)
    plain = oracle_models.write_gguf(tmp_path / "plain.gguf", weights)
    with gguf.read(plain) as file:
        metadata = {k: file.metadata.typed(k) for k in file.metadata if "tokenizer" not in k}
        metadata |= {k: v for k, v in vocabulary.items() if k.startswith("tokenizer")}
        metadata |= {f"{PREFIX}tokens": tokens, f"{PREFIX}token_type": types}
        metadata["tokenizer.chat_template"] = "Human: {{ messages }} BITNETAssistant: "
        del metadata[f"{PREFIX}pre"]
        sources = [
            gguf.TensorSource(name, info.shape, info.type_name, file.raw(name))
            for name, info in file.tensors.items()
        ]
        gguf.write(tmp_path / "flawed.gguf", metadata, sources)
    report = convert(tmp_path / "flawed.gguf", tmp_path / "out.gguf", pre="llama-bpe")
    assert len(report.notes) == 3
    found = keys(tmp_path / "out.gguf")
    assert found[f"{PREFIX}pre"] == "llama-bpe"
    assert found[f"{PREFIX}eot_token_id"] == 858
    assert "BITNETAssistant" not in found["tokenizer.chat_template"]
    assert convert(tmp_path / "out.gguf", tmp_path / "again.gguf").notes == []
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "again.gguf").read_bytes()
    unnamed = convert(tmp_path / "flawed.gguf", tmp_path / "unnamed.gguf")
    assert "copied without a check" in unnamed.notes[0]
    with pytest.raises(UnsupportedError, match="copied without a check"):
        convert(tmp_path / "flawed.gguf", tmp_path / "folder", type="hf")
