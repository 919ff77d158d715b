"""Rows of five trits in a byte: the same products, networks and files as with two-bit rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import make_model
import networks
import numpy as np
import pytest
import reference

import bitnet_cy
from bitnet_cy.architectures import arrangement
from bitnet_cy.convert import convert
from bitnet_cy.engine import Network, Session, Ternary, dense, kernels
from bitnet_cy.errors import FormatError, OptionError, ResourceError, UnsupportedError
from bitnet_cy.formats import gguf, ternary

EDGES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17]
COLUMNS = [1, 31, 32, 33, 127, 128, 129, 159, 160, 161, 320, 640, 2560, 5460, 6912]
IDS = np.random.default_rng(3).integers(0, 300, 23)


@pytest.fixture(params=kernels.available())
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    kernels.select(request.param)
    yield request.param
    kernels.select()


def random_case(rows: int, cols: int, tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    trits = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
    return trits, rng.integers(-128, 128, (tokens, cols)).astype(np.int8)


def check(trits: np.ndarray, q: np.ndarray, threads: int = 1) -> None:
    codes, cols = ternary.pack_rows(trits), trits.shape[1]
    packed = dense.pack(codes, cols, threads)
    assert not dense.is_damaged(packed, threads)
    np.testing.assert_array_equal(dense.unpack(packed, cols, threads), codes)
    np.testing.assert_array_equal(dense.matmul(packed, q), reference.integer_product(trits, q))


@pytest.mark.parametrize("tokens", EDGES)
def test_products_are_exact_for_every_number_of_tokens(kernel: str, tokens: int) -> None:
    check(*random_case(9, 640, tokens, seed=tokens))


@pytest.mark.parametrize("rows", EDGES)
def test_products_are_exact_for_every_number_of_rows(kernel: str, rows: int) -> None:
    check(*random_case(rows, 480, 3, seed=rows))


@pytest.mark.parametrize("columns", COLUMNS)
def test_products_are_exact_for_every_row_length(kernel: str, columns: int) -> None:
    check(*random_case(6, columns, 3, seed=columns))


@pytest.mark.parametrize("columns", [160, 5460, 30000])
def test_extreme_values_do_not_overflow(kernel: str, columns: int) -> None:
    alternating = np.where(np.arange(columns) % 2, 1, -1).astype(np.int8)
    for row in (np.ones(columns), -np.ones(columns), alternating, -alternating):
        for values in (np.full(columns, 127), np.full(columns, -128), alternating * 127):
            check(np.tile(row.astype(np.int8), (5, 1)), np.tile(values.astype(np.int8), (2, 1)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_are_made_alike_by_any_number_of_threads(kernel: str, threads: int) -> None:
    check(*random_case(257, 640, 1), threads)


def test_rows_are_those_that_the_format_describes(kernel: str) -> None:
    trits, _ = random_case(7, 700, 1)
    raw = ternary.encode("I1_6_S", trits, 0.5)
    found = ternary.rows_as_stored("I1_6_S", raw, *trits.shape)
    assert found is not None
    np.testing.assert_array_equal(dense.pack(ternary.pack_rows(trits), 700), found[0])
    assert found[1] == "1.6bit"
    assert ternary.scale_as_stored(raw, found[0]) == 0.5


def test_a_byte_that_no_five_trits_make_is_found_anywhere() -> None:
    bad = sorted(set(range(256)) - {-(-256 * number // 243) for number in range(243)})
    assert len(bad) == 13
    sound = dense.pack(ternary.pack_rows(random_case(100, 640, 1)[0]), 640).reshape(-1)
    for byte in bad:
        for place in (0, 5000, sound.size - 1):
            damaged = sound.copy()
            damaged[place] = byte
            assert dense.is_damaged(damaged, 2)


def test_self_check_passes_on_sound_kernels(kernel: str) -> None:
    dense.self_check(dense.pack(ternary.pack_rows(random_case(16, 640, 1)[0]), 640), 640, "rows")
    assert kernels.selected() == kernel


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(OptionError, match="bytes are needed"):
        dense.pack(np.zeros((4, 32), np.uint8), 200)
    with pytest.raises(OptionError, match="blocks"):
        dense.matmul(np.zeros((4, 32), np.uint8), np.zeros((1, 200), np.int8))


@pytest.mark.parametrize("variant", [{}, {"hidden": 132, "ffn": 455, "head_dim": 34}])
def test_a_network_gives_the_same_bits_in_either_layout(
    kernel: str, variant: dict[str, int]
) -> None:
    network, packed = _both(variant)
    expected = Session(network, context_length=40).forward(IDS, "all")
    assert (network.layout, packed.layout) == ("2bit", "1.6bit")
    for threads in (1, 2):
        for block in (1, 3, 4, 5, 32):
            session = Session(packed, context_length=40, threads=threads, block_size=block)
            np.testing.assert_array_equal(session.forward(IDS, "all"), expected)


def _both(variant: dict[str, int]) -> tuple[Network, Network]:
    made: list[tuple[object, ...]] = []

    def keep(*parts: object) -> Network:
        made.append(parts)
        return Network(*parts)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "Network", keep)
        network, _ = networks.make(**variant)  # type: ignore[arg-type]
    shape, layers, *rest = made[0]
    packed, _ = arrangement.arrange(layers, "1.6bit", 2)  # type: ignore[arg-type]
    return network, Network(shape, packed, *rest)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    make_model.make("tiny", path)
    return path


def test_a_model_runs_as_asked_and_says_so(tiny: Path) -> None:
    expected = bitnet_cy.load(tiny, weights="2bit").logits(range(5, 20))
    model = bitnet_cy.load(tiny, weights="1.6bit")
    assert (model.weights.layout, model.network.layout) == ("1.6bit", "1.6bit")
    assert "asked for" in str(model.weights)
    assert model.memory_breakdown["ternary"]["mapped"] == 0
    np.testing.assert_array_equal(model.logits(range(5, 20)), expected)
    with pytest.raises(OptionError, match="weights"):
        bitnet_cy.load(tiny, weights="3bit")


def test_a_saved_model_runs_from_its_file(tiny: Path, tmp_path: Path) -> None:
    saved, back = tmp_path / "saved.gguf", tmp_path / "back.gguf"
    convert(tiny, saved, type="i1_6_s")
    convert(saved, back, type="i2_s")
    expected = bitnet_cy.load(tiny).logits(range(5, 20))
    model = bitnet_cy.load(saved)
    assert str(model.weights) == "1.6bit (as the file holds them)"
    assert model.memory_breakdown["ternary"]["copied"] == 0
    np.testing.assert_array_equal(model.logits(range(5, 20)), expected)
    plain = bitnet_cy.load(saved, weights="2bit")
    assert plain.network.layout == "2bit"
    np.testing.assert_array_equal(plain.logits(range(5, 20)), expected)
    with gguf.read(tiny) as first, gguf.read(back) as second:
        for name, info in first.tensors.items():
            if info.type_name == "I2_S":
                np.testing.assert_array_equal(first.raw(name), second.raw(name))


def test_a_damaged_saved_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.gguf"
    convert(tiny, saved, type="i1_6_s")
    with gguf.read(saved) as file:
        offset = file.raw("blk.0.ffn_up.weight").ctypes.data - file.view(0, 1).ctypes.data
    with saved.open("r+b") as file:
        file.seek(offset + 40)
        file.write(b"\x01")
    with pytest.raises(FormatError, match=r"blk\.0\.ffn_up\.weight.*no five trits"):
        bitnet_cy.load(saved)


def _layers() -> list[object]:
    network: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "Network", lambda *parts: network.append(parts[1]))
        networks.make()
    return network[0]  # type: ignore[return-value]


@pytest.mark.parametrize(("seconds", "layout"), [(0.7, "1.6bit"), (0.99, "2bit"), (1.3, "2bit")])
def test_the_layout_that_measures_faster_is_taken(
    monkeypatch: pytest.MonkeyPatch, seconds: float, layout: str
) -> None:
    layers = _layers()
    monkeypatch.setattr(arrangement, "_SAMPLE", 1000)
    fake = {"2bit": 1.0, "1.6bit": seconds}
    monkeypatch.setattr(dense, "gemv_seconds", lambda rows, layout, threads: fake[layout])
    arranged, found = arrangement.arrange(layers, "auto", 1)  # type: ignore[arg-type]
    assert (found.layout, arranged[-1].down.layout) == (layout, layout)
    assert f"{seconds:.0%}" in found.reason
    tight = arrangement.arrange(layers, "auto", 1, room=100)[1]  # type: ignore[arg-type]
    assert str(tight) == "2bit (there is no memory for a copy)"


def test_few_weights_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dense, "gemv_seconds")
    found = arrangement.arrange(_layers(), "auto", 1)[1]  # type: ignore[arg-type]
    assert str(found) == "2bit (the weights are few)"


def test_a_copy_asked_for_that_has_no_room_is_an_error() -> None:
    with pytest.raises(ResourceError, match=r"1\.6bit"):
        arrangement.arrange(_layers(), "1.6bit", 1, room=100)  # type: ignore[arg-type]


def test_float_activations_keep_two_bits() -> None:
    layers = _layers()
    found = arrangement.arrange(layers, "auto", 1, weight_only=True)[1]  # type: ignore[arg-type]
    assert str(found) == "2bit (of float activations)"
    with pytest.raises(UnsupportedError, match="float activations"):
        arrangement.arrange(layers, "1.6bit", 1, weight_only=True)  # type: ignore[arg-type]


def test_measuring_runs_the_products_of_every_row() -> None:
    codes = ternary.pack_rows(random_case(130, 640, 1)[0])
    for layout, rows in (("2bit", codes), ("1.6bit", dense.pack(codes, 640))):
        assert dense.gemv_seconds([rows, rows[:3]], layout, 2) > 0


def test_layers_of_different_layouts_are_refused() -> None:
    network, _ = networks.make()
    layers = _layers()
    mixed = replace(layers[1], q=replace(layers[1].q, layout="1.6bit"))  # type: ignore[attr-defined,type-var]
    with pytest.raises(FormatError, match="same layout"):
        Network(network.shape, [layers[0], mixed], None, None, None)  # type: ignore[list-item,arg-type]


def test_rows_too_long_for_exact_sums_are_refused() -> None:
    shape = replace(networks.make()[0].shape, hidden_size=2**18)
    layers = _layers()
    long = Ternary(np.zeros((128, 1), np.uint8), 128, 2**18, 1.0, "1.6bit")
    layers = [replace(layer, q=long) for layer in layers]  # type: ignore[type-var]
    with pytest.raises(FormatError, match="too long"):
        Network(shape, layers, None, None, None)  # type: ignore[arg-type]
