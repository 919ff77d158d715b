"""Packed ternary layouts: golden vectors of the programs that define them, tails, bad data."""

from __future__ import annotations

import numpy as np
import pytest

from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import ternary

gguf_quants = pytest.importorskip("gguf.quants", reason="gguf is the independent decoder")

# Bytes made with bitnet.cpp's quantizers (I2_S) and the gguf package (TQ) from `golden_trits`.
GOLDEN = [
    (
        "I2_S", (1, 128), {},
        "1562441645555a98620144688528105254a824064a54a9aa9a5969520052891a0000003f",
    ),
    (
        "I2_S", (1, 128), {"arrangement": "64"},
        "156a4204505566a669115259801924455428505a6654a9a22a2561824482212a0000003f",
    ),
    (
        "I2_S", (4, 64), {"arrangement": "4row"},
        "164655185a5a65a04405586996280a4058a518166052a8a0a16162400046a821"
        "54a8066119506246a5160886148549654182822021469aa06458986a096a15690000003f",
    ),
    (
        "TQ2_0", (1, 256), {},
        "548911945155a5268940112952280485152a1890a1156aaaa6656985008562a4"
        "252995426a22918445950a9625466a444291822140a48a001418288848a946580038",
    ),
    (
        "TQ1_0", (1, 256), {},
        "2b96602f65818ddb960561a4b94e1f797ef845116f7cfcfde188a579007ac336"
        "69c16108bf364558769dea9aa296dc9375eae7170038",
    ),
]  # fmt: skip


def golden_trits(rows: int, cols: int) -> np.ndarray:
    """The first trits of the generator all golden vectors come from."""
    state, trits = 12345, []
    for _ in range(rows * cols):
        state = (1103515245 * state + 12345) % (1 << 31)
        trits.append((state >> 16) % 3 - 1)
    return np.array(trits, np.int8).reshape(rows, cols)


def random_trits(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, (rows, cols), np.int8)


def test_the_golden_generator_gives_the_published_counts():
    trits = golden_trits(1, 256)[0]
    assert [int((trits[:128] == value).sum()) for value in (-1, 0, 1)] == [37, 50, 41]
    assert trits.sum() == 3


@pytest.mark.parametrize(("name", "shape", "parameters", "expected"), GOLDEN)
def test_golden_bytes_are_written_and_read(name, shape, parameters, expected):
    trits = golden_trits(*shape)
    raw = ternary.encode(name, trits, 0.5, **parameters)
    golden = bytes.fromhex(expected)
    assert raw.tobytes()[: len(golden)] == golden
    assert not raw[len(golden) :].any()
    decoded = ternary.decode(name, raw, *shape, **parameters)
    assert np.array_equal(decoded.trits, trits)
    assert decoded.scale == np.float32(0.5)
    assert decoded.scale.shape == ()


@pytest.mark.parametrize("name", ternary.NAMES)
def test_round_trip_of_a_matrix(name):
    trits = random_trits(8, 512)
    decoded = ternary.decode(name, ternary.encode(name, trits, 1.25), 8, 512)
    assert np.array_equal(decoded.trits, trits)
    assert decoded.trits.dtype == np.int8
    assert np.array_equal(decoded.dense(), trits * np.float32(1.25))


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
def test_the_gguf_package_writes_and_reads_the_same_bytes(name):
    from gguf import GGMLQuantizationType

    trits = random_trits(3, 1024)
    kind = GGMLQuantizationType[name]
    theirs = gguf_quants.quantize(trits * np.float32(0.75), kind).reshape(-1)
    ours = ternary.encode(name, trits, 0.75)
    assert np.array_equal(ours, theirs)
    assert np.array_equal(gguf_quants.dequantize(ours.reshape(3, -1), kind), trits * 0.75)


@pytest.mark.parametrize(("rows", "cols"), [(32, 100), (32, 5460), (2, 8640), (7, 640), (128, 1)])
def test_i2_s_rows_that_share_blocks_come_back(rows, cols):
    trits = random_trits(rows, cols)
    raw = ternary.encode("I2_S", trits, 2.0)
    assert raw.size == rows * cols // 4 + 32
    assert np.array_equal(ternary.decode("I2_S", raw, rows, cols).trits, trits)


def test_i2_s_is_one_flat_sequence_of_blocks():
    trits = random_trits(32, 100)
    flat = ternary.encode("I2_S", trits.reshape(1, -1), 1.0)
    assert np.array_equal(ternary.encode("I2_S", trits, 1.0), flat)


def test_i2_s_ignores_what_follows_the_scale():
    trits = random_trits(2, 128)
    raw = ternary.encode("I2_S", trits, 1.0)
    raw[-28:] = 255
    assert np.array_equal(ternary.decode("I2_S", raw, 2, 128).trits, trits)


@pytest.mark.parametrize("cols", [1, 4, 100, 128, 640, 5460, 8640])
def test_packed_rows_are_i2_s_rows_padded_with_zeros(cols):
    trits = random_trits(3, cols)
    packed = ternary.pack_rows(trits)
    blocks = -(-cols // 128)
    assert packed.shape == (3, blocks * 32)
    scale = np.frombuffer(np.float32(1).tobytes() + bytes(28), np.uint8)
    raw = np.concatenate([packed.reshape(-1), scale])
    unpacked = ternary.decode("I2_S", raw, 3, blocks * 128).trits
    assert np.array_equal(unpacked[:, :cols], trits)
    assert not unpacked[:, cols:].any()


def test_whole_block_rows_are_used_where_they_lie():
    trits = random_trits(5, 256)
    raw = ternary.encode("I2_S", trits, 1.0)
    rows = ternary.rows_as_stored(raw, 5, 256)
    assert np.shares_memory(rows, raw)
    assert np.array_equal(rows, ternary.pack_rows(trits))
    assert ternary.rows_as_stored(raw, 10, 100) is None


@pytest.mark.parametrize("name", ["I2_S", "TQ2_0"])
def test_code_three_is_refused(name):
    raw = ternary.encode(name, random_trits(1, 256), 1.0)
    raw[5] |= 3
    with pytest.raises(FormatError, match="code 3"):
        ternary.decode(name, raw, 1, 256)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("name", ternary.NAMES)
def test_a_scale_that_is_no_scale_is_refused(name, scale):
    trits = random_trits(1, 256)
    with pytest.raises(FormatError, match="scale"):
        ternary.encode(name, trits, scale)
    raw = ternary.encode(name, trits, 1.0)
    if name == "I2_S":
        raw[64:68] = np.frombuffer(np.float32(scale).tobytes(), np.uint8)
    else:
        raw[-2:] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    with pytest.raises(FormatError, match="scale"):
        ternary.decode(name, raw, 1, 256)


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
class TestBlockScales:
    def test_a_block_of_zeros_has_no_say(self, name):
        trits = random_trits(2, 512)
        trits[0, :256] = 0
        decoded = ternary.decode(name, ternary.encode(name, trits, 0.5), 2, 512)
        assert np.array_equal(decoded.trits, trits)
        assert decoded.scale == np.float32(0.5)

    def test_trits_under_scale_zero_are_zeros(self, name):
        raw = ternary.encode(name, np.ones((1, 512), np.int8), 0.5).reshape(2, -1)
        raw[1, -2:] = 0
        decoded = ternary.decode(name, raw.reshape(-1), 1, 512)
        assert decoded.trits[0, :256].all()
        assert not decoded.trits[0, 256:].any()

    def test_a_tensor_of_zeros_has_scale_zero(self, name):
        zeros = np.zeros((2, 256), np.int8)
        decoded = ternary.decode(name, ternary.encode(name, zeros, 0.5), 2, 256)
        assert decoded.scale == 0
        assert not decoded.trits.any()

    def test_different_scales_are_refused(self, name):
        parts = [ternary.encode(name, random_trits(1, 256), scale) for scale in (0.5, 0.25)]
        with pytest.raises(UnsupportedError, match="2 different scales"):
            ternary.decode(name, np.concatenate(parts), 2, 256)

    def test_rows_must_be_whole_blocks(self, name):
        with pytest.raises(UnsupportedError, match="256"):
            ternary.encode(name, random_trits(1, 128), 1.0)
        with pytest.raises(UnsupportedError, match="256"):
            ternary.decode(name, np.zeros(66, np.uint8), 2, 128)

    def test_a_scale_beyond_float16_is_refused(self, name):
        for scale in (1e6, 1e-12):
            with pytest.raises(OptionError, match="float16"):
                ternary.encode(name, random_trits(1, 256), scale)


@pytest.mark.parametrize("name", ternary.NAMES)
def test_a_wrong_number_of_bytes_is_refused(name):
    raw = ternary.encode(name, random_trits(2, 256), 1.0)
    with pytest.raises(FormatError, match="bytes"):
        ternary.decode(name, raw[:-1], 2, 256)


def test_i2_s_refuses_a_broken_last_block():
    with pytest.raises(UnsupportedError, match="128"):
        ternary.encode("I2_S", random_trits(1, 132), 1.0)
    with pytest.raises(UnsupportedError, match="128"):
        ternary.decode("I2_S", np.zeros(65, np.uint8), 1, 132)


def test_an_unknown_arrangement_and_an_unknown_type_are_named():
    with pytest.raises(OptionError, match="'32'; known: 128, 64, 4row"):
        ternary.encode("I2_S", random_trits(1, 128), 1.0, arrangement="32")
    with pytest.raises(UnsupportedError, match="type Q4_K is no ternary type"):
        ternary.decode("Q4_K", np.zeros(144, np.uint8), 1, 256)


def test_only_trits_are_packed():
    with pytest.raises(OptionError, match="trits"):
        ternary.pack_rows(np.full((1, 128), 2, np.int8))
    with pytest.raises(OptionError, match="trits"):
        ternary.pack_rows(np.zeros(128, np.int8))
