"""safetensors files and checkpoint folders: round trips, the reference package, bad input."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from bitnet_cy.errors import BitNetError, FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import checkpoint, safetensors
from bitnet_cy.formats.safetensors import TensorSource

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4) / 4


def sources() -> list[TensorSource]:
    return [
        TensorSource("f32", (3, 4), "F32", VALUES),
        TensorSource("f16", (3, 4), "F16", lambda: VALUES.astype(np.float16)),
        TensorSource("bf16", (3, 4), "BF16", (VALUES.view(np.uint32) >> 16).astype(np.uint16)),
        TensorSource("f64", (3, 4), "F64", lambda: iter(VALUES.astype(np.float64))),
        TensorSource("packed", (2, 3), "U8", np.arange(6, dtype=np.uint8)),
        TensorSource("scalar", (), "F32", np.float32(2).tobytes()),
        TensorSource("nothing", (0, 4), "F16", b""),
    ]


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refused(tmp_path: Path, header: object, data: bytes, words: str, error=FormatError) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    with pytest.raises(error, match=words):
        safetensors.read(path)


@pytest.fixture
def file(tmp_path) -> Path:
    safetensors.write(tmp_path / "a.safetensors", sources(), {"format": "pt"})
    return tmp_path / "a.safetensors"


class TestRoundTrip:
    def test_tensors_and_metadata_come_back(self, file):
        with safetensors.read(file) as opened:
            assert opened.metadata == {"format": "pt"}
            assert list(opened.tensors) == [source.name for source in sources()]
            for name in ("f32", "f16", "bf16", "f64"):
                assert np.array_equal(opened.array(name), VALUES)
                assert opened.array(name).dtype == np.float32
            assert np.array_equal(opened.array("packed"), [[0, 1, 2], [3, 4, 5]])
            assert opened.array("packed").dtype == np.uint8
            assert opened.array("scalar") == 2
            assert opened.array("nothing").shape == (0, 4)
            assert not opened.raw("f32").flags.owndata

    def test_the_reference_package_reads_what_we_write(self, file):
        peer = pytest.importorskip("safetensors.numpy", reason="the reference implementation")
        safetensors.write(file, [s for s in sources() if s.name != "bf16"], force=True)
        tensors = peer.load_file(file)
        assert np.array_equal(tensors["f32"], VALUES)
        assert np.array_equal(tensors["packed"].reshape(-1), np.arange(6))

    def test_we_read_what_the_reference_package_writes(self, tmp_path):
        peer = pytest.importorskip("safetensors.numpy", reason="the reference implementation")
        tensors = {"b": VALUES, "a": np.arange(5, dtype=np.int64), "c": VALUES > 1}
        peer.save_file(tensors, tmp_path / "p.safetensors", {"k": "v"})
        with safetensors.read(tmp_path / "p.safetensors") as opened:
            assert opened.metadata == {"k": "v"}
            for name, values in tensors.items():
                assert np.array_equal(opened.array(name), values)
                assert opened.array(name).dtype == values.dtype


class TestRefused:
    def test_missing_empty_and_truncated_files(self, tmp_path, file):
        with pytest.raises(FormatError, match="no such file"):
            safetensors.read(tmp_path / "absent.safetensors")
        raw = file.read_bytes()
        for length in range(0, len(raw), 3):
            file.write_bytes(raw[:length])
            with pytest.raises(FormatError):
                safetensors.read(file)

    def test_headers_that_are_no_headers(self, tmp_path):
        refused(tmp_path, b"\xff\xfe", b"", "not JSON")
        refused(tmp_path, b"[" * 100_000, b"", "nested too deeply|not JSON")
        refused(tmp_path, [1], b"", "holds a list")
        refused(tmp_path, b'{"a":1,"a":2}', b"", "appears twice")
        refused(tmp_path, {"__metadata__": {"a": 1}}, b"", "__metadata__")
        path = tmp_path / "huge.safetensors"
        path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
        with pytest.raises(FormatError, match="claims a header"):
            safetensors.read(path)

    @pytest.mark.parametrize(
        "bad",
        [
            7,
            {},
            {"dtype": "F32", "shape": [2]},
            entry(offsets=(0, 8, 9)),
            entry(offsets=(-8, 0)),
            entry(offsets=(8, 0)),
            entry(offsets=(0, 1e3)),
            entry(offsets=(0, True)),
            entry(offsets=(0, 10**30)),
            entry(shape=(-2,)),
            entry(shape=(2.0,)),
            entry(shape=(1,) * 9, offsets=(0, 4)),
            {**entry(), "shape": "2"},
            {**entry(), "dtype": 3},
        ],
    )
    def test_entries_that_cannot_be(self, tmp_path, bad):
        refused(tmp_path, {"x": bad}, bytes(8), "tensor x")

    def test_sizes_gaps_and_overlaps(self, tmp_path):
        refused(tmp_path, {"x": entry(shape=(3,))}, bytes(8), "takes 12 bytes")
        refused(tmp_path, {"x": entry(offsets=(8, 16))}, bytes(16), "begins at")
        refused(tmp_path, {"x": entry(), "y": entry()}, bytes(8), "begins at")
        refused(tmp_path, {"x": entry()}, bytes(4), "truncated")
        refused(tmp_path, {"x": entry()}, bytes(12), "left over")

    def test_unknown_dtypes_are_refused_when_read_as_numbers(self, tmp_path):
        text = json.dumps({"x": entry("F8_E4M3", (8,)), "y": entry("F4", (2,), (8, 9))}).encode()
        path = tmp_path / "f8.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(9))
        with safetensors.read(path) as opened:
            assert opened.raw("y").size == 1
            for name in ("x", "y"):
                with pytest.raises(UnsupportedError, match="has dtype F"):
                    opened.array(name)
            with pytest.raises(FormatError, match="no tensor z"):
                opened.array("z")

    @pytest.mark.parametrize("seed", range(2))
    def test_random_damage_gives_an_error_or_a_usable_file(self, file, seed):
        generator, raw = random.Random(seed), file.read_bytes()
        for _ in range(300):
            damaged = bytearray(raw)
            for _ in range(generator.choice([1, 2, 8])):
                damaged[generator.randrange(len(raw))] = generator.randrange(256)
            file.write_bytes(damaged)
            try:
                with safetensors.read(file) as opened:
                    for name in opened.tensors:
                        opened.array(name)
            except BitNetError:
                continue


class TestWriter:
    def test_an_existing_file_is_kept_unless_forced(self, file):
        before = file.read_bytes()
        with pytest.raises(OptionError, match="already exists"):
            safetensors.write(file, [])
        assert file.read_bytes() == before

    def test_wrong_sources_leave_nothing_behind(self, tmp_path):
        for bad in (
            [TensorSource("x", (3,), "F32", bytes(8))],
            [TensorSource("x", (3,), "Q8", bytes(3))],
            [TensorSource("x", (2,), "U8", bytes(2))] * 2,
            [TensorSource("__metadata__", (2,), "U8", bytes(2))],
        ):
            with pytest.raises(OptionError):
                safetensors.write(tmp_path / "a.safetensors", bad)
        assert not list(tmp_path.iterdir())


class TestCheckpoint:
    @staticmethod
    def folder(tmp_path: Path, weight_map: dict | None = None) -> Path:
        (tmp_path / "config.json").write_text('{"model_type": "bitnet"}')
        for name in ("a", "b"):
            source = TensorSource(name, (3, 4), "F32", VALUES)
            safetensors.write(tmp_path / f"{name}.safetensors", [source])
        if weight_map is None:
            weight_map = {"a": "a.safetensors", "b": "b.safetensors"}
        (tmp_path / checkpoint.INDEX).write_text(json.dumps({"weight_map": weight_map}))
        return tmp_path

    def test_shards_are_one_set_of_tensors(self, tmp_path):
        with checkpoint.read(self.folder(tmp_path)) as opened:
            assert opened.config == {"model_type": "bitnet"}
            assert sorted(opened.tensors) == ["a", "b"]
            assert np.array_equal(opened.array("b"), VALUES)
            with pytest.raises(FormatError, match="no tensor c"):
                opened.raw("c")

    def test_one_file_needs_no_index(self, tmp_path, file):
        (tmp_path / "config.json").write_text("{}")
        with checkpoint.read(tmp_path) as opened:
            assert "packed" in opened.tensors

    def test_a_missing_shard_is_named(self, tmp_path):
        (self.folder(tmp_path) / "b.safetensors").unlink()
        with pytest.raises(FormatError, match=r"b\.safetensors is missing"):
            checkpoint.read(tmp_path)

    @pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "..", "", 3, "x\\y", None])
    def test_an_index_cannot_name_files_elsewhere(self, tmp_path, name):
        with pytest.raises(FormatError, match=r"no plain name|missing"):
            checkpoint.read(self.folder(tmp_path, {"a": name}))

    def test_odd_folders_are_explained(self, tmp_path):
        with pytest.raises(FormatError, match="no such folder"):
            checkpoint.read(tmp_path / "absent")
        with pytest.raises(FormatError, match=r"no such file.*config\.json"):
            checkpoint.read(tmp_path)
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(FormatError, match="holds no weights"):
            checkpoint.read(tmp_path)
        (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
        with pytest.raises(UnsupportedError, match="pickled"):
            checkpoint.read(tmp_path)
        self.folder(tmp_path)
        (tmp_path / checkpoint.INDEX).unlink()
        with pytest.raises(FormatError, match="2 safetensors files"):
            checkpoint.read(tmp_path)
        (tmp_path / checkpoint.INDEX).write_text("{}")
        with pytest.raises(FormatError, match="weight_map"):
            checkpoint.read(tmp_path)

    def test_a_tensor_in_two_shards_is_refused(self, tmp_path):
        folder = self.folder(tmp_path)
        source = TensorSource("a", (3, 4), "F32", VALUES)
        safetensors.write(folder / "b.safetensors", [source], force=True)
        with pytest.raises(FormatError, match=r"in both a\.safetensors and b\.safetensors"):
            checkpoint.read(folder)
