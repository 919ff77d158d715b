"""Packed ternary layouts: golden vectors of the programs that define them, tails, bad data."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import ternary

# Layouts that store a scale with each block of a row, in float16 at the start or the end of it.
BLOCKED = {"TQ1_0": (256, -2), "TQ2_0": (256, -2)}
BLOCKED |= {"Q2_0": (64, 0), "Q2_0_128": (128, 0), "PQ2_0": (128, 0)}
BY_ROW = ("IQ1_BN", "IQ2_BN", "IQ2_BN_R4")
# What a file does not say about its layout.
UNTOLD = {"TL1": {"kernel": (64, 128, 32)}, "TL2": {"kernel": (64, 96, 32)}}

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
    (
        "Q2_0", (1, 128), {},
        "00381495514209a556244954825829a46544003851a5900959a62aa08925068180929698",
    ),
    (
        "Q2_0_128", (1, 128), {},
        "00381495514209a556244954825829a4654451a5900959a62aa08925068180929698",
    ),
    ("IQ1_BN", (1, 128), {}, "00386234185da9cc2447951b8d22277d1b4ad8fead96960ae4a59653"),
    (
        "IQ2_BN", (1, 128), {},
        "0000003f54a981100555999a6944856502641851152805a599156a8aa8584982118248a8",
    ),
]  # fmt: skip

# For the layouts whose bytes are too many to print: kernel, the first bytes, the number of
# bytes of codes, and how their SHA-256 begins.
TABLES = [
    ("TL1", (128, 128), (64, 64, 32), "13457380718143430463482653756318", 4096, "8041f022855dc9fd"),
    ("TL1", (128, 128), (128, 64, 64), "", 4096, "2d30861a7d241dfc"),
    ("TL1", (256, 256), (128, 128, 32), "13737143044853631426205721022316", 16384,
     "7bf2076b308f1127"),
    ("TL2", (128, 384), (64, 96, 32), "99bc076538865d8d6c68ad2c6c3304b7", 11605,
     "431bb8be76847515"),
    ("TL2", (128, 512), (128, 96, 32), "9981c238907a726c304c471b2480bc43", 15018,
     "6d60fbf3cfbe3a65"),
    ("TL2", (160, 320), (160, 96, 32), "99a3b2aa1d9986d2b465900457d84d69", 12373,
     "3c9fc6b3c22208fa"),
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


@pytest.mark.parametrize(("name", "shape", "kernel", "first", "count", "digest"), TABLES)
def test_golden_lookup_table_layouts(name, shape, kernel, first, count, digest):
    trits = golden_trits(*shape)
    raw = ternary.encode(name, trits, 0.5, kernel=kernel)
    assert raw.tobytes().startswith(bytes.fromhex(first))
    assert hashlib.sha256(raw[:count].tobytes()).hexdigest().startswith(digest)
    assert raw[-32:-28].view("<f4") == np.float32(0.5)
    decoded = ternary.decode(name, raw, *shape, kernel=kernel)
    assert np.array_equal(decoded.trits, trits)
    assert decoded.scale == np.float32(0.5)


def test_golden_bytes_of_four_interleaved_rows():
    trits, scales = golden_trits(4, 64), np.array([0.5, 0.25, 1, 2], np.float32)
    raw = ternary.encode("IQ2_BN_R4", trits, scales)
    assert raw.tobytes().hex() == (
        "0000003f0000803e0000803f0000004094051558458419295999a5228a1a8510255698182926a98902418a01"
        "1099204221864465651608825952a15414604a6911562a58289054aa90a468a0458a4a60"
    )
    decoded = ternary.decode("IQ2_BN_R4", raw, 4, 64, grouped=True)
    assert np.array_equal(decoded.trits, trits)
    assert np.array_equal(decoded.scale, scales[:, None])


def test_golden_packed_uint8_weights():
    trits = golden_trits(8, 4)
    packed = ternary.pack_quarters(trits)
    assert packed.shape == (2, 4)
    assert packed.tobytes().hex() == "946145441951a126"
    assert np.array_equal(ternary.unpack_quarters(packed), trits)
    assert np.array_equal(ternary.unpack_quarters(packed.view(np.int8)), trits)


def test_packed_uint8_weights_are_checked():
    with pytest.raises(FormatError, match="code 3"):
        ternary.unpack_quarters(np.full((2, 4), 0xC0, np.uint8))
    for wrong in (np.zeros(4, np.uint8), np.zeros((2, 4), np.int16)):
        with pytest.raises(FormatError, match="packed weights are bytes"):
            ternary.unpack_quarters(wrong)
    with pytest.raises(UnsupportedError, match="multiples of 4"):
        ternary.pack_quarters(random_trits(6, 4))


@pytest.mark.parametrize("name", ternary.NAMES)
def test_round_trip_of_a_matrix(name):
    trits = random_trits(64, 512)
    layout = UNTOLD.get(name, {})
    decoded = ternary.decode(name, ternary.encode(name, trits, 1.25, **layout), 64, 512, **layout)
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
    rows, layout = ternary.rows_as_stored("I2_S", raw, 5, 256)
    assert layout == "2bit"
    assert np.shares_memory(rows, raw)
    assert np.array_equal(rows, ternary.pack_rows(trits))
    assert ternary.rows_as_stored("I2_S", raw, 10, 100) is None


@pytest.mark.parametrize("name", ["I2_S", "TQ2_0", "Q2_0", "Q2_0_128", "IQ2_BN", "IQ2_BN_R4"])
def test_code_three_is_refused(name):
    raw = ternary.encode(name, random_trits(4, 256), 1.0)
    raw[20] |= 3
    with pytest.raises(FormatError, match="code 3"):
        ternary.decode(name, raw, 4, 256)


@pytest.mark.parametrize(("name", "bad"), [("TL1", 0x90), ("TL1", 0x0F), ("TL2", 0xE0)])
def test_a_nibble_that_is_no_trits_is_refused(name, bad):
    raw = ternary.encode(name, random_trits(64, 512), 1.0, **UNTOLD[name])
    raw[5] = bad
    with pytest.raises(FormatError, match="no trits"):
        ternary.decode(name, raw, 64, 512, **UNTOLD[name])


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("name", ternary.NAMES)
def test_a_scale_that_is_no_scale_is_refused(name, scale):
    trits, layout = random_trits(64, 512), UNTOLD.get(name, {})
    with pytest.raises(FormatError, match="scale"):
        ternary.encode(name, trits, scale, **layout)
    raw = ternary.encode(name, trits, 1.0, **layout)
    if name in BLOCKED or name == "IQ1_BN":
        start = BLOCKED.get(name, (0, 0))[1] % raw.size
        raw[start : start + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    else:
        start = 0 if name in BY_ROW else raw.size - 32
        raw[start : start + 4] = np.frombuffer(np.float32(scale).tobytes(), np.uint8)
    with pytest.raises(FormatError, match="scale"):
        ternary.decode(name, raw, 64, 512, **layout)


@pytest.mark.parametrize("name", ternary.NAMES)
def test_trits_under_scale_zero_are_zeros(name):
    layout = UNTOLD.get(name, {})
    raw = ternary.encode(name, random_trits(64, 512), 0.0, **layout)
    decoded = ternary.decode(name, raw, 64, 512, **layout)
    assert decoded.scale == 0
    assert not decoded.trits.any()


@pytest.mark.parametrize("name", [*BLOCKED, *BY_ROW])
class TestManyScales:
    def test_a_row_of_zeros_has_no_say(self, name):
        trits = random_trits(4, 512)
        trits[1] = 0
        decoded = ternary.decode(name, ternary.encode(name, trits, 0.5), 4, 512)
        assert np.array_equal(decoded.trits, trits)
        assert decoded.scale == np.float32(0.5)

    def test_a_tensor_of_zeros_has_scale_zero(self, name):
        zeros = np.zeros((4, 256), np.int8)
        decoded = ternary.decode(name, ternary.encode(name, zeros, 0.5), 4, 256)
        assert decoded.scale == 0
        assert not decoded.trits.any()

    def test_different_scales_are_kept_where_asked_for(self, name):
        trits = random_trits(4, 512)
        scales = np.array([0.5, 0.25, 1, 0.5], np.float32)
        raw = ternary.encode(name, trits, scales)
        decoded = ternary.decode(name, raw, 4, 512, grouped=True)
        assert np.array_equal(decoded.dense(), trits * scales[:, None])
        with pytest.raises(UnsupportedError, match="3 different scales"):
            ternary.decode(name, raw, 4, 512)


@pytest.mark.parametrize("name", BLOCKED)
class TestBlockScales:
    def test_a_block_of_zeros_has_no_say(self, name):
        trits = random_trits(2, 512)
        trits[0, :256] = 0
        decoded = ternary.decode(name, ternary.encode(name, trits, 0.5), 2, 512)
        assert np.array_equal(decoded.trits, trits)
        assert decoded.scale == np.float32(0.5)

    def test_trits_of_a_block_under_scale_zero_are_zeros(self, name):
        block, start = BLOCKED[name]
        raw = ternary.encode(name, np.ones((1, 512), np.int8), 0.5)
        last = raw.reshape(512 // block, -1)[-1]
        last[start : start + 2 or None] = 0
        decoded = ternary.decode(name, raw, 1, 512)
        assert decoded.trits[0, :-block].all()
        assert not decoded.trits[0, -block:].any()

    def test_each_block_can_have_its_scale(self, name):
        trits = random_trits(2, 512)
        scales = np.array([[0.5, 0.25], [1, 2]], np.float32)
        raw = ternary.encode(name, trits, scales)
        decoded = ternary.decode(name, raw, 2, 512, grouped=True)
        assert np.array_equal(decoded.dense(), trits * np.repeat(scales, 256, axis=1))
        with pytest.raises(UnsupportedError, match="do not fit"):
            ternary.encode(name, trits, np.ones((2, 3), np.float32))

    def test_rows_must_be_whole_blocks(self, name):
        block = str(BLOCKED[name][0])
        with pytest.raises(UnsupportedError, match=block):
            ternary.encode(name, random_trits(1, 32), 1.0)
        with pytest.raises(UnsupportedError, match=block):
            ternary.decode(name, np.zeros(66, np.uint8), 2, 32)

    def test_a_scale_beyond_float16_is_refused(self, name):
        for scale in (1e6, 1e-12):
            with pytest.raises(OptionError, match="float16"):
                ternary.encode(name, random_trits(1, 256), scale)


@pytest.mark.parametrize("name", ternary.NAMES)
def test_a_wrong_number_of_bytes_is_refused(name):
    layout = UNTOLD.get(name, {})
    raw = ternary.encode(name, random_trits(64, 512), 1.0, **layout)
    with pytest.raises(FormatError, match="bytes"):
        ternary.decode(name, raw[:-1], 64, 512, **layout)


class TestLookupTables:
    @pytest.mark.parametrize("name", UNTOLD)
    def test_without_a_kernel_they_are_not_guessed(self, name):
        with pytest.raises(UnsupportedError, match=r"kernel_config\.ini"):
            ternary.decode(name, np.zeros(100, np.uint8), 64, 512)

    @pytest.mark.parametrize("name", UNTOLD)
    def test_kernels_that_cannot_be_are_refused(self, name):
        trits = random_trits(64, 512)
        for kernel in ((64, 96, 16), (0, 96, 32), (64, 96)):
            with pytest.raises(OptionError, match="kernel"):
                ternary.encode(name, trits, 1.0, kernel=kernel)
        for kernel in ((48, 96, 32), (64, 100, 32), (128, 96, 32)):
            with pytest.raises(UnsupportedError, match="multiples"):
                ternary.encode(name, trits, 1.0, kernel=kernel)

    @pytest.mark.parametrize(
        ("name", "shape", "kernel"),
        [
            ("TL1", (320, 3200), (320, 128, 64)),
            ("TL1", (256, 1536), (256, 128, 32)),
            ("TL2", (320, 3200), (320, 96, 32)),
            ("TL2", (128, 1536), (128, 192, 32)),
        ],
    )
    def test_the_kernels_of_published_models_come_back(self, name, shape, kernel):
        trits = random_trits(*shape)
        raw = ternary.encode(name, trits, 1.0, kernel=kernel)
        assert np.array_equal(ternary.decode(name, raw, *shape, kernel=kernel).trits, trits)

    def test_kernels_are_read_from_the_file_bitnet_cpp_writes(self, tmp_path):
        path = tmp_path / "kernel_config.ini"
        path.write_text("[Kernels_0]\nm = 320\nk = 3200\nbm = 160\nbk = 96\nbmm = 32\n")
        assert ternary.read_kernels(path) == {(320, 3200): (160, 96, 32)}
        for text in ("m = 3", "[Kernels_0]\nm = many\n", "[Kernels_0]\nm = %(x)s\n"):
            path.write_text(text)
            with pytest.raises(FormatError, match=r"kernel_config\.ini"):
                ternary.read_kernels(path)
        with pytest.raises(FormatError, match="cannot read"):
            ternary.read_kernels(tmp_path / "absent.ini")


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
    for wrong in (np.zeros(128, np.int8), np.full((1, 128), 0.5), np.zeros((0, 128), np.int8)):
        with pytest.raises(OptionError, match="trits"):
            ternary.pack_rows(wrong)
