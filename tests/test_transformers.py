"""Hugging Face transformers' BitNet and Llama layers compute what we compute.

transformers runs in float32 on the CPU: AutoBitLinear multiplies quantized activations that are
floats again with ternary floats, BitLinear multiplies integers and divides afterwards.
`oracle_compare` says when two sets of logits agree, and why not all can agree exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle_compare
import oracle_models
import pytest
from oracle_models import Weights

import bitnet_cy
from bitnet_cy.engine import kernels
from bitnet_cy.formats import ternary
from bitnet_cy.model import embedded_model

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")
pytest.importorskip("accelerate", reason="accelerate, which loads BitNet folders, is missing")

import oracle_transformers as oracle  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A model as it is published: the shape of its file, and how its checkpoint is quantized."""

    architecture: str
    activation: str
    quantization: str
    shape: dict[str, Any]
    masters: bool = False

    def weights(self, seed: int) -> Weights:
        model = oracle_models.shape(self.architecture, **self.shape)
        return oracle_models.random_weights(model, self.activation, seed, masters=self.masters)


CASES = {
    "2B-4T": Case("bitnet-b1.58", "relu2", "AUTO", {"rope_base": 500000.0}),
    "2B-4T masters": Case("bitnet-b1.58", "relu2", "ONLINE", {"rope_base": 500000.0}, True),
    "1bitLLM": Case(
        "bitnet", "silu", "AUTO", {"kv_heads": 4, "head_dim": 48, "hidden": 192, "ffn": 340}
    ),
    "Llama3-8B-1.58": Case("llama", "silu", "BITLINEAR", {"tied": False, "rope_base": 500000.0}),
    "Falcon3": Case(
        "llama", "silu", "BITLINEAR",
        {"tied": False, "kv_heads": 1, "head_dim": 64, "norm_eps": 1e-6},
    ),
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Pair:
    """One model, opened by transformers and by us, and the logits of both for some sequences."""

    weights: Weights
    theirs: Any
    path: Path
    ids: list[list[int]]
    logits: list[np.ndarray]

    def ours(self, kv_dtype: str = "float32") -> bitnet_cy.Model:
        return bitnet_cy.load(self.path, threads=1, kv_dtype=kv_dtype)

    def agreement(self, model: bitnet_cy.Model) -> oracle_compare.Agreement:
        return oracle_compare.compare([model.logits(ids) for ids in self.ids], self.logits)


@pytest.fixture(scope="module", autouse=True)
def _plain_torch() -> Iterator[None]:
    """One thread, no compiler, no progress bars."""
    from transformers.utils import logging

    threads, bars = torch.get_num_threads(), logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with torch.compiler.set_stance("force_eager"):
        yield
    torch.set_num_threads(threads)
    if bars:
        logging.enable_progress_bar()


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return open_both(CASES[request.param].weights(0), CASES[request.param], tmp_path_factory)


def open_both(weights: Weights, case: Case, folders: pytest.TempPathFactory) -> Pair:
    folder = folders.mktemp("pair")
    theirs = oracle.load(folder / "checkpoint", weights, getattr(oracle, case.quantization))
    path = oracle_models.write_gguf(folder / "model.gguf", weights)
    ids = [oracle_models.random_ids(weights.shape, 24, seed) for seed in range(12)]
    return Pair(weights, theirs, path, ids, [oracle.logits(theirs, each) for each in ids])


def test_logits_agree(pair: Pair) -> None:
    agreement = pair.agreement(pair.ours())
    assert agreement, agreement


def test_logits_agree_with_a_cache_in_float16(pair: Pair) -> None:
    """Rounding the cache to float16 moves values over edges everywhere: only directions agree."""
    assert pair.agreement(pair.ours("float16")).cosine >= oracle_compare.LEAST_COSINE


def test_greedy_tokens_are_equal(pair: Pair) -> None:
    ours, equal, steps = pair.ours(), 0, 0
    for ids in pair.ids[:4]:
        tokens, logits = oracle.generate(pair.theirs, ids[:6], 32)
        found = ours.generate(ids[:6], max_new_tokens=32).token_ids
        equal += oracle_compare.equal_steps(found, tokens, logits)
        steps += len(tokens)
    assert equal >= oracle_compare.LEAST_EQUAL * steps, f"{equal} of {steps}"


def test_layers_quantize_and_multiply_to_the_same_integers(pair: Pair) -> None:
    """Given the same input. transformers has 127 * (1 / a) for 127 / a: one unit in the last
    place of the scale, which decides only for a value within it of a rounding edge."""
    layers = oracle.inputs_and_outputs(pair.theirs, pair.ids[0])
    assert len(layers) == 7 * pair.weights.shape.layers
    for name, linear in pair.weights.linears.items():
        layer, x, y = layers[oracle.checkpoint_name(name)]
        q, scale = kernels.quantize(x.numpy())
        exact = x.numpy().astype(np.float64) * scale[:, None]
        their_q, their_scale = oracle.quantize(layer, x)
        np.testing.assert_allclose(scale, their_scale[:, 0], rtol=2**-22)
        assert (np.abs(q - exact)[q != their_q] > 0.5 - 1e-4).all()
        product = kernels.ternary_matmul(ternary.pack_rows(linear.trits), their_q)
        expected = product * (linear.scale / their_scale.astype(np.float64))
        np.testing.assert_allclose(
            y.numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
        )


def test_packed_weights_are_those_of_transformers(pair: Pair) -> None:
    for linear in pair.weights.linears.values():
        packed = oracle.pack_weights(torch.from_numpy(linear.trits.copy())).numpy()
        np.testing.assert_array_equal(ternary.pack_quarters(linear.trits), packed)
        np.testing.assert_array_equal(ternary.unpack_quarters(packed), linear.trits)


def _with_linear(weights: Weights, name: str, **changes: Any) -> Weights:
    linear = replace(weights.linears[name], **changes)
    return replace(weights, linears=weights.linears | {name: linear})


def _one_trit(weights: Weights) -> Weights:
    trits = weights.linears["blk.0.attn_v"].trits.copy()
    trits[5, 7] = (trits[5, 7] + 2) % 3 - 1
    return _with_linear(weights, "blk.0.attn_v", trits=trits)


def _one_scale(weights: Weights) -> Weights:
    scale = weights.linears["blk.1.ffn_down"].scale * np.float32(1.001)
    return _with_linear(weights, "blk.1.ffn_down", scale=scale)


def _one_gain(weights: Weights) -> Weights:
    gains = weights.vectors["blk.0.ffn_norm"].copy()
    gains[3] *= 1.01
    return replace(weights, vectors=weights.vectors | {"blk.0.ffn_norm": gains})


def _rope(weights: Weights) -> Weights:
    return replace(weights, shape=replace(weights.shape, rope_base=weights.shape.rope_base * 1.01))


def _eps(weights: Weights) -> Weights:
    return replace(weights, shape=replace(weights.shape, norm_eps=weights.shape.norm_eps * 1.2))


def _activation(weights: Weights) -> Weights:
    other = {"relu2": "silu", "silu": "relu2"}[weights.activation]
    return replace(weights, shape=replace(weights.shape, activation=other))


@pytest.mark.parametrize(
    "change",
    [_one_trit, _one_scale, _one_gain, _rope, _eps, _activation],
    ids=lambda f: f.__name__[1:],
)
@pytest.mark.parametrize("pair", ["2B-4T", "Llama3-8B-1.58"], indirect=True)
def test_the_comparison_notices_a_changed(
    change: Callable[[Weights], Weights], pair: Pair, tmp_path: Path
) -> None:
    path = oracle_models.write_gguf(tmp_path / "changed.gguf", change(pair.weights))
    agreement = pair.agreement(bitnet_cy.load(path, threads=1, kv_dtype="float32"))
    assert not agreement, agreement


def test_the_embedded_model_writes_the_same_text(tmp_path: Path) -> None:
    path = embedded_model()
    theirs = oracle.load(tmp_path / "checkpoint", oracle_models.read_gguf(path), oracle.AUTO)
    ours = bitnet_cy.load(path, threads=1, kv_dtype="float32")
    found, expected, equal, steps = [], [], 0, 0
    for text in ("Once upon a time", "The king said to his daughter", "In the dark forest"):
        ids = ours.tokenizer.encode(text)
        tokens, logits = oracle.generate(theirs, ids, 32)
        result = ours.generate(ids, max_new_tokens=32)
        equal += oracle_compare.equal_steps(result.token_ids, tokens, logits)
        steps += len(tokens)
        expected.append(logits)
        found.append(ours.logits([*ids, *tokens])[len(ids) - 1 : -1])
    agreement = oracle_compare.compare(found, expected)
    assert agreement.cosine >= oracle_compare.LEAST_COSINE, agreement
    assert equal >= steps / 2, f"{equal} of {steps}"
