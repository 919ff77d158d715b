"""Conversions: every form of checkpoint in, every type out, and back, trit by trit."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import oracle_models
import pytest
from checkpoints import Folder, linear, tiny

import bitnet_cy
from bitnet_cy.convert import Report, convert
from bitnet_cy.convert.masters import Matrix, absmean
from bitnet_cy.errors import UnsupportedError
from bitnet_cy.formats import checkpoint, floats, gguf, safetensors, ternary

FAMILIES = ("bitnet-b1.58", "llama")
# The first 8 x 4 trits of the golden matrix, packed as transformers packs them.
GOLDEN_TRITS = np.array(
    [[-1, 0, 0, -1], [0, 0, 0, 1], [0, -1, 0, 0], [1, -1, -1, 0],
     [0, 1, -1, -1], [0, 0, 1, 1], [1, 0, 0, 0], [-1, 0, 1, -1]], np.int8
)  # fmt: skip
GOLDEN_PACKED = bytes.fromhex("946145441951a126")


def check_linears(path: Path, folder: Folder, tolerance: float = 0.0) -> None:
    with gguf.read(path) as file:
        for name in folder.weights.linears:
            expected = linear(folder.weights, name)
            info = file.tensors[f"{name}.weight"]
            found = ternary.decode(info.type_name, file.raw(info.name), *info.shape)
            assert np.array_equal(found.trits, expected.trits), name
            np.testing.assert_allclose(found.scale, expected.scale, rtol=tolerance, err_msg=name)


def same_trits(a: Path, b: Path) -> None:
    with gguf.read(a) as first, gguf.read(b) as second:
        assert list(first.tensors) == list(second.tensors)
        for name, info in first.tensors.items():
            assert second.tensors[name].type_name == info.type_name
            assert np.array_equal(first.raw(name), second.raw(name)), name


def row(report: Report, part: str) -> Any:
    return next(row for row in report.rows if row.part == part)


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("type_name", ["I2_S", "TQ1_0", "TQ2_0"])
def test_packed_weights_keep_every_trit(architecture: str, type_name: str, tmp_path: Path) -> None:
    folder = tiny(architecture)
    out = tmp_path / "out.gguf"
    convert(folder.write(tmp_path / "hf"), out, type=type_name.lower())
    check_linears(out, folder, 2.0**-11 if type_name != "I2_S" else 2.0**-23)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("spelling", ["BitNetForCausalLM", "BitnetForCausalLM"])
def test_masters_are_quantized_by_their_mean(dtype: str, spelling: str, tmp_path: Path) -> None:
    folder = tiny(form="masters")
    folder.dtype, folder.spelling = dtype, spelling
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf", embedding="f16")
    with gguf.read(tmp_path / "out.gguf") as file:
        for name, weight in folder.weights.linears.items():
            stored = floats.decode(dtype, floats.encode(dtype, weight.masters), weight.trits.shape)
            inverse = 1 / np.abs(stored).mean(dtype=np.float64)
            info = file.tensors[f"{name}.weight"]
            found = ternary.decode("I2_S", file.raw(info.name), *info.shape)
            assert np.array_equal(found.trits, np.rint(stored * inverse).clip(-1, 1))
            assert float(found.scale) == pytest.approx(1 / inverse, rel=1e-6)


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_weights_that_are_ternary_already_keep_their_scale(
    architecture: str, dtype: str, tmp_path: Path
) -> None:
    """Their mean is not their scale, because of the zeros."""
    folder = tiny(architecture, "ternary")
    folder.dtype, folder.quantization = dtype, None
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    error = {"F32": 0, "F16": 2.0**-11, "BF16": 2.0**-8}[dtype]
    check_linears(tmp_path / "out.gguf", folder, error)


def test_masters_of_a_llama_model_are_taken_only_on_request(tmp_path: Path) -> None:
    folder = tiny("llama", "masters")
    path = folder.write(tmp_path / "hf")
    with pytest.raises(UnsupportedError, match=r"q_proj.*is not ternary: (100\.00|99\.\d\d)%"):
        convert(path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
    convert(path, tmp_path / "out.gguf", from_masters=True)
    check_linears(tmp_path / "out.gguf", folder, 1e-6)


def test_a_configuration_that_names_bitnet_says_that_weights_are_masters(tmp_path: Path) -> None:
    folder = tiny("llama", "masters")
    folder.quantization = checkpoints.AUTO | {"quantization_mode": "online"}
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    check_linears(tmp_path / "out.gguf", folder, 1e-6)


def test_names_of_1bitllm_and_names_without_a_prefix_are_known(tmp_path: Path) -> None:
    folder = tiny("bitnet", "masters", kv_heads=4)
    folder.names = {k: v.removeprefix("model.") for k, v in checkpoints.NAMES_1BITLLM.items()}
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    check_linears(tmp_path / "out.gguf", folder, 1e-6)
    with gguf.read(tmp_path / "out.gguf") as file:
        assert file.metadata["general.architecture"] == "bitnet"
        assert file.metadata["bitnet.hidden_activation"] == "silu"


def test_files_in_parts_give_the_same_model(tmp_path: Path) -> None:
    folder = tiny()
    convert(folder.write(tmp_path / "a" / "hf"), tmp_path / "a.gguf")
    folder.shards = 3
    convert(folder.write(tmp_path / "b" / "hf"), tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("type_", ["f16", "bf16"])
def test_dequantized_files_hold_the_weights_and_convert_back(
    architecture: str, type_: str, tmp_path: Path
) -> None:
    folder = tiny(architecture, half_scales=True)
    dense, back = tmp_path / "dense.gguf", tmp_path / "back.gguf"
    convert(folder.write(tmp_path / "hf"), dense, type=type_)
    with gguf.read(dense) as file:
        assert file.metadata["general.file_type"] == {"f16": 1, "bf16": 32}[type_]
        for name in folder.weights.linears:
            expected = linear(folder.weights, name)
            values = file.array(f"{name}.weight")
            np.testing.assert_allclose(values, expected.trits * expected.scale, rtol=2.0**-8)
    convert(dense, back)
    check_linears(back, folder, 2.0**-22 if type_ == "f16" else 2.0**-8)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_checkpoint_comes_back_from_gguf_byte_for_byte(architecture: str, tmp_path: Path) -> None:
    folder = tiny(architecture)
    first = folder.write(tmp_path / "hf")
    convert(first, tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "back", type="hf")
    convert(tmp_path / "back", tmp_path / "b.gguf")
    same_trits(tmp_path / "a.gguf", tmp_path / "b.gguf")
    with checkpoint.read(first) as source, checkpoint.read(tmp_path / "back") as back:
        assert set(source.tensors) == set(back.tensors)
        for name, info in source.tensors.items():
            if info.dtype == "U8":
                assert np.array_equal(source.raw(name), back.raw(name)), name
            else:
                np.testing.assert_allclose(source.array(name), back.array(name), rtol=2.0**-22)
        direction = back.config["quantization_config"]["linear_class"]
    assert direction == ("bitlinear" if architecture == "llama" else "autobitlinear")


@pytest.mark.parametrize("through", ["tq1_0", "tq2_0"])
def test_i2_s_comes_back_from_blocks_byte_for_byte(through: str, tmp_path: Path) -> None:
    """Scales that float16 can hold, as those of published checkpoints, come back too."""
    convert(tiny(half_scales=True).write(tmp_path / "hf"), tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "blocks.gguf", type=through)
    convert(tmp_path / "blocks.gguf", tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(("architecture", "multiplies"), [("bitnet-b1.58", 1), ("llama", 0)])
def test_golden_bytes_of_packed_weights(architecture: str, multiplies: int, tmp_path: Path) -> None:
    folder = tiny(architecture, half_scales=True)
    name = "blk.0.attn_v"
    trits = folder.weights.linears[name].trits
    trits[:] = 0
    for quarter in range(4):
        trits[quarter * len(trits) // 4 :][:2, :4] = GOLDEN_TRITS[2 * quarter : 2 * quarter + 2]
    packed = folder.tensors()["model.layers.0.self_attn.v_proj.weight"].data
    assert packed[:2, :4].tobytes() == GOLDEN_PACKED
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    check_linears(tmp_path / "out.gguf", folder, 0 if multiplies else 2.0**-23)


def f32_matrix(weights: np.ndarray) -> Matrix:
    return Matrix("F32", weights.shape, lambda: iter([weights.view(np.uint32)]))


def test_absmean_rounds_halves_to_even() -> None:
    weights = np.array([[0.5, 1.5, -0.5, 1.5, 1, 1, 1, 1]], np.float32)  # the mean is 1
    found = absmean(f32_matrix(weights))
    assert found.trits.tolist() == [[0, 1, 0, 1, 1, 1, 1, 1]]
    assert found.scale == 1
    tiny_ones = np.full((1, 8), 1e-7, np.float32)
    assert absmean(f32_matrix(tiny_ones)).scale == np.float32(1e-5)


@pytest.mark.parametrize("embedding", ["f16", "bf16", "q8_0", "q6_k"])
def test_embedding_and_head_get_the_type_asked_for(embedding: str, tmp_path: Path) -> None:
    folder = tiny("llama")
    report = convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf", embedding=embedding)
    with gguf.read(tmp_path / "out.gguf") as file:
        for name in ("token_embd", "output"):
            assert file.tensors[f"{name}.weight"].type_name == embedding.upper()
            values, expected = file.array(f"{name}.weight"), folder.weights.matrices[name]
            assert np.abs(values - expected).max() < np.abs(expected).max() / 28
            assert 0 < row(report, name).error < 1 / 28
    assert bitnet_cy.load(tmp_path / "out.gguf").config.tied_head is False


def test_an_embedding_is_kept_bit_by_bit_unless_another_type_is_asked_for(tmp_path: Path) -> None:
    folder = tiny()
    folder.dtype = "BF16"
    convert(folder.write(tmp_path / "hf"), tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", embedding="q8_0")
    convert(tmp_path / "b.gguf", tmp_path / "c.gguf", type="tq2_0")
    stored = folder.tensors()["model.embed_tokens.weight"].data
    for name, type_name in (("a", "BF16"), ("b", "Q8_0"), ("c", "Q8_0")):
        with gguf.read(tmp_path / f"{name}.gguf") as file:
            assert file.tensors["token_embd.weight"].type_name == type_name
            if name == "a":
                assert np.array_equal(file.raw("token_embd.weight"), stored)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_converted_model_runs_like_one_made_directly(architecture: str, tmp_path: Path) -> None:
    folder = tiny(architecture)
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    direct = oracle_models.write_gguf(tmp_path / "direct.gguf", folder.weights)
    ids = oracle_models.random_ids(folder.weights.shape, 12, 0)
    found = bitnet_cy.load(tmp_path / "out.gguf", threads=1).logits(ids)
    expected = bitnet_cy.load(direct, threads=1, activation=folder.weights.activation).logits(ids)
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.std())


def test_metadata_describe_the_model(tmp_path: Path) -> None:
    folder = tiny(rope_base=500000.0, heads=4, head_dim=32)
    convert(folder.write(tmp_path / "name of it"), tmp_path / "out.gguf")
    with gguf.read(tmp_path / "out.gguf") as file:
        keys = {k: file.metadata[k] for k in file.metadata if not k.startswith("tokenizer")}
    assert keys.pop("bitnet-b1.58.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert keys == {
        "general.architecture": "bitnet-b1.58",
        "general.name": "name of it",
        "general.file_type": 40,
        "general.quantization_version": 2,
        "bitnet-b1.58.vocab_size": 896,
        "bitnet-b1.58.context_length": 128,
        "bitnet-b1.58.embedding_length": 256,
        "bitnet-b1.58.block_count": 2,
        "bitnet-b1.58.feed_forward_length": 256,
        "bitnet-b1.58.rope.dimension_count": 32,
        "bitnet-b1.58.attention.head_count": 4,
        "bitnet-b1.58.attention.head_count_kv": 2,
        "bitnet-b1.58.attention.key_length": 32,
        "bitnet-b1.58.attention.value_length": 32,
        "bitnet-b1.58.rope.freq_base": 500000.0,
        "bitnet-b1.58.hidden_activation": "relu2",
    }


def test_types_of_llama_cpp_get_the_architecture_it_knows(tmp_path: Path) -> None:
    convert(tiny().write(tmp_path / "hf"), tmp_path / "a.gguf")
    report = convert(tmp_path / "a.gguf", tmp_path / "b.gguf", type="tq2_0")
    assert any("llama.cpp runs every bitnet model with SiLU" in note for note in report.notes)
    with gguf.read(tmp_path / "b.gguf") as file:
        assert file.metadata["general.architecture"] == "bitnet"
        assert file.metadata["bitnet.hidden_activation"] == "relu2"
        assert not [key for key in file.metadata if key.startswith("bitnet-b1.58.")]
    assert bitnet_cy.load(tmp_path / "b.gguf").config.activation == "relu2"


def test_the_report_counts_what_is_in_the_file(tmp_path: Path) -> None:
    folder = tiny()
    report = convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    assert report.path == tmp_path / "out.gguf"
    assert report.nbytes == (tmp_path / "out.gguf").stat().st_size
    found = row(report, "ffn_down")
    matrices = [folder.weights.linears[f"blk.{index}.ffn_down"] for index in range(2)]
    assert (found.source, found.written, found.tensors) == ("packed uint8", "I2_S", 2)
    for count, trit in ((found.minus, -1), (found.zero, 0), (found.plus, 1)):
        assert count == sum(int((matrix.trits == trit).sum()) for matrix in matrices)
    assert found.scales == (min(m.scale for m in matrices), max(m.scale for m in matrices))
    with gguf.read(report.path) as file:
        assert sum(row.nbytes for row in report.rows) == sum(
            info.nbytes for info in file.tensors.values()
        )


def test_newer_configurations_keep_the_rope_base_elsewhere(tmp_path: Path) -> None:
    folder = tiny()
    parameters = {"rope_theta": 250000.0, "rope_type": "default"}
    folder.changes = {"rope_theta": "absent", "rope_parameters": parameters}
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    assert bitnet_cy.load(tmp_path / "out.gguf").config.rope_base == 250000.0


def test_a_head_equal_to_the_embedding_it_is_tied_to_is_left_out(tmp_path: Path) -> None:
    folder = tiny()
    tensors = folder.tensors()
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = checkpoints.TensorSource(
        "lm_head.weight", embedding.shape, embedding.dtype, embedding.data
    )
    convert(folder.write(tmp_path / "hf", tensors), tmp_path / "out.gguf")
    assert bitnet_cy.load(tmp_path / "out.gguf").config.tied_head


def test_force_replaces_a_file_and_a_folder(tmp_path: Path) -> None:
    source = tiny().write(tmp_path / "hf")
    convert(source, tmp_path / "a.gguf")
    before = (tmp_path / "a.gguf").read_bytes()
    convert(source, tmp_path / "a.gguf", type="tq2_0", force=True)
    assert (tmp_path / "a.gguf").read_bytes() != before
    convert(source, tmp_path / "b", type="hf")
    convert(source, tmp_path / "b", type="hf", embedding="f16", force=True)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "float16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "b", "hf"]


@pytest.mark.parametrize("form", ["packed", "masters"])
def test_memory_does_not_grow_with_the_number_of_layers(form: str, tmp_path: Path) -> None:
    peaks = []
    for layers in (2, 12):
        source = tiny(form=form, layers=layers, ffn=1024, vocab_size=320).write(
            tmp_path / str(layers) / "hf"
        )
        tracemalloc.start()
        convert(source, tmp_path / str(layers) / "out.gguf", with_vocabulary=False, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_large_folder_is_written_in_files_with_an_index(
    architecture: str, tmp_path: Path
) -> None:
    source = tiny(architecture).write(tmp_path / "hf")
    convert(source, tmp_path / "one", type="hf")
    convert(source, tmp_path / "many", type="hf", shard_size=200_000)
    index = json.loads((tmp_path / "many" / checkpoint.INDEX).read_text())
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 2
    assert [file.name for file in files] == [
        f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)
    ]
    assert set(index["weight_map"].values()) == {file.name for file in files}
    with checkpoint.read(tmp_path / "one") as one, checkpoint.read(tmp_path / "many") as many:
        assert list(index["weight_map"]) == list(one.tensors)
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in one.tensors.values())
        assert all(np.array_equal(one.raw(name), many.raw(name)) for name in one.tensors)
    for file in files:  # a tensor that is larger has a file to itself
        with safetensors.read(file) as found:
            sizes = [info.nbytes for info in found.tensors.values()]
            assert sum(sizes) <= 200_000 or len(sizes) == 1
    convert(tmp_path / "many", tmp_path / "out.gguf")
    convert(source, tmp_path / "direct.gguf")
    same_trits(tmp_path / "out.gguf", tmp_path / "direct.gguf")


@pytest.mark.parametrize("type_", ["i2_s", "tq1_0", "f16", "hf"])
def test_the_number_of_threads_changes_nothing(type_: str, tmp_path: Path) -> None:
    source = tiny(form="masters").write(tmp_path / "hf")
    written = []
    for threads in (1, 5):
        out = tmp_path / f"out-{threads}"
        convert(source, out, type=type_, threads=threads)
        out = out / "model.safetensors" if type_ == "hf" else out
        written.append(out.read_bytes())
    assert written[0] == written[1]
