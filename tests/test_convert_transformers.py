"""Checkpoints that transformers wrote, converted, compute what transformers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracle_compare
import oracle_models
import pytest

import bitnet_cy
from bitnet_cy.convert import convert
from bitnet_cy.formats import gguf

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")
pytest.importorskip("accelerate", reason="accelerate, which loads BitNet folders, is missing")
oracle: Any = pytest.importorskip("oracle_transformers")

# Architecture, activation, and the name of the checkpoint's quantization_config.
CASES = [
    ("bitnet-b1.58", "relu2", "AUTO"),
    ("bitnet-b1.58", "relu2", "ONLINE"),
    ("bitnet", "silu", "AUTO"),
    ("llama", "silu", "BITLINEAR"),
    ("llama", "silu", "ONLINE"),
]


pytestmark = pytest.mark.usefixtures("plain_torch")


@pytest.mark.parametrize(("architecture", "activation", "quantization"), CASES)
def test_logits_and_greedy_tokens_are_those_of_transformers(
    architecture: str, activation: str, quantization: str, tmp_path: Path
) -> None:
    shape = oracle_models.shape(architecture, tied=architecture != "llama", rope_base=500000.0)
    weights = oracle_models.random_weights(shape, activation, 0, masters=quantization == "ONLINE")
    theirs = oracle.load(tmp_path / "hf", weights, getattr(oracle, quantization))
    convert(tmp_path / "hf", tmp_path / "out.gguf", with_vocabulary=False)
    compare(theirs, tmp_path / "out.gguf", shape)
    if quantization == "AUTO":
        return  # transformers unpacks these and has no way to save them
    theirs.save_pretrained(tmp_path / "saved")
    convert(tmp_path / "saved", tmp_path / "saved.gguf", with_vocabulary=False)
    same_tensors(tmp_path / "out.gguf", tmp_path / "saved.gguf")


def same_tensors(a: Path, b: Path) -> None:
    with gguf.read(a) as first, gguf.read(b) as second:
        assert list(first.tensors) == list(second.tensors)
        assert all(np.array_equal(first.raw(name), second.raw(name)) for name in first.tensors)


def compare(theirs: Any, path: Path, shape: Any) -> None:
    ours = bitnet_cy.load(path, threads=1, kv_dtype="float32")
    prompts = [oracle_models.random_ids(shape, 16, seed) for seed in range(8)]
    agreement = oracle_compare.compare(
        [ours.logits(ids) for ids in prompts], [oracle.logits(theirs, ids) for ids in prompts]
    )
    assert agreement, agreement
    tokens, logits = oracle.generate(theirs, prompts[0][:6], 24)
    best = [int(ours.logits([*prompts[0][:6], *tokens[:n]])[-1].argmax()) for n in range(24)]
    oracle_compare.equal_steps(best, tokens, logits)


@pytest.mark.parametrize("architecture", ["bitnet-b1.58", "llama"])
def test_a_folder_we_wrote_opens_in_transformers(architecture: str, tmp_path: Path) -> None:
    """GGUF to packed checkpoint, with its quantization_config, through transformers."""
    is_llama = architecture == "llama"
    shape = oracle_models.shape(architecture, tied=not is_llama, rope_base=500000.0)
    weights = oracle_models.random_weights(shape, "silu" if is_llama else "relu2", 1)
    oracle.load(tmp_path / "hf", weights, oracle.BITLINEAR if is_llama else oracle.AUTO)
    convert(tmp_path / "hf", tmp_path / "a.gguf", with_vocabulary=False)
    convert(tmp_path / "a.gguf", tmp_path / "back", type="hf")
    kind = transformers.LlamaForCausalLM if is_llama else transformers.BitNetForCausalLM
    theirs = kind.from_pretrained(
        tmp_path / "back", dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    compare(theirs, tmp_path / "a.gguf", shape)


def test_masters_saved_by_transformers_are_quantized(tmp_path: Path) -> None:
    """`save_pretrained` of a BitNetForCausalLM in bfloat16, as fine-tunes are."""
    config = transformers.BitNetConfig(
        vocab_size=320, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, rope_parameters={"rope_theta": 5e5, "rope_type": "default"},
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BitNetForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "hf", max_shard_size="200KB")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 1
    report = convert(tmp_path / "hf", tmp_path / "out.gguf", with_vocabulary=False)
    rows = {row.part: row for row in report.rows}
    assert (rows["attn_q"].source, rows["token_embd"].written) == ("BF16", "BF16")
    loaded = bitnet_cy.load(tmp_path / "out.gguf", threads=1)
    assert loaded.config.rope_base == 5e5
    assert np.isfinite(loaded.logits([0, 5, 9])).all()
