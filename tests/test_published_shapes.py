"""Models with the odd sizes of published ones, whole but thin: converted, run, and back.

A folder is converted, run and compared with the NumPy oracle, converted back and again, to the
same bytes. Sizes that are nothing special are small.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracle_compare
import oracle_models
import pytest
from checkpoints import AUTO, BITLINEAR, Folder

import bitnet_cy
from bitnet_cy.convert import convert
from bitnet_cy.formats import gguf

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bitnet_b1_58-large": ("bitnet", "silu", {
        "hidden": 192, "heads": 2, "kv_heads": 2, "head_dim": 96, "ffn": 4096,
    }),
    "bitnet_b1_58-xl": ("bitnet", "silu", {
        "hidden": 128, "heads": 2, "kv_heads": 2, "head_dim": 64, "ffn": 5460,
    }),
    "bitnet_b1_58-3B": ("bitnet", "silu", {
        "hidden": 400, "heads": 4, "kv_heads": 4, "head_dim": 100, "ffn": 8640,
    }),
    "BitNet-b1.58-2B-4T": ("bitnet-b1.58", "relu2", {
        "hidden": 256, "heads": 4, "kv_heads": 1, "head_dim": 128, "ffn": 6912,
        "rope_base": 500000.0,
    }),
    "Falcon3-10B-1.58bit": ("llama", "silu", {
        "hidden": 128, "heads": 3, "kv_heads": 1, "head_dim": 256, "ffn": 23040, "tied": False,
        "rope_base": 1000042.0, "norm_eps": 1e-6,
    }),
    "Falcon-E-3B": ("llama", "silu", {
        "hidden": 256, "heads": 16, "kv_heads": 2, "head_dim": 128, "ffn": 13312, "tied": False,
        "rope_base": 1e6,
    }),
    "Llama3-8B-1.58": ("llama", "silu", {
        "hidden": 256, "heads": 4, "kv_heads": 1, "head_dim": 128, "ffn": 14336, "tied": False,
        "rope_base": 500000.0,
    }),
    "a vocabulary of 262144": ("llama", "silu", {
        "hidden": 64, "heads": 1, "kv_heads": 1, "head_dim": 256, "vocab_size": 262144,
        "tied": False,
    }),
}  # fmt: skip


def folder(case: str) -> Folder:
    architecture, activation, sizes = CASES[case]
    shape = oracle_models.shape(architecture, layers=1, **{"vocab_size": 896} | sizes)
    weights = oracle_models.random_weights(shape, activation, 0, half_scales=True)
    is_llama = architecture == "llama"
    return Folder(
        weights,
        "packed",
        BITLINEAR if is_llama else AUTO,
        spelling="LlamaForCausalLM" if is_llama else "BitNetForCausalLM",
    )


@pytest.mark.parametrize("case", CASES)
def test_a_published_shape_is_converted_runs_and_goes_back(case: str, tmp_path: Path) -> None:
    source = folder(case)
    shape = source.weights.shape
    report = convert(source.write(tmp_path / "hf"), tmp_path / "a.gguf")
    assert sum(row.tensors for row in report.rows) == len(source.weights.linears) + len(
        source.weights.vectors | source.weights.matrices
    )
    ours = bitnet_cy.load(tmp_path / "a.gguf", threads=2, kv_dtype="float32")
    config = ours.config
    assert (config.ffn_size, config.head_dim) == (shape.ffn, shape.head_dim)
    assert (config.vocab_size, config.tied_head) == (shape.vocab_size, shape.tied)
    ids = np.random.default_rng(1).integers(258, shape.vocab_size, 12)
    expected = oracle_models.numpy_model(source.weights).logits(ids)
    agreement = oracle_compare.compare([ours.logits(ids)], [expected])
    assert agreement.cosine >= oracle_compare.LEAST_COSINE, agreement
    assert agreement.exact > 0, agreement
    convert(tmp_path / "a.gguf", tmp_path / "back", type="hf")
    convert(tmp_path / "back", tmp_path / "b.gguf")
    same_tensors(tmp_path / "a.gguf", tmp_path / "b.gguf")


def same_tensors(a: Path, b: Path) -> None:
    with gguf.read(a) as first, gguf.read(b) as second:
        assert list(first.tensors) == list(second.tensors)
        for name, info in first.tensors.items():
            assert info.type_name == second.tensors[name].type_name, name
            assert np.array_equal(first.raw(name), second.raw(name)), name
