"""Conversions from every layout that GGUF files have, and of matrices with several scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracle_models
import pytest
from checkpoints import Folder, tiny

import bitnet_cy
from bitnet_cy import cli
from bitnet_cy.convert import convert
from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import floats, gguf, ternary

SHAPES = ((128, 256), (256, 256))
TL1, TL2 = (128, 64, 32), (128, 96, 32)


def repacked(
    source: Path, out: Path, type_name: str, *, apart: bool = False, **layout: Any
) -> Path:
    """The same file with its I2_S matrices in another layout; `apart`: scales in own tensors."""
    sources = []
    with gguf.read(source) as file:
        for name, info in file.tensors.items():
            raw, kind = file.raw(name), info.type_name
            if kind == "I2_S":
                found = ternary.decode(kind, raw, *info.shape)
                inner = 1.0 if apart else found.scale
                raw, kind = ternary.encode(type_name, found.trits, inner, **layout), type_name
                if apart:
                    scale = floats.encode("F32", found.scale.reshape(1))
                    key = f"{name.removesuffix('weight')}scale"
                    sources.append(gguf.TensorSource(key, (1,), "F32", scale))
            sources.append(gguf.TensorSource(name, info.shape, kind, raw))
        gguf.write(out, {key: file.metadata.typed(key) for key in file.metadata}, sources)
    return out


@pytest.fixture(scope="module")
def i2_s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("i2_s")
    convert(tiny(half_scales=True).write(folder / "hf"), folder / "a.gguf")
    return folder / "a.gguf"


@pytest.mark.parametrize(
    ("type_name", "layout", "options"),
    [
        ("TQ1_0", {}, {}),
        ("TQ2_0", {}, {}),
        ("IQ1_BN", {}, {}),
        ("IQ2_BN", {}, {}),
        ("IQ2_BN_R4", {}, {}),
        ("I2_S", {"arrangement": "64"}, {"arrangement": "64"}),
        ("I2_S", {"arrangement": "4row"}, {"arrangement": "4row"}),
        ("TL1", {"kernel": TL1}, {"kernels": dict.fromkeys(SHAPES, TL1)}),
        ("TL2", {"kernel": TL2}, {"kernels": dict.fromkeys(SHAPES, TL2)}),
    ],
)
def test_a_layout_converts_to_the_same_file(
    type_name: str, layout: Any, options: Any, i2_s: Path, tmp_path: Path
) -> None:
    other = repacked(i2_s, tmp_path / "b.gguf", type_name, **layout)
    convert(other, tmp_path / "c.gguf", **options)
    assert i2_s.read_bytes() == (tmp_path / "c.gguf").read_bytes()


@pytest.mark.parametrize("type_name", ["Q2_0", "Q2_0_128"])
def test_types_of_weight_only_models_convert_to_the_same_weights(
    type_name: str, i2_s: Path, tmp_path: Path
) -> None:
    """Their type says that activations are not quantized; a file in I2_S has to say so itself."""
    convert(repacked(i2_s, tmp_path / "b.gguf", type_name), tmp_path / "c.gguf")
    with gguf.read(i2_s) as expected, gguf.read(tmp_path / "c.gguf") as found:
        assert list(found.tensors) == list(expected.tensors)
        for name in expected.tensors:
            np.testing.assert_array_equal(found.raw(name), expected.raw(name))
        added = {key: found.metadata[key] for key in found.metadata if key not in expected.metadata}
    assert list(added.values()) == ["float32"]


def test_matrices_that_llama_cpp_stored_as_q4_0_get_their_trits_back(
    i2_s: Path, tmp_path: Path
) -> None:
    """The opposite of a block's largest weight comes out as 7/8 of it, which is no trit."""
    sources = []
    with gguf.read(i2_s) as file:
        for name, info in file.tensors.items():
            raw, kind = file.raw(name), info.type_name
            if "ffn_down" in name:
                kind, dense = "Q4_0", ternary.decode(kind, raw, *info.shape).dense()
                dense[0, :32] = 0
                raw = floats.encode(kind, dense)
                assert len(np.unique(np.abs(floats.decode(kind, raw, info.shape)))) == 3
            sources.append(gguf.TensorSource(name, info.shape, kind, raw))
        keys = {key: file.metadata.typed(key) for key in file.metadata}
        gguf.write(tmp_path / "b.gguf", keys, sources)
        report = convert(tmp_path / "b.gguf", tmp_path / "c.gguf")
        assert next(row for row in report.rows if row.part == "ffn_down").source == "Q4_0"
        with gguf.read(tmp_path / "c.gguf") as written:
            for name, info in file.tensors.items():
                if "ffn_down" in name:
                    a, b = (
                        ternary.decode("I2_S", each.raw(name), *info.shape)
                        for each in (file, written)
                    )
                    a.trits[0, :32] = 0
                    assert np.array_equal(a.trits, b.trits)
                    assert a.scale == b.scale
                else:
                    assert np.array_equal(file.raw(name), written.raw(name))


def test_a_dense_q4_0_matrix_is_refused(i2_s: Path, tmp_path: Path) -> None:
    dense = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    with gguf.read(i2_s) as file:
        sources = [
            gguf.TensorSource(name, info.shape, "Q4_0", floats.encode("Q4_0", dense))
            if "0.ffn_down" in name
            else gguf.TensorSource(name, info.shape, info.type_name, file.raw(name))
            for name, info in file.tensors.items()
        ]
        keys = {key: file.metadata.typed(key) for key in file.metadata}
        gguf.write(tmp_path / "b.gguf", keys, sources)
    with pytest.raises(UnsupportedError, match=r"ffn_down.*is not ternary: \d\d\.\d\d% of its"):
        convert(tmp_path / "b.gguf", tmp_path / "c.gguf")


@pytest.mark.parametrize("type_name", ["IQ1_BN", "IQ2_BN", "IQ2_BN_R4"])
def test_scales_in_tensors_of_their_own_are_multiplied_in(
    type_name: str, i2_s: Path, tmp_path: Path
) -> None:
    """As ik_llama.cpp's own conversions keep them."""
    other = repacked(i2_s, tmp_path / "b.gguf", type_name, apart=True)
    with gguf.read(other) as file:
        assert "blk.1.ffn_down.scale" in file.tensors
    convert(other, tmp_path / "c.gguf")
    assert i2_s.read_bytes() == (tmp_path / "c.gguf").read_bytes()


def test_a_scale_of_its_own_must_be_a_positive_number(i2_s: Path, tmp_path: Path) -> None:
    other = repacked(i2_s, tmp_path / "b.gguf", "IQ2_BN", apart=True)
    with gguf.read(other) as file:
        info = file.tensors["blk.0.attn_v.scale"]
    raw = bytearray(other.read_bytes())
    raw[info.offset : info.offset + 4] = np.float32(np.nan).tobytes()
    other.write_bytes(raw)
    with pytest.raises(FormatError, match=r"blk\.0\.attn_v\.scale is not one positive number"):
        convert(other, tmp_path / "c.gguf")
    assert not (tmp_path / "c.gguf").exists()


@pytest.mark.parametrize(("type_name", "kernel"), [("TL1", TL1), ("TL2", TL2)])
def test_lookup_tables_need_the_file_that_says_how_they_are_ordered(
    type_name: str, kernel: tuple[int, int, int], i2_s: Path, tmp_path: Path
) -> None:
    other = repacked(i2_s, tmp_path / "b.gguf", type_name, kernel=kernel)
    with pytest.raises(OptionError, match=r"give the kernel_config\.ini"):
        convert(other, tmp_path / "c.gguf")
    names = ("bm", "bk", "bmm")
    sections = [
        f"[Kernels_{number}]\nm = {rows}\nk = {cols}\n"
        + "".join(f"{name} = {value}\n" for name, value in zip(names, kernel, strict=True))
        for number, (rows, cols) in enumerate(SHAPES)
    ]
    (tmp_path / "kernel_config.ini").write_text("\n".join(sections))
    options = ["--kernel-config", str(tmp_path / "kernel_config.ini")]
    assert cli.main(["convert", str(other), "-o", str(tmp_path / "c.gguf"), *options]) == 0
    assert i2_s.read_bytes() == (tmp_path / "c.gguf").read_bytes()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("attention.value_length", 32, "value_length is 32 where heads have 64"),
        ("rope.dimension_count", 32, "rotated in part"),
        ("attention.causal", False, "causal is False.*bitnet-b1.58 models"),
        ("expert_count", 8, "sets bitnet-b1.58.expert_count"),
        ("final_logit_softcapping", 30.0, "final_logit_softcapping"),
        ("rope.scaling.type", "longrope", "'longrope'"),
    ],
)
def test_what_would_change_the_model_is_not_dropped(
    key: str, value: Any, words: str, i2_s: Path, tmp_path: Path
) -> None:
    with gguf.read(i2_s) as file:
        sources = [
            gguf.TensorSource(name, info.shape, info.type_name, file.raw(name))
            for name, info in file.tensors.items()
        ]
        keys = {name: file.metadata.typed(name) for name in file.metadata}
        keys["bitnet-b1.58.attention.key_length"] = 64
        gguf.write(tmp_path / "a.gguf", keys | {f"bitnet-b1.58.{key}": value}, sources)
    with pytest.raises(UnsupportedError, match=words):
        convert(tmp_path / "a.gguf", tmp_path / "b.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


SPLITS = {
    "blk.0.attn_q": np.array([[0.5], [0.25]]),
    "blk.0.attn_v": np.array([[0.5, 0.125]]),
    "blk.1.ffn_down": np.array([[1.0, 0.5], [0.25, 2.0]]),
}


def in_parts(splits: dict[str, np.ndarray] = SPLITS) -> tuple[Folder, dict[str, np.ndarray]]:
    """A Llama folder whose matrices have a scale for each part of the rows and of the columns.

    As of TriLM, which was trained in parts. With it the weights, in the order of rows of GGUF.
    """
    folder = tiny("llama", "masters", hidden=512, ffn=512, head_dim=128)
    folder.dtype, folder.quantization = "F16", None
    dense = {}
    for name, found in folder.weights.linears.items():
        scales = splits.get(name, np.array([[np.float16(found.scale)]], np.float32))
        rows, cols = (size // n for size, n in zip(found.trits.shape, scales.shape, strict=True))
        found.masters[:] = found.trits * np.kron(scales, np.ones((rows, cols)))
        dense[name] = oracle_models.stored_rows(folder.weights.shape, name, found.masters)
    return folder, dense


def weights(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with gguf.read(path) as file:
        for name, info in file.tensors.items():
            if info.type_name in ternary.NAMES:
                matrix = ternary.decode(info.type_name, file.raw(name), *info.shape, grouped=True)
                found[name.removesuffix(".weight")] = matrix.dense()
            else:
                found[name.removesuffix(".weight")] = file.array(name)
    return found


@pytest.mark.parametrize("type_", ["tq1_0", "tq2_0", "f16"])
def test_matrices_trained_in_parts_keep_the_scale_of_each_part(type_: str, tmp_path: Path) -> None:
    folder, dense = in_parts()
    report = convert(folder.write(tmp_path / "hf"), tmp_path / "a.gguf", type=type_)
    found = weights(tmp_path / "a.gguf")
    for name, expected in dense.items():
        assert np.array_equal(found[name], expected), name
    down = next(row for row in report.rows if row.part == "ffn_down")
    assert down.scales == (min(0.25, dense["blk.0.ffn_down"].max()), 2.0)
    assert down.error == 0


def test_matrices_trained_in_parts_run_with_float_activations(tmp_path: Path) -> None:
    folder, _ = in_parts()
    for values in (folder.weights.vectors | folder.weights.matrices).values():
        values[:] = values.astype(np.float16)  # as the folder holds them
    report = convert(folder.write(tmp_path / "hf"), tmp_path / "a.gguf", type="tq2_0")
    assert any("activation_dtype = float32" in note for note in report.notes)
    ours = bitnet_cy.load(tmp_path / "a.gguf", kv_dtype="float32")
    assert ours.config.activation_dtype == "float32"
    model = oracle_models.numpy_model(folder.weights)
    model.weight_only = True
    for block, prefix in zip(model.blocks, ("blk.0.", "blk.1."), strict=True):
        for part, short in zip(oracle_models.LINEARS, block.linears, strict=True):
            block.linears[short] = folder.weights.linears[prefix + part].masters, 1.0
    ids = np.arange(3, 23)
    expected = model.logits(ids)
    assert np.abs(ours.logits(ids) - expected).max() < 2e-5 * np.abs(expected).max()
    with pytest.raises(UnsupportedError, match="scales in one matrix"):
        bitnet_cy.load(tmp_path / "a.gguf", activation_dtype="int8")


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_what_is_said_of_activations_is_kept(dtype: str, tmp_path: Path) -> None:
    """A Llama of ternary weights may be one or the other (Falcon-E, TriLM)."""
    folder = tiny("llama", "ternary")
    folder.quantization = None
    convert(folder.write(tmp_path / "hf"), tmp_path / "a.gguf", activation_dtype=dtype)
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", type="tq2_0")
    assert bitnet_cy.load(tmp_path / "b.gguf").config.activation_dtype == dtype
    with pytest.raises(OptionError, match="activation_dtype is 'int4'; choose from int8, float32"):
        convert(tmp_path / "hf", tmp_path / "c.gguf", activation_dtype="int4")


def test_matrices_trained_in_parts_go_from_type_to_type(tmp_path: Path) -> None:
    folder, _ = in_parts()
    convert(folder.write(tmp_path / "hf"), tmp_path / "a.gguf", type="tq2_0")
    for number, type_ in enumerate(("f16", "tq1_0", "tq2_0")):
        convert(tmp_path / f"{'abc'[number]}.gguf", tmp_path / f"{'bcd'[number]}.gguf", type=type_)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "d.gguf").read_bytes()


@pytest.mark.parametrize(
    ("type_", "splits", "words"),
    [
        ("i2_s", SPLITS, "q_proj.*I2_S holds one scale per tensor; 512 were given: tq1_0, tq2_0"),
        ("hf", SPLITS, "quantize activations.*tq2_0 keeps several scales"),
        ("hf", {"blk.1.ffn_down": SPLITS["blk.1.ffn_down"]}, "down_proj.*has 4 scales; a packed"),
        ("tq2_0", {"blk.0.attn_k": np.array([[1, 2, 3, 4]])}, "k_proj.*scales of 4 parts of a row"),
    ],
)
def test_types_that_cannot_keep_several_scales_are_refused(
    type_: str, splits: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    folder, _ = in_parts(splits)
    source = folder.write(tmp_path / "hf")
    with pytest.raises(UnsupportedError, match=words):
        convert(source, tmp_path / "out", type=type_)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
