"""Bad input to a conversion: one clear error, and nothing left behind."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import TensorSource, tiny

from bitnet_cy.convert import convert, encoding
from bitnet_cy.errors import (
    BitNetError,
    FormatError,
    OptionError,
    ResourceError,
    UnsupportedError,
)
from bitnet_cy.formats import floats, gguf, streaming

QUERY = "model.layers.0.self_attn.q_proj.weight"
SCALE = f"{QUERY}_scale"
NORM = "model.norm.weight"
EMBEDDING = "model.embed_tokens.weight"


def refused(
    source: Path, words: str, error: type[BitNetError] = FormatError, **options: Any
) -> None:
    """The conversion fails with this error, in a sentence, and leaves no file."""
    folder = source.parent
    before = sorted(folder.rglob("*"))
    with pytest.raises(error, match=words) as caught:
        convert(source, folder / "out", **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before


def f32(name: str, values: Any, shape: tuple[int, ...]) -> TensorSource:
    filled = np.broadcast_to(np.asarray(values, np.float32), shape)
    return TensorSource(name, shape, "F32", floats.encode("F32", filled))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "holds .nan.; one positive number"),
        (np.inf, "holds .inf."),
        (-1.0, "holds .-1.0."),
        (0.0, "holds .0.0."),
    ],
)
@pytest.mark.parametrize("architecture", ["bitnet-b1.58", "llama"])
def test_a_scale_must_be_a_positive_number(
    architecture: str, value: float, words: str, tmp_path: Path
) -> None:
    folder = tiny(architecture)
    tensors = folder.tensors() | {SCALE: f32(SCALE, value, (1,))}
    refused(folder.write(tmp_path / "hf", tensors), words)


def test_a_scale_must_have_a_finite_inverse(tmp_path: Path) -> None:
    folder = tiny("llama")
    tensors = folder.tensors() | {SCALE: f32(SCALE, 1e-44, (1,))}
    refused(folder.write(tmp_path / "hf", tensors), "too small to divide by")


def test_a_scale_must_be_there_once(tmp_path: Path) -> None:
    folder = tiny()
    tensors = folder.tensors() | {SCALE: f32(SCALE, 1, (2,))}
    refused(folder.write(tmp_path / "two" / "hf", tensors), "one positive number")
    del tensors[SCALE]
    refused(folder.write(tmp_path / "none" / "hf", tensors), f"no tensor {SCALE}")


def test_code_3_is_no_trit(tmp_path: Path) -> None:
    folder = tiny()
    tensors = folder.tensors()
    tensors["model.layers.1.mlp.up_proj.weight"].data[3, 5] |= 3
    refused(folder.write(tmp_path / "hf", tensors), "layers.1.mlp.up_proj.*code 3")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_must_be_finite(value: float, tmp_path: Path) -> None:
    folder = tiny()
    for name in (NORM, EMBEDDING):
        tensors = folder.tensors()
        tensors[name] = f32(name, value, tensors[name].shape)
        refused(folder.write(tmp_path / name / "hf", tensors), f"{name}: holds values that")
    folder = tiny(form="masters")
    tensors = folder.tensors()
    tensors[QUERY] = f32(QUERY, value, tensors[QUERY].shape)
    refused(folder.write(tmp_path / "hf", tensors), f"{QUERY}: holds weights that are not finite")


def test_dtypes_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny()
    for name, dtype, size in ((QUERY, "I32", 4), (NORM, "F64", 8), (NORM, "U8", 1)):
        tensors = folder.tensors()
        shape = (256, 256) if name == QUERY else (256,)
        count = int(np.prod(shape)) * size
        tensors[name] = TensorSource(name, shape, dtype, np.ones(count, np.uint8))
        words = f"{name} has dtype {dtype}; F32, F16, BF16"
        refused(folder.write(tmp_path / dtype / "hf", tensors), words, UnsupportedError)


def test_shapes_must_follow_from_the_configuration(tmp_path: Path) -> None:
    for key, value in (
        ("intermediate_size", 512),
        ("num_key_value_heads", 4),
        ("vocab_size", 1000),
        ("head_dim", 32),
    ):
        folder = tiny()
        folder.changes = {key: value}
        refused(folder.write(tmp_path / key / "hf"), "shape .* follows from config.json")


def test_tensors_must_be_there_and_no_others(tmp_path: Path) -> None:
    folder = tiny()
    tensors = folder.tensors()
    del tensors[NORM]
    refused(folder.write(tmp_path / "a" / "hf", tensors), f"no tensor {NORM}")
    bias = "model.layers.0.self_attn.q_proj.bias"
    tensors = folder.tensors() | {bias: f32(bias, 0, (256,))}
    refused(folder.write(tmp_path / "b" / "hf", tensors), f"has tensor {bias}", UnsupportedError)
    folder.changes = {"num_hidden_layers": 1}
    refused(folder.write(tmp_path / "c" / "hf"), "layers.1.*would change", UnsupportedError)


def test_a_second_head_is_not_dropped(tmp_path: Path) -> None:
    folder = tiny()
    tensors = folder.tensors() | {"lm_head.weight": f32("lm_head.weight", 1, (896, 256))}
    refused(folder.write(tmp_path / "hf", tensors), "lm_head.weight differs")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'gptq'"),
        ({"quantization_config": {"quant_method": "bitnet", "linear_class": "x"}}, "'x'"),
        (
            {"quantization_config": {"quant_method": "bitnet", "quantization_mode": "y"}},
            "quantization_mode 'y'",
        ),
        ({"quantization_config": checkpoints.AUTO | {"use_rms_norm": True}}, "use_rms_norm"),
        ({"architectures": ["GPT2LMHeadModel"]}, "'GPT2LMHeadModel'"),
        ({"architectures": []}, "architecture None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'llama3'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ],
)
def test_models_of_other_kinds_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = tiny()
    folder.changes = changes
    refused(folder.write(tmp_path / "hf"), words, UnsupportedError)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": "absent"}, "hidden_size is missing"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_attention_heads": 2.5}, "num_attention_heads is 2.5"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
        ({"rope_theta": "much"}, "rope_theta is 'much'"),
        ({"rope_theta": 10**400}, "rope_theta is 1000"),
        ({"rope_scaling": 7}, "rope_scaling is 7"),
        ({"quantization_config": 5}, "quantization_config is 5"),
        ({"quantization_config": "absent"}, "no quantization_config"),
    ],
)
def test_damaged_configurations_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = tiny()
    folder.changes = changes
    refused(folder.write(tmp_path / "hf"), words)


def test_incomplete_and_pickled_folders_are_refused(tmp_path: Path) -> None:
    folder = tiny()
    folder.shards = 3
    path = folder.write(tmp_path / "a" / "hf")
    (path / "model-00002-of-00003.safetensors").unlink()
    refused(path, "model-00002-of-00003.safetensors is missing")
    path = tiny().write(tmp_path / "b" / "hf")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    refused(path, "pickled", UnsupportedError)
    (path / "pytorch_model.bin").unlink()
    refused(path, "holds no weights")
    path = tiny().write(tmp_path / "c" / "hf")
    (path / "tokenizer.json").unlink()
    refused(path, "no vocabulary")
    refused(tmp_path / "c" / "nothing", "no such file or folder")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_files_are_not_even_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Path.cwd()))
    path.chmod(0)
    refused(path, "is pickled, which can run any program", UnsupportedError)


def test_a_file_of_a_checkpoint_is_refused_for_its_folder(tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "hf") / "model.safetensors"
    refused(path, "give its folder", OptionError)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tiny().write(tmp_path / "hf") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    refused(path.parent, "truncated")


def test_more_tokens_than_rows_of_the_embedding_are_refused(tmp_path: Path) -> None:
    path = tiny(vocab_size=320).write(tmp_path / "hf")
    checkpoints.write_vocabulary(path)
    refused(path, "860 tokens and embeddings for 320")


def test_dense_gguf_files_are_refused(tmp_path: Path) -> None:
    convert(tiny().write(tmp_path / "hf"), tmp_path / "a.gguf", type="f16")
    with gguf.read(tmp_path / "a.gguf") as file:
        dense = floats.encode("F16", np.random.default_rng(0).normal(size=(256, 256)))
        sources = [
            gguf.TensorSource(
                name, info.shape, info.type_name, dense if "0.attn_q." in name else file.raw(name)
            )
            for name, info in file.tensors.items()
        ]
        gguf.write(tmp_path / "b.gguf", {k: file.metadata.typed(k) for k in file.metadata}, sources)
    refused(tmp_path / "b.gguf", r"attn_q.* (100|9\d)\.\d\d% of its weights", UnsupportedError)


def test_types_that_cannot_hold_the_rows_are_refused(tmp_path: Path) -> None:
    source = tiny(hidden=128).write(tmp_path / "hf")
    refused(source, "rows of 128 weights, which TQ2_0", UnsupportedError, type="tq2_0")
    refused(source, "which Q6_K", UnsupportedError, embedding="q6_k")


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    source = tiny().write(tmp_path / "hf")
    refused(source, "type is 'q4_0'; choose from i2_s", OptionError, type="q4_0")
    refused(source, "embedding is 'q4_0'", OptionError, embedding="q4_0")
    refused(source, "checkpoint folder holds", OptionError, type="hf", embedding="q8_0")
    convert(source, tmp_path / "q8.gguf", embedding="q8_0")
    refused(tmp_path / "q8.gguf", "type Q8_0, which a checkpoint", OptionError, type="hf")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    source = tiny().write(tmp_path / "hf")
    convert(source, tmp_path / "a.gguf")
    (tmp_path / "notes").mkdir()
    before = (tmp_path / "a.gguf").read_bytes()
    for out, options, words in (
        (tmp_path / "a.gguf", {}, "already exists"),
        (tmp_path / "notes", {"force": True}, "is a directory"),
        (tmp_path / "notes", {"force": True, "type": "hf"}, "no checkpoint folder"),
        (source, {"force": True, "type": "hf"}, "is the source"),
        (tmp_path / "none" / "a.gguf", {}, "no such folder"),
    ):
        with pytest.raises(OptionError, match=words):
            convert(source, out, **options)
    assert (tmp_path / "a.gguf").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "hf", "notes"]


def test_a_full_disk_is_told_before_and_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny().write(tmp_path / "hf")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for type_ in ("i2_s", "hf"):
        with monkeypatch.context() as patch:
            patch.setattr(streaming.os, "replace", full)
            refused(source, "No space left", ResourceError, type=type_)
        with monkeypatch.context() as patch:
            usage = namedtuple("usage", "free")(1000)
            patch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
            refused(source, "has 1,000 left", ResourceError, type=type_)


@pytest.mark.parametrize("type_", ["i2_s", "hf"])
def test_a_wrong_trit_is_noticed_and_nothing_appears(
    type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitnet_cy.convert import folder_target

    source = tiny().write(tmp_path / "hf")
    encode, pack = encoding.ternary.encode, folder_target.pack_quarters

    def wrong(trits: np.ndarray) -> np.ndarray:
        trits = trits.copy()
        trits[7, 9] = (trits[7, 9] + 2) % 3 - 1
        return trits

    monkeypatch.setattr(
        encoding.ternary, "encode", lambda kind, trits, scale: encode(kind, wrong(trits), scale)
    )
    monkeypatch.setattr(folder_target, "pack_quarters", lambda trits: pack(wrong(trits)))
    refused(source, "q_proj.weight: is written wrongly: 1 trits differ", type=type_)


def test_a_wrong_scale_or_value_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny().write(tmp_path / "hf")
    encode = encoding.ternary.encode
    with monkeypatch.context() as patch:
        patch.setattr(
            encoding.ternary, "encode",
            lambda kind, trits, scale: encode(kind, trits, scale * np.float32(1 + 2**-22)),
        )  # fmt: skip
        refused(source, "its scale is off")
    to_floats = floats.encode
    for name, error in (("f16", 2e-3), ("q8_0", 0.03), ("q6_k", 0.1)):
        with monkeypatch.context() as patch:
            patch.setattr(
                encoding.floats, "encode",
                lambda kind, values, error=error: to_floats(kind, values * np.float32(1 + error)),
            )  # fmt: skip
            refused(source, "a value is off", embedding=name)


def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny().write(tmp_path / "hf")
    from bitnet_cy.convert.progress import Progress

    monkeypatch.setattr(Progress, "advance", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for type_ in ("i2_s", "hf"):
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", type=type_)
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_damaged_gguf_files_are_refused(tmp_path: Path) -> None:
    convert(tiny().write(tmp_path / "hf"), tmp_path / "a.gguf")
    whole = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "b.gguf").write_bytes(whole[:-100])
    refused(tmp_path / "b.gguf", "truncated")
    with gguf.read(tmp_path / "a.gguf") as file:
        info = file.tensors["blk.1.ffn_down.weight"]
    for at, bad, words in (
        (info.offset + 7, b"\xff", "ffn_down.*code 3"),
        (info.offset + info.nbytes - 32, np.float32(np.nan).tobytes(), "scale is nan"),
    ):
        (tmp_path / "b.gguf").write_bytes(whole[:at] + bad + whole[at + len(bad) :])
        refused(tmp_path / "b.gguf", words)


def test_index_files_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = tiny()
    folder.shards = 2
    path = folder.write(tmp_path / "hf")
    index = path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": weight_map | {NORM: "../x.safetensors"}}))
    refused(path, "no plain name")
