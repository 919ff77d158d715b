"""Qwen3 and Gemma 3 exports in llama.cpp: it computes what we compute, where it can load them.

It quantizes activations by blocks of 256, which the matrices here have in a row, so with
activation_dtype "int8" we do the same; models whose weights alone are ternary then differ from
their float selves by that quantization. Its GELU comes from a table of float16 numbers, which
moves values over rounding edges everywhere: Gemma agrees in directions only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import oracle_compare
import oracle_llama_cpp
import pytest
from test_convert_llama_cpp import is_text, same_ids
from test_tokenizer_files import llama2_json

import bitnet_cy
from bitnet_cy import tokenizer
from bitnet_cy.convert import convert

pytest.importorskip("xllamacpp", reason="xllamacpp, which brings llama.cpp, is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")
pytest.importorskip("accelerate", reason="accelerate, which loads BitNet folders, is missing")
oracle: Any = pytest.importorskip("oracle_families")

VOCABULARY, COUNT = 896, 12
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 256, "head_dim": 64,
    "num_hidden_layers": 2, "bos_token_id": 856, "eos_token_id": 857, "pad_token_id": 857,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
GEMMA = {"query_pre_attn_scalar": 64, "sliding_window": 8}
QWEN3 = {
    "tq2_0": ({}, "tq2_0"),
    "tq1_0": ({}, "tq1_0"),
    "untied": ({"tie_word_embeddings": False}, "tq2_0"),
    "yarn": ({"rope_parameters": YARN}, "tq2_0"),
    "yarn with a factor": (
        {"rope_parameters": YARN | {"attention_factor": 0.8, "beta_fast": 8.0}},
        "tq2_0",
    ),
    "linear": ({"rope_parameters": LINEAR}, "tq2_0"),
}
GEMMA3 = {
    "six of a kind": {"num_hidden_layers": 7},
    "every other": {
        "layer_types": ["full_attention", "sliding_attention"] * 2, "num_hidden_layers": 4,
    },
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("plain_torch")


def exported(model: Any, folder: Path, rule: str, kind: str) -> Path:
    """The model in a GGUF file, with a vocabulary of which only whole characters can win."""
    (folder / "words").mkdir()
    checkpoints.write_vocabulary(folder / "words", rule)
    known = tokenizer.load(folder / "words")
    silent = [index for index in range(VOCABULARY) if not is_text(known, index)]
    with torch.no_grad():
        model.model.embed_tokens.weight[silent] = 0
        model.lm_head.weight[silent] = 0
    model.save_pretrained(folder / "hf")
    checkpoints.write_vocabulary(folder / "hf", rule)
    convert(folder / "hf", folder / "out.gguf", type=kind)
    return folder / "out.gguf"


def compared(path: Path, dtype: str) -> tuple[oracle_compare.Agreement, float]:
    """Our logits and greedy tokens with theirs: agreement, and the share of equal tokens."""
    ours = bitnet_cy.load(path, threads=1, kv_dtype="float32", activation_dtype=dtype)
    known = ours.tokenizer
    usable = [index for index in range(known.vocab_size) if is_text(known, index)]
    rng = np.random.default_rng(0)
    prompts = [[known.bos_id, *rng.choice(usable, 24).tolist()] for _ in range(3)]
    answers = oracle_llama_cpp.generate(path, prompts, COUNT, VOCABULARY)
    return oracle_compare.follow(ours, prompts, answers)


@pytest.mark.parametrize("case", QWEN3)
def test_llama_cpp_runs_a_qwen3_export_as_we_run_it(case: str, tmp_path: Path) -> None:
    changes, kind = QWEN3[case]
    model = oracle.make_ternary(oracle.qwen3(**SIZES | changes))
    path = exported(model, tmp_path, "qwen2", kind)
    agreement, equal = compared(path, "int8")
    assert agreement, agreement
    assert equal >= oracle_compare.LEAST_EQUAL
    agreement, _ = compared(path, "float32")
    assert agreement.cosine >= oracle_compare.LEAST_COSINE, agreement


def test_llama_cpp_runs_group_scales_as_we_run_them(tmp_path: Path) -> None:
    model = oracle.make_ternary(oracle.qwen3(**SIZES), 128)
    agreement, equal = compared(exported(model, tmp_path, "qwen2", "q2_0"), "float32")
    assert agreement.cosine >= oracle_compare.LEAST_COSINE, agreement
    assert equal >= oracle_compare.LEAST_EQUAL


@pytest.mark.parametrize("case", GEMMA3)
def test_llama_cpp_runs_a_gemma3_export_as_we_run_it(case: str, tmp_path: Path) -> None:
    model = oracle.make_ternary(oracle.gemma3(**SIZES | GEMMA | GEMMA3[case]))
    agreement, equal = compared(exported(model, tmp_path, "llama-bpe", "tq2_0"), "int8")
    assert agreement.cosine >= oracle_compare.LEAST_COSINE, agreement
    assert equal >= oracle_compare.LEAST_EQUAL


def test_llama_cpp_knows_one_factor_of_gemma3_as_the_report_warns(tmp_path: Path) -> None:
    model = oracle.make_ternary(oracle.gemma3(**SIZES | GEMMA | {"query_pre_attn_scalar": 8}))
    path = exported(model, tmp_path, "llama-bpe", "tq2_0")
    agreement, _ = compared(path, "int8")
    assert agreement.cosine < oracle_compare.LEAST_COSINE
    report = convert(path, tmp_path / "again.gguf", type="tq1_0")
    assert any("by the root of head_dim 64" in note for note in report.notes)


def test_llama_cpp_loads_no_norms_of_inputs_as_the_report_warns(tmp_path: Path) -> None:
    quantization = {"quant_method": "bitnet"}
    oracle.quantized(oracle.qwen3(**SIZES), tmp_path / "hf", quantization, False)
    checkpoints.write_vocabulary(tmp_path / "hf", "qwen2")
    report = convert(tmp_path / "hf", tmp_path / "out.gguf", type="tq2_0")
    assert any("does not load this file" in note for note in report.notes)
    with pytest.raises(RuntimeError, match="Failed to init server"):
        oracle_llama_cpp.generate(tmp_path / "out.gguf", [[1, 2]], 1, VOCABULARY)


def test_llama_cpp_cuts_text_by_gemma_s_kind_of_vocabulary(tmp_path: Path) -> None:
    """Merges without scores, spaces as a letter, and no space before the text."""
    model = oracle.make_ternary(oracle.gemma3(vocab_size=384, hidden_size=256))
    model.save_pretrained(tmp_path / "hf")
    state = llama2_json(None)
    state["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    state["pre_tokenizer"] = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
        "invert": False,
    }  # fmt: skip
    state["decoder"]["decoders"].pop()
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(state))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps(settings))
    convert(tmp_path / "hf", tmp_path / "out.gguf", type="tq2_0")
    same_ids(tokenizer.load(tmp_path / "hf"), tmp_path / "out.gguf")
