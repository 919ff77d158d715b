"""Checkpoints converted to llama.cpp's own types: it loads them and computes what we compute."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import checkpoints
import numpy as np
import oracle_compare
import oracle_llama_cpp
import pytest
from checkpoints import Folder, tiny
from vocabularies import TEXTS

import bitnet_cy
from bitnet_cy import tokenizer
from bitnet_cy.convert import convert
from bitnet_cy.tokenizer import Tokenizer

pytest.importorskip("xllamacpp", reason="xllamacpp, which brings llama.cpp, is not installed")

COUNT = 16
LEAST_COSINE_OF_DENSE = 0.99
HARD = (*TEXTS, "a <|eot_id|> b", "x\r\n\r\n  y\t z", "1234567890 12,345.678", "\u00a0\u2003 ok")


def folder(architecture: str) -> Folder:
    """Layers with 256 inputs, where llama.cpp quantizes them as we do: by one scale a token."""
    kv_heads = {} if architecture == "llama" else {"kv_heads": 4}
    return tiny(architecture, half_scales=True, **kv_heads)


def silenced(found: Folder, path: Path) -> Path:
    """Write the folder so that only tokens of whole characters can win.

    llama.cpp's server reports others when a later token completes them.
    """
    written = found.write(path)
    known = tokenizer.load(written)
    silent = [i for i in range(found.weights.shape.vocab_size) if not is_text(known, i)]
    for matrix in found.weights.matrices.values():
        matrix[silent] = 0
    tensors = list(found.tensors().values())
    (written / "model.safetensors").unlink()
    checkpoints.safetensors.write(written / "model.safetensors", tensors)
    return written


def is_text(known: Tokenizer, index: int) -> bool:
    try:
        return index < known.vocab_size and known.token_bytes(index).decode() != ""
    except UnicodeDecodeError:
        return False


def prompts(path: Path) -> list[list[int]]:
    known = bitnet_cy.load(path).tokenizer
    usable = [index for index in range(known.vocab_size) if is_text(known, index)]
    rng = np.random.default_rng(0)
    return [[known.bos_id, *rng.choice(usable, 5).tolist()] for _ in range(5)]


@pytest.mark.parametrize(
    ("architecture", "type_", "embedding"),
    [
        ("llama", "tq2_0", "keep"),
        ("llama", "tq1_0", "f16"),
        ("llama", "tq2_0", "q8_0"),
        ("bitnet", "tq2_0", "keep"),
        ("bitnet", "tq1_0", "q6_k"),
    ],
)
def test_llama_cpp_runs_an_export_as_we_run_it(
    architecture: str, type_: str, embedding: str, tmp_path: Path
) -> None:
    source, out = silenced(folder(architecture), tmp_path / "hf"), tmp_path / "out.gguf"
    convert(source, out, type=type_, embedding=embedding)
    size, asked = 896, prompts(out)
    ours = bitnet_cy.load(out, threads=1, kv_dtype="float32")
    answers = oracle_llama_cpp.generate(out, asked, COUNT, size)
    agreement, equal = oracle_compare.follow(ours, asked, answers)
    assert agreement.cosine >= oracle_compare.LEAST_COSINE, agreement
    # The head is F32 where it is kept; for others llama.cpp rounds its input to 16 or 8 bits.
    assert agreement or embedding != "keep", agreement
    assert equal >= oracle_compare.LEAST_EQUAL


@pytest.mark.parametrize("architecture", ["llama", "bitnet"])
def test_llama_cpp_runs_a_dequantized_export(architecture: str, tmp_path: Path) -> None:
    """It does not quantize the inputs of float layers, which BitNet's training did."""
    source = silenced(folder(architecture), tmp_path / "hf")
    convert(source, tmp_path / "dense.gguf", type="f16")
    convert(source, tmp_path / "ternary.gguf")
    ours = bitnet_cy.load(tmp_path / "ternary.gguf")
    prompt = prompts(tmp_path / "ternary.gguf")[0]
    ((tokens, rows),) = oracle_llama_cpp.generate(tmp_path / "dense.gguf", [prompt], COUNT, 896)
    z = np.asarray(ours.logits([*prompt, *tokens])[len(prompt) - 1 : -1], np.float64)
    agreement = oracle_compare.compare([z - np.log(np.exp(z).sum(1, keepdims=True))], [rows])
    assert agreement.cosine >= LEAST_COSINE_OF_DENSE, agreement


def test_llama_cpp_runs_a_relu2_model_as_the_report_warns(tmp_path: Path) -> None:
    source, out = silenced(tiny(half_scales=True), tmp_path / "hf"), tmp_path / "out.gguf"
    report = convert(source, out, type="tq2_0")
    assert any("with SiLU; this one was trained with relu2" in note for note in report.notes)
    prompt = prompts(out)[0]
    ((tokens, rows),) = oracle_llama_cpp.generate(out, [prompt], 8, 896)
    cosines = []
    for activation in ("silu", "relu2"):
        ours = bitnet_cy.load(out, threads=1, kv_dtype="float32", activation=activation)
        z = np.asarray(ours.logits([*prompt, *tokens])[len(prompt) - 1 : -1], np.float64)
        found = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        cosines.append(oracle_compare.compare([found], [rows]).cosine)
    assert cosines[0] >= oracle_compare.LEAST_COSINE > cosines[1]


@pytest.mark.parametrize("rule", ["llama-bpe", "gpt-2", "default", "qwen2"])
def test_llama_cpp_cuts_text_as_the_checkpoint_does(rule: str, tmp_path: Path) -> None:
    source = tiny("llama").write(tmp_path / "hf")
    checkpoints.write_vocabulary(source, rule)
    convert(source, tmp_path / "out.gguf", type="tq2_0")
    same_ids(tokenizer.load(source), tmp_path / "out.gguf", composed=rule == "qwen2")


def same_ids(expected: Tokenizer, path: Path, composed: bool = False) -> None:
    """composed: texts are put into form NFC, which llama.cpp does not do where a rule asks it."""
    texts = [unicodedata.normalize("NFC", text) if composed else text for text in HARD]
    asked = [(text, special) for special in (False, True) for text in texts]
    answers = oracle_llama_cpp.tokenize(path, asked)
    for (text, special), ids in zip(asked, answers, strict=True):
        assert expected.encode(text, parse_special=special) == ids, (text, special)


def test_llama_cpp_cuts_text_as_a_tokenizer_model_does(tmp_path: Path) -> None:
    source = tiny("llama", vocab_size=384).write(tmp_path / "hf")
    checkpoints.write_tokenizer_model(source)
    convert(source, tmp_path / "out.gguf", type="tq2_0")
    same_ids(tokenizer.load(source), tmp_path / "out.gguf")
