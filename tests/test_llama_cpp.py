"""llama.cpp runs the same TQ1_0 and TQ2_0 files and writes the same tokens.

It quantizes activations by blocks of 256 (its type Q8_K), not by whole tokens. Where a layer's
input is one block, both are the same integers and logits agree exactly (`oracle_compare`). Where
it is more, llama.cpp's finer scales give other integers; how much that explains is shown by the
NumPy oracle, which agrees exactly with llama.cpp when it quantizes by blocks too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import model_vocabulary
import numpy as np
import oracle_compare
import oracle_llama_cpp
import oracle_models
import pytest
import reference
from model_vocabulary import LLAMA3_SPECIALS
from oracle_models import Weights

import bitnet_cy
import bitnet_cy.tokenizer
from bitnet_cy.formats import gguf
from bitnet_cy.model import embedded_model

pytest.importorskip("xllamacpp", reason="xllamacpp, which brings llama.cpp, is not installed")

COUNT = 24
BLOCK = 256
# What finer activation scales change: logits by about 0.25 of their spread, the cosine by 0.001.
NEAR_TIE_ACROSS, LEAST_COSINE_ACROSS = 0.4, 0.998
SILU_BITNET: dict[str, Any] = {"architecture": "bitnet", "kv_heads": 4}
LLAMA: dict[str, Any] = {"architecture": "llama", "tied": False}

SHARED = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"
SHARED_VOCABULARIES = (
    "vocab-llama-spm.gguf", "vocab-gpt-2.gguf", "vocab-falcon.gguf", "llama3.tiktoken",
)  # fmt: skip
TEXTS = (
    "", " ", "\n", "a\n\n b\t\tc\r\n", "Hello  world", "   three", "I'll can't WE'RE",
    "1234567 12 3", "日本語テキスト", "e\u0301 \u00e9", "👩\u200d👩\u200d👧 ok", "a <s> b</s>",
    "<|begin_of_text|>x<|eot_id|> <|endoftext|>y", "Once upon a time, there was.",
)  # fmt: skip
SCRIPTS = (
    (0x09, 0x0A), (0x20, 0x20), (0x30, 0x39), (0xA0, 0x17F), (0x300, 0x36F), (0x400, 0x4FF),
    (0x600, 0x6FF), (0x900, 0x97F), (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0xE000, 0xE010), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF),
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Pair:
    """One file, what llama.cpp generated with it, and its log-probabilities at each step."""

    weights: Weights
    path: Path
    prompts: list[list[int]]
    tokens: list[list[int]]
    expected: list[np.ndarray]

    def log_probabilities(self, logits: Any) -> list[np.ndarray]:
        """Of the function `logits`, at llama.cpp's steps."""
        found = []
        for prompt, tokens in zip(self.prompts, self.tokens, strict=True):
            z = np.asarray(logits([*prompt, *tokens])[len(prompt) - 1 : -1], np.float64)
            found.append(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))
        return found

    def ours(self) -> bitnet_cy.Model:
        return bitnet_cy.load(self.path, threads=1, kv_dtype="float32")


def run_both(path: Path, type_name: str, changes: dict[str, Any]) -> Pair:
    model = oracle_models.shape(**{"hidden": 256, "head_dim": 64} | changes)
    weights = oracle_models.random_weights(model, "silu", 0, half_scales=True)
    oracle_models.write_gguf(path, weights, type_name)
    prompts = [oracle_models.random_ids(model, 6, seed) for seed in range(6)]
    answers = oracle_llama_cpp.generate(path, prompts, COUNT, model.vocab_size)
    tokens, expected = zip(*answers, strict=True)
    return Pair(weights, path, prompts, list(tokens), list(expected))


@pytest.fixture(scope="module", params=["bitnet TQ2_0", "llama TQ2_0", "llama TQ1_0"])
def one_block(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Every layer has 256 inputs."""
    kind, type_name = request.param.split()
    path = tmp_path_factory.mktemp("one") / "model.gguf"
    return run_both(path, type_name, SILU_BITNET if kind == "bitnet" else LLAMA)


@pytest.fixture(scope="module", params=["bitnet", "llama"])
def blocks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Layers have 512 and 768 inputs."""
    path = tmp_path_factory.mktemp("blocks") / "model.gguf"
    changes = SILU_BITNET if request.param == "bitnet" else LLAMA
    return run_both(path, "TQ2_0", changes | {"hidden": 512, "head_dim": 128, "ffn": 768})


def test_logits_agree_where_quantization_is_the_same(one_block: Pair) -> None:
    found = one_block.log_probabilities(one_block.ours().logits)
    agreement = oracle_compare.compare(found, one_block.expected)
    assert agreement, agreement


def test_greedy_tokens_are_equal(one_block: Pair) -> None:
    assert share_of_equal_steps(one_block) >= oracle_compare.LEAST_EQUAL


def share_of_equal_steps(pair: Pair, near_tie: float = oracle_compare.NEAR_TIE) -> float:
    model, equal = pair.ours(), 0
    for prompt, tokens, expected in zip(pair.prompts, pair.tokens, pair.expected, strict=True):
        found = model.generate(prompt, max_new_tokens=COUNT).token_ids
        equal += oracle_compare.equal_steps(found, tokens, expected, near_tie)
    return equal / (COUNT * len(pair.prompts))


def test_logits_differ_by_the_quantization_where_it_differs(
    blocks: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "linear", linear_by_blocks)
    oracle = oracle_models.numpy_model(blocks.weights)
    agreement = oracle_compare.compare(blocks.log_probabilities(oracle.logits), blocks.expected)
    assert agreement, agreement
    ours = blocks.log_probabilities(blocks.ours().logits)
    across = oracle_compare.compare(ours, blocks.expected)
    assert across.exact < 0.01, across
    assert across.cosine >= LEAST_COSINE_ACROSS, across


def linear_by_blocks(x: np.ndarray, trits: np.ndarray, scale: float) -> np.ndarray:
    """reference.linear with the scales of ggml's Q8_K: one per token and 256 inputs."""
    total = np.zeros((len(x), len(trits)))
    for start in range(0, x.shape[1], BLOCK):
        q, s = reference.quantize(x[:, start : start + BLOCK])
        product = q.astype(np.float64) @ trits[:, start : start + BLOCK].T.astype(np.float64)
        total += product * (scale / s[:, None].astype(np.float64))
    return total


def test_greedy_tokens_are_equal_but_for_near_ties(blocks: Pair) -> None:
    assert share_of_equal_steps(blocks, NEAR_TIE_ACROSS) >= 0.25


@pytest.fixture(scope="module", params=[embedded_model().name, *SHARED_VOCABULARIES])
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that llama.cpp loads, with the vocabulary of a real one."""
    source = embedded_model()
    if request.param != source.name:
        source = SHARED / request.param
        if not SHARED.exists():
            pytest.skip(f"{source.name} is not beside the checkout")
    path = tmp_path_factory.mktemp("vocabulary") / "model.gguf"
    return oracle_models.write_dense_gguf(path, vocabulary_keys(source))


def vocabulary_keys(source: Path) -> dict[str, Any]:
    if source.suffix == ".tiktoken":
        keys = model_vocabulary.from_file(source, LLAMA3_SPECIALS).metadata("llama-bpe")
        return keys | {"tokenizer.ggml.bos_token_id": 128000, "tokenizer.ggml.add_bos_token": True}
    with gguf.read(source) as file:
        return {
            key: list(value) if key.endswith((".tokens", ".merges")) else value
            for key, value in file.metadata.items()
            if key.startswith("tokenizer.ggml.")
        }


def random_text(rng: np.random.Generator) -> str:
    """Runs of one to four characters, each of one script; half of them ASCII."""
    text = ""
    for _ in range(rng.integers(1, 12)):
        first, last = SCRIPTS[rng.integers(len(SCRIPTS))]
        if rng.random() < 0.5:
            first, last = 0x20, 0x7E
        text += "".join(map(chr, rng.integers(first, last + 1, rng.integers(1, 5))))
    return text


def test_token_ids_are_equal(vocabulary: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [*TEXTS, *(random_text(rng) for _ in range(200))]
    asked = [(text, special) for special in (False, True) for text in texts]
    tokenizer = bitnet_cy.tokenizer.load(vocabulary)
    expected = oracle_llama_cpp.tokenize(vocabulary, asked)
    for (text, special), ids in zip(asked, expected, strict=True):
        assert tokenizer.encode(text, parse_special=special) == ids, (text, special)
