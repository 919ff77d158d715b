"""Metadata to ModelConfig, tensors to networks: the choices and the refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import make_model
import numpy as np
import pytest

from bitnet_cy import architectures
from bitnet_cy.engine import Session
from bitnet_cy.errors import BitNetError, FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import gguf, ternary

IDS = list(range(5, 25))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    make_model.make("tiny", path)
    return path


def rewritten(
    source: Path, target: Path, changes: dict[str, Any], tensors: dict[str, Any] | None = None
) -> Path:
    """A copy with metadata keys changed (None removes one) and tensors replaced."""
    with gguf.read(source) as file:
        metadata = {**file.metadata, **changes}
        sources = [
            gguf.TensorSource(name, info.shape, info.type_name, np.array(file.raw(name)))
            for name, info in file.tensors.items()
        ]
    replaced = tensors or {}
    sources = [replaced.get(source.name, source) for source in sources]
    gguf.write(
        target,
        {key: value for key, value in metadata.items() if value is not None},
        [source for source in sources if source is not None],
    )
    return target


def renamed(source: Path, target: Path, architecture: str) -> Path:
    with gguf.read(source) as file:
        old = file.metadata["general.architecture"]
        keys = [key for key in file.metadata if key.startswith(f"{old}.")]
        changes: dict[str, Any] = dict.fromkeys(keys)
        changes |= {architecture + key[len(old) :]: file.metadata[key] for key in keys}
    return rewritten(source, target, {**changes, "general.architecture": architecture})


def logits(path: Path) -> np.ndarray:
    with gguf.read(path) as file:
        network, _ = architectures.build(file, architectures.describe(file))
    return Session(network, context_length=64).forward(IDS, "all")


@pytest.mark.parametrize("architecture", ["bitnet", "bitnet-25", "bitnet-b1.58"])
def test_every_spelling_of_bitnet_opens(tiny: Path, tmp_path: Path, architecture: str) -> None:
    path = renamed(tiny, tmp_path / "renamed.gguf", architecture)
    with gguf.read(path) as file:
        config = architectures.describe(file)
    assert (config.architecture, config.sub_norms, config.rope_interleaved) == (
        architecture, True, False,
    )  # fmt: skip
    np.testing.assert_array_equal(logits(path), logits(tiny))


def test_activation_user_then_file_then_rule(tiny: Path, tmp_path: Path) -> None:
    with gguf.read(tiny) as file:
        assert architectures.describe(file).activation == "relu2"
        assert architectures.describe(file, activation="silu").activation == "silu"
        with pytest.raises(OptionError, match="relu2, silu"):
            architectures.describe(file, activation="tanh")
        prefix = file.metadata["general.architecture"]
    named = rewritten(tiny, tmp_path / "named.gguf", {f"{prefix}.hidden_activation": "silu"})
    with gguf.read(named) as file:
        assert architectures.describe(file).activation == "silu"


def test_1bitllm_models_use_silu(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    make_model.make("bitnet-large", path, layers=1)
    with gguf.read(path) as file:
        config = architectures.describe(file)
    assert (config.activation, config.head_dim, config.n_kv_heads) == ("silu", 96, 16)


@pytest.mark.parametrize("type_name", ["TQ1_0", "TQ2_0"])
def test_other_ternary_types_give_the_logits_of_i2_s(tmp_path: Path, type_name: str) -> None:
    paths = [tmp_path / f"{name}.gguf" for name in ("i2_s", type_name)]
    make_model.make("tiny", paths[0])
    with gguf.read(paths[0]) as file:
        replaced = {}
        for name, info in file.tensors.items():
            if info.type_name == "I2_S":
                found = ternary.decode("I2_S", file.raw(name), *info.shape)
                scale = np.float32(np.float16(found.scale))  # what the type can hold
                for target, kind in (("I2_S", "I2_S"), (type_name, type_name)):
                    raw = ternary.encode(kind, found.trits, scale)
                    replaced[target, name] = gguf.TensorSource(name, info.shape, kind, raw)
    made = [
        rewritten(paths[0], tmp_path / f"{kind}-half.gguf", {},
                  {name: source for (target, name), source in replaced.items() if target == kind})
        for kind in ("I2_S", type_name)
    ]  # fmt: skip
    np.testing.assert_array_equal(logits(made[0]), logits(made[1]))


def test_i2_s_weights_stay_in_the_file(tiny: Path) -> None:
    with gguf.read(tiny) as file:
        info = file.tensors["blk.0.ffn_up.weight"]
        stored = ternary.rows_as_stored("I2_S", file.raw("blk.0.ffn_up.weight"), *info.shape)
        assert stored is not None
        assert np.shares_memory(stored[0], file.raw("blk.0.ffn_up.weight"))


def refused(path: Path, error: type[BitNetError], words: str) -> None:
    with gguf.read(path) as file, pytest.raises(error, match=words):
        architectures.build(file, architectures.describe(file))


def test_an_unknown_architecture_is_named(tiny: Path, tmp_path: Path) -> None:
    refused(
        renamed(tiny, tmp_path / "m.gguf", "mamba"), UnsupportedError, "'mamba'.*bitnet_cy runs"
    )


def test_a_dense_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    with gguf.read(tiny) as file:
        shape = file.tensors["blk.0.attn_q.weight"].shape
    dense = gguf.TensorSource(
        "blk.0.attn_q.weight", shape, "F16", np.ones(shape, np.float16).view(np.uint8).reshape(-1)
    )
    path = rewritten(tiny, tmp_path / "dense.gguf", {}, {"blk.0.attn_q.weight": dense})
    refused(path, UnsupportedError, "blk.0.attn_q.weight has type F16.*not a ternary model")


def test_a_missing_tensor_is_named(tiny: Path, tmp_path: Path) -> None:
    path = rewritten(tiny, tmp_path / "m.gguf", {}, {"blk.1.ffn_norm.weight": None})
    refused(path, FormatError, "no tensor blk.1.ffn_norm.weight")


def test_damaged_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    with gguf.read(tiny) as file:
        info = file.tensors["blk.0.ffn_up.weight"]
        raw = np.array(file.raw(info.name))
        norm = np.full(file.tensors["output_norm.weight"].shape, np.nan, np.float32)
    code_3, bad_scale = raw.copy(), raw.copy()
    code_3[777] = 0b11000000
    bad_scale[raw.size - 32 :][:4] = np.array([np.nan], "<f4").view(np.uint8)
    for place, (damaged, words) in enumerate([(code_3, "code 3"), (bad_scale, "scale")]):
        source = gguf.TensorSource(info.name, info.shape, "I2_S", damaged)
        path = rewritten(tiny, tmp_path / f"{place}.gguf", {}, {info.name: source})
        refused(path, FormatError, words)
    source = gguf.TensorSource("output_norm.weight", norm.shape, "F32", norm.view(np.uint8))
    path = rewritten(tiny, tmp_path / "nan.gguf", {}, {"output_norm.weight": source})
    refused(path, FormatError, "NaN")


@pytest.mark.parametrize(
    ("suffix", "value", "words"),
    [
        ("block_count", None, "block_count is missing"),
        ("block_count", 2**23, "no tensor blk"),
        ("attention.head_count", 0, "count is needed"),
        ("attention.head_count_kv", 3, "cannot share|follows from"),
        ("embedding_length", "wide", "count is needed"),
        ("feed_forward_length", 100, "follows from the metadata"),
        ("attention.layer_norm_rms_epsilon", float("nan"), "positive number"),
        ("rope.freq_base", -1.0, "positive number"),
        ("rope.scaling.type", "longrope", "rope scaling 'longrope'.*linear and yarn"),
        ("hidden_activation", "tanh", "'tanh'"),
    ],
)
def test_absurd_metadata_is_refused(
    tiny: Path, tmp_path: Path, suffix: str, value: Any, words: str
) -> None:
    with gguf.read(tiny) as file:
        prefix = file.metadata["general.architecture"]
    path = rewritten(tiny, tmp_path / "m.gguf", {f"{prefix}.{suffix}": value})
    refused(path, BitNetError, words)
