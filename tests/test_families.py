"""Qwen3 and Gemma 3 in ternary form: converted, they compute what transformers computes.

Models whose weights alone are ternary agree to float rounding. Where activations are quantized,
`oracle_compare` says what agreement is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracle_compare
import pytest

import bitnet_cy
from bitnet_cy.convert import convert
from bitnet_cy.errors import ContextError, OptionError, UnsupportedError
from bitnet_cy.formats import gguf, ternary

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")
pytest.importorskip("accelerate", reason="accelerate, which loads BitNet folders, is missing")
oracle: Any = pytest.importorskip("oracle_families")

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(2, 320, length).tolist() for length in (1, 7, 33, 50)]
AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
ONLINE = AUTO | {"quantization_mode": "online"}
BITLINEAR = {"quant_method": "bitnet"}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "factor": 8.0}


def scaled_globally(scaling: dict[str, Any]) -> dict[str, Any]:
    """The rope_parameters of a Gemma whose layers that see everything have scaled positions."""
    local = {"rope_type": "default", "rope_theta": 1e4}
    return {"sliding_attention": local, "full_attention": scaling | {"rope_theta": 1e5}}


WEIGHT_ONLY = {
    "qwen3": (oracle.qwen3, {}, 0, "i2_s"),
    "qwen3 tq2_0": (oracle.qwen3, {"hidden_size": 256, "num_attention_heads": 8}, 0, "tq2_0"),
    "qwen3 untied": (oracle.qwen3, {"tie_word_embeddings": False, "head_dim": 96}, 0, "i2_s"),
    "qwen3 odd sizes": (
        oracle.qwen3,
        {"intermediate_size": 5460 // 12, "head_dim": 100},
        0,
        "i2_s",
    ),
    "qwen3 groups": (oracle.qwen3, {}, 128, "q2_0"),
    "qwen3 yarn": (oracle.qwen3, {"rope_parameters": YARN | {"rope_theta": 1e4}}, 0, "i2_s"),
    "gemma3": (oracle.gemma3, {}, 0, "i2_s"),
    "gemma3 yarn": (oracle.gemma3, {"rope_parameters": scaled_globally(YARN)}, 0, "i2_s"),
    "gemma3 linear": (oracle.gemma3, {"rope_parameters": scaled_globally(LINEAR)}, 0, "i2_s"),
    "gemma3 wide heads": (oracle.gemma3, {"head_dim": 256, "num_key_value_heads": 1}, 0, "i2_s"),
    "gemma3 pattern": (
        oracle.gemma3,
        {"layer_types": ["full_attention", "sliding_attention"] * 3, "num_hidden_layers": 6},
        0,
        "i2_s",
    ),
}
QUANTIZED = {
    "qwen3 packed": (oracle.qwen3, BITLINEAR, False),
    "qwen3 masters": (oracle.qwen3, ONLINE, True),
    "gemma3 packed": (oracle.gemma3, AUTO, False),
    "gemma3 masters": (oracle.gemma3, ONLINE, True),
}
# Few layers: each may carry a value over a rounding edge.
FEW = {
    oracle.qwen3: {"num_hidden_layers": 2},
    oracle.gemma3: {
        "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"],
    },
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("plain_torch")


def weight_only(case: str, folder: Path) -> tuple[Any, bitnet_cy.Model]:
    make, changes, group, kind = WEIGHT_ONLY[case]
    theirs = oracle.make_ternary(make(**changes), group)
    theirs.save_pretrained(folder / "hf")
    convert(folder / "hf", folder / "out.gguf", type=kind, with_vocabulary=False)
    return theirs, bitnet_cy.load(folder / "out.gguf", threads=2, kv_dtype="float32")


@pytest.mark.parametrize("case", WEIGHT_ONLY)
def test_weight_only_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    theirs, ours = weight_only(case, tmp_path)
    assert ours.config.activation_dtype == "float32"
    for ids in PROMPTS:
        expected = oracle.logits(theirs, ids)
        found = ours.logits(ids)
        assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()
        assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("kind", ["Q2_0", "Q2_0_128", "PQ2_0"])
def test_a_file_as_of_ternary_bonsai_runs_and_is_converted(kind: str, tmp_path: Path) -> None:
    """Everything but the norms ternary, with a scale for 128 weights, and positions by YaRN."""
    changes = {"tie_word_embeddings": False, "rope_parameters": YARN | {"rope_theta": 1e4}}
    theirs = oracle.make_ternary(oracle.qwen3(**changes), 128, everything=True)
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "a.gguf", type="q2_0", with_vocabulary=False)
    sources = []
    with gguf.read(tmp_path / "a.gguf") as file:
        for name, info in file.tensors.items():
            raw, stored = file.raw(name), info.type_name
            if len(info.shape) == 2:
                if stored in ternary.NAMES:
                    values = ternary.decode(stored, raw, *info.shape, grouped=True).dense()
                else:
                    values = file.array(name)
                scales = np.abs(values.reshape(len(values), -1, 128)).max(2)
                raw = ternary.encode(kind, np.sign(values).astype(np.int8), scales)
                stored = kind
            sources.append(gguf.TensorSource(name, info.shape, stored, raw))
        keys = {key: file.metadata.typed(key) for key in file.metadata}
        del keys["qwen3.activation_dtype"]
        gguf.write(tmp_path / "b.gguf", keys, sources)
    convert(tmp_path / "b.gguf", tmp_path / "c.gguf", type="q2_0", embedding="f16")
    for name in ("b.gguf", "c.gguf"):
        ours = bitnet_cy.load(tmp_path / name, threads=2, kv_dtype="float32")
        assert ours.config.activation_dtype == "float32"
        for ids in PROMPTS:
            expected = oracle.logits(theirs, ids)
            assert np.abs(ours.logits(ids) - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("case", QUANTIZED)
def test_quantized_models_with_input_norms_agree(case: str, tmp_path: Path) -> None:
    make, quantization, masters = QUANTIZED[case]
    theirs = oracle.quantized(make(**FEW[make]), tmp_path / "hf", quantization, masters)
    convert(tmp_path / "hf", tmp_path / "out.gguf", with_vocabulary=False)
    ours = bitnet_cy.load(tmp_path / "out.gguf", threads=2, kv_dtype="float32")
    assert (ours.config.activation_dtype, ours.config.input_norms) == ("int8", True)
    prompts = [ids for ids in PROMPTS if len(ids) < 40]
    agreement = oracle_compare.compare(
        [ours.logits(ids) for ids in prompts], [oracle.logits(theirs, ids) for ids in prompts]
    )
    assert agreement, agreement


@pytest.mark.parametrize("case", ["qwen3", "gemma3"])
def test_embeddings_are_pooled_hidden_states(case: str, tmp_path: Path) -> None:
    theirs, ours = weight_only(case, tmp_path)
    check_embeddings(theirs, ours)


def test_embeddings_of_a_model_that_sees_both_sides(tmp_path: Path) -> None:
    theirs = oracle.make_ternary(oracle.gemma3(use_bidirectional_attention=True, sliding_window=12))
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "out.gguf", with_vocabulary=False)
    ours = bitnet_cy.load(tmp_path / "out.gguf", threads=2)
    assert (ours.architecture, ours.config.causal) == ("gemma-embedding", False)
    check_embeddings(theirs, ours)
    with pytest.raises(UnsupportedError, match="both sides"):
        ours.logits([1, 2, 3])


def check_embeddings(theirs: Any, ours: bitnet_cy.Model) -> None:
    states = [oracle.hidden(theirs, ids) for ids in PROMPTS]
    pools = {
        "mean": [s.mean(0) for s in states],
        "cls": [s[0] for s in states],
        "last": [s[-1] for s in states],
    }
    for pooling, vectors in pools.items():
        expected = np.array(vectors)
        found = ours.embed(PROMPTS, pooling=pooling, normalize=False)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 3e-5 * np.abs(expected).max()
        lengths = np.linalg.norm(expected, axis=1, keepdims=True)
        unit = ours.embed(PROMPTS, pooling=pooling, batch_size=1)
        assert np.abs(unit - expected / lengths).max() < 1e-5


def test_a_text_s_embedding_is_the_same_whatever_is_beside_it(tmp_path: Path) -> None:
    _, ours = weight_only("gemma3", tmp_path)
    together = ours.embed(PROMPTS, pooling="mean")
    for place, ids in enumerate(PROMPTS):
        np.testing.assert_array_equal(ours.embed([ids], pooling="mean")[0], together[place])
    assert ours.embed([], pooling="mean").shape == (0, 128)


def test_embed_explains_what_it_cannot_do(tmp_path: Path) -> None:
    _, ours = weight_only("qwen3", tmp_path)
    with pytest.raises(OptionError, match="names no pooling.*mean, cls, last"):
        ours.embed([[1, 2]])
    with pytest.raises(OptionError, match="choose from mean, cls, last"):
        ours.embed([[1, 2]], pooling="max")
    with pytest.raises(OptionError, match="give a list of texts"):
        ours.embed("text", pooling="mean")
    with pytest.raises(OptionError, match="batch_size"):
        ours.embed([[1]], pooling="mean", batch_size=0)
    with pytest.raises(OptionError, match="no tokens"):
        ours.embed([[]], pooling="mean")
    with pytest.raises(ContextError):
        ours.embed([[1] * 129], pooling="mean")


def test_pooling_comes_from_the_checkpoint_and_such_models_write_no_text(tmp_path: Path) -> None:
    oracle.make_ternary(oracle.qwen3()).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "1_Pooling").mkdir()
    text = '{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false}'
    (tmp_path / "hf" / "1_Pooling" / "config.json").write_text(text)
    convert(tmp_path / "hf", tmp_path / "out.gguf", with_vocabulary=False)
    ours = bitnet_cy.load(tmp_path / "out.gguf")
    assert ours.config.pooling == "last"
    np.testing.assert_array_equal(ours.embed(PROMPTS), ours.embed(PROMPTS, pooling="last"))
    with pytest.raises(UnsupportedError, match="use embed"):
        ours.generate([1, 2])


@pytest.mark.parametrize("case", ["qwen3 packed", "gemma3 packed"])
def test_checkpoints_go_to_gguf_and_back(case: str, tmp_path: Path) -> None:
    make, quantization, masters = QUANTIZED[case]
    oracle.quantized(make(), tmp_path / "hf", quantization, masters)
    convert(tmp_path / "hf", tmp_path / "a.gguf", with_vocabulary=False)
    convert(tmp_path / "a.gguf", tmp_path / "back", type="hf")
    convert(tmp_path / "back", tmp_path / "b.gguf", with_vocabulary=False)
    first, second = (bitnet_cy.load(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    np.testing.assert_allclose(first.logits(PROMPTS[1]), second.logits(PROMPTS[1]), atol=1e-3)


@pytest.mark.parametrize("make", [oracle.qwen3, oracle.gemma3])
def test_scaled_positions_go_to_gguf_and_back(make: Any, tmp_path: Path) -> None:
    parameters = YARN | {"rope_theta": 1e4, "attention_factor": 1.25, "beta_fast": 8.0}
    changes = {"rope_parameters": parameters if make is oracle.qwen3 else scaled_globally(YARN)}
    theirs = oracle.quantized(make(**FEW[make] | changes), tmp_path / "hf", BITLINEAR, False)
    convert(tmp_path / "hf", tmp_path / "a.gguf", with_vocabulary=False)
    convert(tmp_path / "a.gguf", tmp_path / "back", type="hf")
    opened = type(theirs).from_pretrained(
        tmp_path / "back", dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    ids = PROMPTS[2]
    ours = bitnet_cy.load(tmp_path / "a.gguf", threads=2, kv_dtype="float32")
    expected = oracle.logits(theirs, ids)
    for found in (ours.logits(ids), oracle.logits(opened.eval(), ids)):
        assert oracle_compare.compare([found], [expected])


def test_a_weight_only_model_is_not_packed_for_programs_that_quantize(tmp_path: Path) -> None:
    weight_only("qwen3", tmp_path)
    with pytest.raises(UnsupportedError, match="quantize activations"):
        convert(tmp_path / "out.gguf", tmp_path / "back", type="hf")


def test_group_scales_need_float_activations(tmp_path: Path) -> None:
    weight_only("qwen3 groups", tmp_path)
    with pytest.raises(UnsupportedError, match="activation_dtype"):
        bitnet_cy.load(tmp_path / "out.gguf", activation_dtype="int8")
    with pytest.raises(OptionError, match="choose from int8, float32"):
        bitnet_cy.load(tmp_path / "out.gguf", activation_dtype="int4")
