"""GGUF files: reading, writing, lazy metadata, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from bitnet_cy.errors import BitNetError, FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import gguf, ternary
from bitnet_cy.formats.gguf import TensorSource, Typed
from bitnet_cy.formats.metadata import encode_pair, encode_string

peer = pytest.importorskip("gguf", reason="gguf is the independent reader and writer")

PLAIN = {
    "general.architecture": "bitnet-b1.58",
    "a.u32": 7,
    "a.negative": -7,
    "a.large": 1 << 40,
    "a.float": 0.5,
    "a.bool": True,
    "a.u8": Typed(200, "u8"),
    "a.f64": Typed(0.1, "f64"),
    "text": ["a", "", "Ġthe", "日本", "x" * 300, "\0"],
    "numbers": [1, -2, 3],
    "scores": np.array([0.5, -1.5], np.float32),
    "flags": [True, False],
    "empty": Typed([], "str"),
}


def header(pairs=(), tensors=(), *, version=3, counts=None) -> bytes:
    """A GGUF header from encoded pairs and (name, dims, type, offset)."""
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    parts = [struct.pack("<4sIQQ", b"GGUF", version, tensor_count, pair_count), *pairs]
    for name, dims, kind, offset in tensors:
        name = name if isinstance(name, bytes) else encode_string(name)
        fields = struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        parts += [name, fields]
    raw = b"".join(parts)
    return raw + bytes(-len(raw) % 32)


def read_bytes(tmp_path: Path, raw: bytes) -> gguf.GGUFFile:
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    return gguf.read(path)


def refused(tmp_path: Path, raw: bytes, words: str, error=FormatError) -> None:
    with pytest.raises(error, match=words):
        read_bytes(tmp_path, raw)


class TestRoundTrip:
    def test_metadata_comes_back(self, tmp_path):
        path = tmp_path / "a.gguf"
        gguf.write(path, PLAIN)
        with gguf.read(path) as file:
            assert list(file.metadata) == list(PLAIN)
            assert (file.version, file.alignment, file.tensors) == (3, 32, {})
            for key, value in PLAIN.items():
                found = file.metadata[key]
                plain = value.value if isinstance(value, Typed) else value
                assert list(found) == list(plain) if isinstance(plain, list) else True
                if not isinstance(plain, (list, np.ndarray)):
                    assert found == plain
                    assert type(found) is type(plain)
            assert np.array_equal(file.metadata["scores"], PLAIN["scores"])
            assert file.metadata.length("text") == 6

    def test_typed_metadata_can_be_copied_byte_for_byte(self, tmp_path):
        gguf.write(tmp_path / "a.gguf", PLAIN)
        with gguf.read(tmp_path / "a.gguf") as file:
            gguf.write(
                tmp_path / "b.gguf", {key: file.metadata.typed(key) for key in file.metadata}
            )
        assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()

    def test_tensors_come_back(self, tmp_path):
        values = np.arange(12, dtype=np.float32).reshape(3, 4)
        trits = np.random.default_rng(0).integers(-1, 2, (4, 256), np.int8)
        sources = [
            TensorSource("f32", (3, 4), "F32", values),
            TensorSource("f16", (12,), "F16", lambda: values.astype(np.float16)),
            TensorSource("trits", (4, 256), "I2_S", lambda: ternary.encode("I2_S", trits, 2.0)),
            TensorSource("pieces", (3, 4), "F32", lambda: iter(values)),
        ]
        gguf.write(tmp_path / "a.gguf", {}, sources)
        with gguf.read(tmp_path / "a.gguf") as file:
            assert list(file.tensors) == ["f32", "f16", "trits", "pieces"]
            assert file.nbytes == (tmp_path / "a.gguf").stat().st_size
            for name in ("f32", "pieces"):
                assert np.array_equal(file.array(name), values)
            assert np.array_equal(file.array("f16"), values.reshape(-1))
            info = file.tensors["trits"]
            assert (info.shape, info.type_id, info.type_name) == ((4, 256), 36, "I2_S")
            assert info.nbytes == 288
            assert info.offset % 32 == 0
            decoded = ternary.decode(info.type_name, file.raw("trits"), *info.shape)
            assert np.array_equal(decoded.trits, trits)

    def test_raw_is_a_read_only_view(self, tmp_path):
        gguf.write(tmp_path / "a.gguf", {}, [TensorSource("x", (4,), "F32", bytes(16))])
        file = gguf.read(tmp_path / "a.gguf")
        raw = file.raw("x")
        assert not raw.flags.writeable
        assert not raw.flags.owndata
        file.close()
        assert raw.tolist() == [0] * 16
        with pytest.raises(BitNetError, match="was closed"):
            file.raw("x")

    def test_another_alignment_is_kept(self, tmp_path):
        sources = [TensorSource(name, (3,), "F32", bytes(12)) for name in "ab"]
        gguf.write(tmp_path / "a.gguf", {"general.alignment": 256}, sources)
        with gguf.read(tmp_path / "a.gguf") as file:
            assert file.alignment == 256
            assert all(info.offset % 256 == 0 for info in file.tensors.values())


class TestPeer:
    def test_the_gguf_package_reads_what_we_write(self, tmp_path):
        values = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
        sources = [TensorSource("x", (8, 256), "F32", values)]
        gguf.write(tmp_path / "a.gguf", {k: v for k, v in PLAIN.items() if k != "empty"}, sources)
        reader = peer.GGUFReader(tmp_path / "a.gguf")
        assert np.array_equal(reader.tensors[0].data, values)
        assert reader.fields["text"].contents() == PLAIN["text"]
        assert reader.fields["a.negative"].contents() == -7

    def test_we_read_what_the_gguf_package_writes(self, tmp_path):
        values = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
        writer = peer.GGUFWriter(tmp_path / "a.gguf", "bitnet")
        writer.add_array("tokens", ["a", "b"])
        writer.add_float32("eps", 1e-5)
        quantized = peer.quants.quantize(values, peer.GGMLQuantizationType.TQ2_0)
        writer.add_tensor("f", values)
        writer.add_tensor("q", quantized, raw_dtype=peer.GGMLQuantizationType.TQ2_0)
        for step in ("header", "kv_data", "tensors"):
            getattr(writer, f"write_{step}_to_file")()
        writer.close()
        with gguf.read(tmp_path / "a.gguf") as file:
            assert file.metadata["tokens"] == ["a", "b"]
            assert file.metadata["eps"] == pytest.approx(1e-5)
            assert np.array_equal(file.array("f"), values)
            assert np.array_equal(file.raw("q"), quantized.reshape(-1))
            assert file.tensors["q"].type_name == "TQ2_0"

    def test_types_have_the_sizes_of_the_gguf_package(self):
        from bitnet_cy.formats import types

        for kind, (block, nbytes) in peer.GGML_QUANT_SIZES.items():
            for ours in types.candidates(int(kind)):
                if ours.name == kind.name and kind.name != "Q2_0":
                    assert ours.nbytes((2, block)) == 2 * nbytes, kind.name


class TestVocabularies:
    def test_long_odd_and_many_strings_come_back(self, tmp_path):
        for words in (
            ["a" * n for n in range(1, 700)],
            [""] * 50,
            ["\0", "a\0\0\0\0\0\0\0\0b", ""],
            ["é" * 40000, "b"],
            ["Ġ" + chr(0x4E00 + n % 5000) for n in range(20000)],
        ):
            gguf.write(tmp_path / "a.gguf", {"words": words, "after": 5}, force=True)
            with gguf.read(tmp_path / "a.gguf") as file:
                assert file.metadata["words"] == words
                assert file.metadata["after"] == 5

    def test_arrays_are_decoded_when_asked_for(self, tmp_path):
        pair = encode_pair("words", ["good", "xx"]).replace(b"xx", b"\xff\xff")
        file = read_bytes(tmp_path, header([pair]))
        assert file.metadata.length("words") == 2
        with pytest.raises(FormatError, match="words holds text that is not UTF-8"):
            file.metadata["words"]

    def test_an_array_not_read_before_closing_says_so(self, tmp_path):
        file = read_bytes(tmp_path, header([encode_pair("w", ["a"]), encode_pair("v", ["b"])]))
        assert file.metadata["w"] == ["a"]
        file.close()
        assert file.metadata["w"] == ["a"]
        with pytest.raises(BitNetError, match="closed"):
            file.metadata["v"]


class TestSharedTypeIds:
    """Ids that mean different types to different programs are told apart by size."""

    @pytest.mark.parametrize(
        ("type_id", "cols", "nbytes", "name"),
        [
            (36, 256, 2 * 64 + 32, "I2_S"),
            (36, 256, 2 * 8 * 18, "type 36"),
            (39, 256, 2 * 8 * 17, "MXFP4"),
            (42, 2560, 2 * 40 * 18, "Q2_0"),
            (42, 2560, 2 * 20 * 34, "Q2_0_128"),
            (135, 256, 2 * (4 + 64), "IQ2_BN"),
            (37, 256, 512, "type 37"),
            (999, 256, 512, "type 999"),
        ],
    )
    def test_the_size_decides(self, tmp_path, type_id, cols, nbytes, name):
        raw = header(tensors=[("x", (cols, 2), type_id, 0)]) + bytes(-(-nbytes // 32) * 32)
        info = read_bytes(tmp_path, raw).tensors["x"]
        assert info.type_name == name
        assert info.type_id == type_id
        assert info.nbytes >= nbytes

    def test_a_tensor_of_unknown_type_is_explained_when_used(self, tmp_path):
        raw = header(tensors=[("x", (256, 2), 36, 0)]) + bytes(2 * 8 * 18)
        file = read_bytes(tmp_path, raw)
        with pytest.raises(UnsupportedError, match=r"type 36.*288 bytes: I2_S would take 160"):
            file.array("x")

    def test_tl2_leaves_one_more_unit_for_its_scale(self, tmp_path):
        payload = 11605  # as bitnet.cpp's converter allots for this shape
        size = -(-payload // 32) * 32 + 64
        raw = header(tensors=[("x", (384, 128), 39, 0)]) + bytes(size)
        assert read_bytes(tmp_path, raw).tensors["x"].type_name == "TL2"


class TestRefused:
    def test_missing_directory_empty_and_foreign_files(self, tmp_path):
        with pytest.raises(FormatError, match="no such file"):
            gguf.read(tmp_path / "absent.gguf")
        with pytest.raises(FormatError, match="is a directory"):
            gguf.read(tmp_path)
        refused(tmp_path, b"", "has 0 bytes")
        refused(tmp_path, b"PK\3\4" + bytes(60), "not a GGUF file")

    @pytest.mark.parametrize("version", [0, 1, 4])
    def test_other_versions(self, tmp_path, version):
        refused(tmp_path, header(version=version), f"GGUF version {version}")

    def test_big_endian(self, tmp_path):
        refused(tmp_path, struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian")

    @pytest.mark.parametrize("counts", [(1 << 63, 0), (0, 1 << 63), (0, 5), (5, 0)])
    def test_absurd_counts(self, tmp_path, counts):
        refused(tmp_path, header(counts=counts), "claims|ends inside")

    def test_absurd_lengths(self, tmp_path):
        long = struct.pack("<Q", 1 << 62)
        refused(tmp_path, header([long + b"key" + bytes(30)]), "claims")
        text = encode_string("k") + struct.pack("<IQ", 8, 1 << 40) + bytes(30)
        refused(tmp_path, header([text]), "claims|ends inside")
        for element in (4, 8):
            array = encode_string("k") + struct.pack("<IIQ", 9, element, 1 << 60) + bytes(30)
            refused(tmp_path, header([array]), "room for")
        inner = struct.pack("<IIQQ", 9, 8, 1, 1 << 50)
        refused(tmp_path, header([encode_string("k") + inner]), "ends inside")

    def test_duplicate_empty_and_undecodable_keys(self, tmp_path):
        pair = encode_pair("key", 1)
        refused(tmp_path, header([pair, pair]), "key key appears twice")
        refused(tmp_path, header([encode_pair("", 1)]), "is empty")
        refused(tmp_path, header([pair.replace(b"key", b"\xff\xfe\xfd")]), "not UTF-8")

    def test_nested_arrays_and_unknown_value_types(self, tmp_path):
        nested = encode_string("k") + struct.pack("<IIQIQ", 9, 9, 1, 4, 0)
        refused(tmp_path, header([nested]), "array of arrays")
        refused(tmp_path, header([encode_string("k") + struct.pack("<IQ", 13, 0)]), "type 13")
        array = encode_string("k") + struct.pack("<IIQ", 9, 77, 0)
        refused(tmp_path, header([array]), "elements of type 77")

    @pytest.mark.parametrize("value", [0, 3, 4, 1 << 30, "32", -32])
    def test_alignments(self, tmp_path, value):
        refused(tmp_path, header([encode_pair("general.alignment", value)]), "general.alignment")

    @pytest.mark.parametrize("dims", [(), (0,), (1 << 63, 1 << 63), (2, 2, 2, 2, 2)])
    def test_shapes(self, tmp_path, dims):
        refused(tmp_path, header(tensors=[("x", dims, 0, 0)]) + bytes(64), "dimensions|shape")

    def test_a_row_that_is_no_whole_number_of_blocks(self, tmp_path):
        refused(tmp_path, header(tensors=[("x", (100,), 14, 0)]) + bytes(320), "cannot be Q6_K")

    def test_duplicate_and_overlapping_tensors(self, tmp_path):
        twins = [("x", (8,), 0, 0), ("x", (8,), 0, 32)]
        refused(tmp_path, header(tensors=twins) + bytes(64), "tensor x appears twice")
        for second in (0, 32):
            tensors = [("x", (16,), 0, 0), ("y", (16,), 0, second)]
            refused(tmp_path, header(tensors=tensors) + bytes(128), "overlap")

    def test_offsets(self, tmp_path):
        refused(tmp_path, header(tensors=[("x", (8,), 0, 4)]) + bytes(64), "not aligned")
        for offset in (64, 1 << 62):
            refused(tmp_path, header(tensors=[("x", (8,), 0, offset)]) + bytes(64), "truncated")

    def test_truncated_tensor_data(self, tmp_path):
        for kind in (0, 36):
            refused(tmp_path, header(tensors=[("x", (256,), kind, 0)]) + bytes(64), "truncated")

    def test_one_part_of_a_split_model(self, tmp_path):
        pairs = [encode_pair("split.count", Typed(3, "u16"))]
        refused(tmp_path, header(pairs), "3 parts of a split model", UnsupportedError)
        read_bytes(tmp_path, header([encode_pair("split.count", Typed(1, "u16"))]))

    def test_a_tensor_that_is_not_there(self, tmp_path):
        with pytest.raises(FormatError, match=r"has no tensor output\.weight"):
            read_bytes(tmp_path, header()).raw("output.weight")


class TestWriter:
    def test_an_existing_file_is_kept_unless_forced(self, tmp_path):
        path = tmp_path / "a.gguf"
        gguf.write(path, {"v": 1})
        with pytest.raises(OptionError, match="already exists"):
            gguf.write(path, {"v": 2})
        assert gguf.read(path).metadata["v"] == 1
        gguf.write(path, {"v": 2}, force=True)
        assert gguf.read(path).metadata["v"] == 2

    def test_a_failure_leaves_nothing_behind(self, tmp_path):
        def interrupted():
            yield bytes(16)
            raise KeyboardInterrupt

        for data, error in ((bytes(12), OptionError), (interrupted, KeyboardInterrupt)):
            with pytest.raises(error):
                gguf.write(tmp_path / "a.gguf", {}, [TensorSource("x", (8,), "F32", data)])
        assert not list(tmp_path.iterdir())

    def test_values_that_do_not_fit_are_named(self, tmp_path):
        for value in ({"a": 1}, None, [], Typed(300, "u8"), Typed("x", "u32"), Typed(1, "u128")):
            with pytest.raises(OptionError, match="metadata"):
                gguf.write(tmp_path / "a.gguf", {"key": value})

    def test_tensors_that_do_not_fit_are_named(self, tmp_path):
        for source in (
            TensorSource("x", (100,), "Q6_K", b""),
            TensorSource("x", (0, 4), "F32", b""),
            TensorSource("x", (4,), "F32", bytes(20)),
        ):
            with pytest.raises(OptionError, match="tensor x"):
                gguf.write(tmp_path / "a.gguf", {}, [source])
        twins = [TensorSource("x", (4,), "F32", bytes(16))] * 2
        with pytest.raises(OptionError, match="same name"):
            gguf.write(tmp_path / "a.gguf", {}, twins)

    def test_a_directory_is_no_file_name(self, tmp_path):
        with pytest.raises(OptionError, match="directory"):
            gguf.write(tmp_path, {})
