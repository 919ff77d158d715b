"""Float tensor types against the gguf package."""

from __future__ import annotations

import numpy as np
import pytest

from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import floats

gguf = pytest.importorskip("gguf", reason="gguf is the independent decoder")

# Largest error, relative to the largest value of a block.
TOLERANCE = {"F32": 0, "F16": 1e-3, "BF16": 4e-3, "Q8_0": 5e-3, "Q6_K": 0.04, "Q4_0": 0.13}


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    values = np.random.default_rng(1).standard_normal((6, 512)).astype(np.float32)
    values[2, :256] = 0
    values[3, 7] = 50
    return values


@pytest.mark.parametrize("name", floats.NAMES)
def test_decoding_agrees_with_the_gguf_package(name, values):
    raw = floats.encode(name, values)
    kind = gguf.GGMLQuantizationType[name]
    theirs = gguf.quants.dequantize(raw.reshape(6, -1), kind)
    assert np.array_equal(floats.decode(name, raw, values.shape), theirs)


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_encoding_agrees_with_the_gguf_package(name, values):
    theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
    assert np.array_equal(floats.encode(name, values), theirs.view(np.uint8).reshape(-1))


@pytest.mark.parametrize("name", ["Q8_0", "Q6_K", "Q4_0"])
def test_any_bytes_decode_as_the_gguf_package_decodes_them(name):
    width = {"Q8_0": 34, "Q6_K": 210, "Q4_0": 18}[name]
    raw = np.random.default_rng(2).integers(0, 256, (64, width), np.uint8)
    scale = raw[:, -2:] if name == "Q6_K" else raw[:, :2]
    scale[:] = np.frombuffer(np.float16(0.125).tobytes(), np.uint8)
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])
    assert np.array_equal(floats.decode(name, raw.reshape(-1), theirs.shape), theirs)


@pytest.mark.parametrize("name", floats.NAMES)
def test_a_round_trip_stays_within_the_type(name, values):
    back = floats.decode(name, floats.encode(name, values), values.shape)
    peak = np.abs(values).max(axis=1, keepdims=True)
    assert (np.abs(back - values) <= TOLERANCE[name] * peak).all()
    assert not back[2, :256].any()


def test_bf16_rounds_to_even_and_keeps_nan():
    bits = np.array([0x3F808000, 0x3F818000, 0x7F800001], np.uint32)
    raw = floats.encode("BF16", bits.view(np.float32))
    assert raw.view("<u2")[:2].tolist() == [0x3F80, 0x3F82]
    assert np.isnan(floats.decode("BF16", raw, (3,))[2])


def test_decoding_unaligned_bytes_gives_a_copy():
    raw = np.zeros(41, np.uint8)
    decoded = floats.decode("F32", raw[1:], (10,))
    assert not np.shares_memory(decoded, raw)


def test_wrong_sizes_and_types_are_named():
    with pytest.raises(FormatError, match="takes 40 bytes; 39 are there"):
        floats.decode("F32", np.zeros(39, np.uint8), (10,))
    with pytest.raises(UnsupportedError, match="Q4_K is not one of"):
        floats.decode("Q4_K", np.zeros(144, np.uint8), (256,))
    with pytest.raises(UnsupportedError, match="rows of 100"):
        floats.encode("Q6_K", np.zeros((2, 100), np.float32))
