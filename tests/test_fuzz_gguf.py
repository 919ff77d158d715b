"""Damaged GGUF files: every one gives a BitNetError or a usable file, never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bitnet_cy.errors import BitNetError
from bitnet_cy.formats import gguf, ternary
from bitnet_cy.formats.gguf import TensorSource

NAMES = ("I2_S", "TQ1_0", "TQ2_0")


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> bytes:
    """A small file with every kind of content."""
    path = tmp_path_factory.mktemp("fuzz") / "sample.gguf"
    trits = np.random.default_rng(0).integers(-1, 2, (2, 256), np.int8)
    metadata = {
        "general.architecture": "bitnet",
        "general.alignment": 32,
        "bitnet.eps": 1e-5,
        "tokenizer.ggml.tokens": ["a", "b", "Ġc", "日本"],
        "tokenizer.ggml.scores": [0.5, 1.0, 2.0, 3.0],
        "tokenizer.ggml.token_type": [1, 1, 3, 6],
        "flag": True,
    }
    sources = [
        TensorSource("norm", (8,), "F32", np.ones(8, np.float32)),
        TensorSource("head", (2, 32), "Q8_0", bytes(68)),
        *(TensorSource(name, (2, 256), name, ternary.encode(name, trits, 1.0)) for name in NAMES),
    ]
    gguf.write(path, metadata, sources)
    return path.read_bytes()


def header_end(sample: bytes) -> int:
    return sample.index(b"TQ2_0") + 37  # the last name, then rank, shape, type and offset


def use(path: Path, raw: bytes) -> None:
    """Open the file and touch all it holds; only BitNetError may come out."""
    path.write_bytes(raw)
    try:
        with gguf.read(path) as file:
            for key in file.metadata:
                try:
                    file.metadata[key]
                except BitNetError:
                    continue
            for name, info in file.tensors.items():
                touch(file, name, info)
    except BitNetError:
        return


def touch(file: gguf.GGUFFile, name: str, info: gguf.TensorInfo) -> None:
    raw = file.raw(name)
    assert raw.size == info.nbytes
    try:
        if info.type_name in ternary.NAMES and len(info.shape) == 2:
            ternary.decode(info.type_name, raw, *info.shape)
        else:
            with np.errstate(all="ignore"):
                file.array(name)
    except BitNetError:
        return


def test_the_sample_itself_is_fine(tmp_path, sample):
    path = tmp_path / "model.gguf"
    path.write_bytes(sample)
    with gguf.read(path) as file:
        assert {info.type_name for info in file.tensors.values()} >= set(NAMES)


def test_truncation_at_every_byte_of_the_header(tmp_path, sample):
    end = header_end(sample)
    for length in [*range(end), *range(end, len(sample), 23)]:
        use(tmp_path / "model.gguf", sample[:length])


def test_truncation_within_the_last_tensor_is_an_error(tmp_path, sample):
    path = tmp_path / "model.gguf"
    path.write_bytes(sample[:-64])
    with pytest.raises(BitNetError, match="truncated"):
        gguf.read(path)


def test_every_header_byte_changed(tmp_path, sample):
    for position in range(4, header_end(sample)):
        for value in (0x00, 0x7F, 0xFF):
            use(
                tmp_path / "model.gguf",
                sample[:position] + bytes([value]) + sample[position + 1 :],
            )


@pytest.mark.parametrize("seed", range(4))
def test_random_damage(tmp_path, sample, seed):
    random_bytes = random.Random(seed)
    for _ in range(400):
        raw = bytearray(sample)
        for _ in range(random_bytes.choice([1, 2, 8, 64])):
            raw[random_bytes.randrange(len(raw))] = random_bytes.randrange(256)
        use(tmp_path / "model.gguf", bytes(raw))


@pytest.mark.parametrize("seed", range(2))
def test_random_eight_byte_fields(tmp_path, sample, seed):
    random_bytes = random.Random(seed)
    huge = [0, 1, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 48, (1 << 63) - 1, (1 << 64) - 1]
    for _ in range(400):
        position = random_bytes.randrange(8, len(sample) - 8)
        field = random_bytes.choice(huge).to_bytes(8, "little")
        use(tmp_path / "model.gguf", sample[:position] + field + sample[position + 8 :])


@pytest.mark.parametrize("name", ternary.NAMES)
def test_any_bytes_decode_to_trits_or_an_error(name):
    generator = np.random.default_rng(0)
    layout = {"TL1": {"kernel": (64, 64, 32)}, "TL2": {"kernel": (64, 96, 32)}}.get(name, {})
    size = ternary.encode(name, np.zeros((64, 256), np.int8), 0.0, **layout).size
    for bits in (0x00, 0x11, 0x55, 0xAA, 0xFF):
        raw = generator.integers(0, 256, size, np.uint8) & np.uint8(bits)
        try:
            found = ternary.decode(name, raw, 64, 256, grouped=True, **layout)
        except BitNetError:
            continue
        assert found.trits.shape == (64, 256)
        assert np.isin(found.trits, (-1, 0, 1)).all()


def test_pieces_moved_and_repeated(tmp_path, sample):
    random_bytes = random.Random(0)
    for _ in range(300):
        start, length = random_bytes.randrange(len(sample)), random_bytes.randrange(200)
        target = random_bytes.randrange(len(sample))
        piece = sample[start : start + length]
        use(tmp_path / "model.gguf", sample[:target] + piece + sample[target:])
