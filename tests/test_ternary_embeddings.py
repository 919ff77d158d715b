"""Embeddings and heads in ternary types, as files of PrismML have them: run and converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny

import bitnet_cy
from bitnet_cy.convert import convert
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import floats, gguf, ternary

MATRICES = ("token_embd.weight", "output.weight")
IDS = [3, 700, 895, 12, 256, 41]


def ternary_values(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Trits of a matrix, and a float16 scale for each 256 columns of a row."""
    rng = np.random.default_rng(MATRICES.index(name))
    trits = rng.integers(-1, 2, shape).astype(np.int8)
    return trits, np.exp(rng.normal(-4, 0.3, (shape[0], 1))).astype(np.float16).astype(np.float32)


def rewritten(source: Path, out: Path, kind: str) -> Path:
    """The file with embedding and head made ternary and stored as `kind`, or as floats."""
    sources = []
    with gguf.read(source) as file:
        for name, info in file.tensors.items():
            raw, stored = file.raw(name), info.type_name
            if name in MATRICES:
                trits, scale = ternary_values(name, info.shape)
                stored = kind
                raw = (
                    floats.encode(kind, trits * scale)
                    if kind in floats.NAMES
                    else ternary.encode(kind, trits, scale)
                )
            sources.append(gguf.TensorSource(name, info.shape, stored, raw))
        gguf.write(out, {key: file.metadata.typed(key) for key in file.metadata}, sources)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ternary")
    convert(tiny("llama", half_scales=True).write(path / "hf"), path / "a.gguf")
    rewritten(path / "a.gguf", path / "F16.gguf", "F16")
    return path


@pytest.mark.parametrize("kind", ternary.BY_ROW)
def test_a_ternary_embedding_and_head_give_the_logits_of_its_values(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    path = rewritten(folder / "a.gguf", tmp_path / "b.gguf", kind)
    found = bitnet_cy.load(path, activation_dtype="int8")
    expected = bitnet_cy.load(folder / "F16.gguf")
    np.testing.assert_array_equal(found.logits(IDS), expected.logits(IDS))


@pytest.mark.parametrize("kind", ternary.BY_ROW)
def test_a_ternary_embedding_is_kept_or_expanded(kind: str, folder: Path, tmp_path: Path) -> None:
    path = rewritten(folder / "a.gguf", tmp_path / "b.gguf", kind)
    convert(path, tmp_path / "kept.gguf", type="tq2_0")
    convert(path, tmp_path / "f16.gguf", embedding="f16")
    with (
        gguf.read(path) as source,
        gguf.read(tmp_path / "kept.gguf") as kept,
        gguf.read(tmp_path / "f16.gguf") as half,
        gguf.read(folder / "F16.gguf") as expected,
    ):
        for name in MATRICES:
            assert kept.tensors[name].type_name == source.tensors[name].type_name
            assert np.array_equal(kept.raw(name), source.raw(name))
            assert half.tensors[name].type_name == "F16"
            assert np.array_equal(half.array(name), expected.array(name))


def test_code_3_in_an_embedding_is_no_trit(folder: Path, tmp_path: Path) -> None:
    path = rewritten(folder / "a.gguf", tmp_path / "b.gguf", "Q2_0")
    with gguf.read(path) as file:
        offset = file.tensors[MATRICES[0]].offset
    data = bytearray(path.read_bytes())
    data[offset + 5] |= 3
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"token_embd.weight: Q2_0 holds code 3"):
        bitnet_cy.load(path)
    with pytest.raises(FormatError, match=r"token_embd.weight: Q2_0 holds code 3"):
        convert(path, tmp_path / "out.gguf", embedding="f16")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.gguf"]


def test_a_type_of_unknown_order_is_refused_with_its_reason(folder: Path, tmp_path: Path) -> None:
    sources = []
    with gguf.read(folder / "a.gguf") as file:
        for name, info in file.tensors.items():
            raw, kind = file.raw(name), info.type_name
            if kind == "I2_S":
                kind = "PTQ1_0"
                raw = np.zeros(int(np.prod(info.shape)) // 128 * 28, np.uint8)
            sources.append(gguf.TensorSource(name, info.shape, kind, raw))
        keys = {key: file.metadata.typed(key) for key in file.metadata}
        gguf.write(tmp_path / "b.gguf", keys, sources)
    for action in (
        lambda: bitnet_cy.load(tmp_path / "b.gguf"),
        lambda: convert(tmp_path / "b.gguf", tmp_path / "out.gguf"),
    ):
        with pytest.raises(UnsupportedError, match="PTQ1_0.*order of its weights.*PQ2_0 file"):
            action()
