"""Every kernel against the NumPy oracle: integers bit for bit, floats within stated bounds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import reference

from bitnet_cy.engine import kernels
from bitnet_cy.errors import BitNetError, OptionError
from bitnet_cy.formats import ternary

EDGES = [*range(1, 10), 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]
COLUMNS = [100, 640, 5460, 8640]


@pytest.fixture(params=kernels.available(), autouse=True)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    kernels.select(request.param)
    yield request.param
    kernels.select()


def random_case(m: int, k: int, t: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    trits = rng.integers(-1, 2, (m, k)).astype(np.int8)
    return trits, rng.integers(-128, 128, (t, k)).astype(np.int8)


def check(trits: np.ndarray, q: np.ndarray, method: str, threads: int = 1) -> None:
    found = kernels.ternary_matmul(ternary.pack_rows(trits), q, threads, method)
    np.testing.assert_array_equal(found, reference.integer_product(trits, q))


@pytest.mark.parametrize("method", ["gemv", "gemm", "wide", "auto"])
@pytest.mark.parametrize("tokens", EDGES)
def test_products_are_exact_for_every_number_of_tokens(tokens: int, method: str) -> None:
    check(*random_case(33, 640, tokens, seed=tokens), method)


@pytest.mark.parametrize("method", ["gemv", "gemm", "wide"])
@pytest.mark.parametrize("rows", EDGES)
def test_products_are_exact_for_every_number_of_rows(rows: int, method: str) -> None:
    check(*random_case(rows, 256, 33 if method == "wide" else 5, seed=rows), method)


@pytest.mark.parametrize("method", ["gemv", "gemm", "wide"])
@pytest.mark.parametrize("columns", [1, 3, 4, 31, 32, 33, 127, 128, 129, *COLUMNS])
def test_products_are_exact_for_every_row_length(columns: int, method: str) -> None:
    check(*random_case(17, columns, 39 if method == "wide" else 7, seed=columns), method)


@pytest.mark.parametrize("method", ["gemv", "gemm", "wide"])
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("tokens", [1, 4, 9, 32])
def test_extreme_values_do_not_overflow(columns: int, tokens: int, method: str) -> None:
    alternating = np.where(np.arange(columns) % 2, 1, -1).astype(np.int8)
    for row in (np.ones(columns), -np.ones(columns), alternating, -alternating):
        trits = np.tile(row.astype(np.int8), (9, 1))
        for values in (np.full(columns, 127), np.full(columns, -128), alternating * 127):
            check(trits, np.tile(values.astype(np.int8), (tokens, 1)), method)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("method", ["gemv", "gemm", "wide"])
def test_products_do_not_depend_on_threads(method: str, threads: int) -> None:
    check(*random_case(257, 2560, 37), method, threads)
    check(*random_case(2600, 256, 101), method, threads)


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 16, 100, 640, 5460])
def test_quantize_is_the_reference_bit_for_bit(columns: int) -> None:
    x = np.random.default_rng(columns).standard_normal((9, columns)).astype(np.float32)
    x[1] *= 1e-7
    x[2] = 0
    x[3] *= 1e6
    q, scale = kernels.quantize(x)
    expected_q, expected_scale = reference.quantize(x)
    np.testing.assert_array_equal(q, expected_q)
    np.testing.assert_array_equal(scale, expected_scale)


def test_quantize_of_a_known_vector() -> None:
    x = np.array([[0.1, -0.25, 3.0, -1.7, 0, 2.9999, 0.011811, -3.0]], np.float32)
    q, scale = kernels.quantize(x)
    assert q.tolist() == [[4, -11, 127, -72, 0, 127, 0, -127]]
    assert scale.view(np.uint32).tolist() == [0x42295555]


def test_quantize_rounds_halves_to_even() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 127]], np.float32)
    assert kernels.quantize(x)[0].tolist() == [[0, 2, 2, 0, -2, -2, 126, -126, 127]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 8, 12])
def test_quantize_marks_rows_that_are_not_finite(bad: float, place: int) -> None:
    x = np.ones((1, 13), np.float32)
    x[0, place] = bad
    q, scale = kernels.quantize(x)
    assert np.isnan(scale[0])
    assert not q.any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("columns", [1, 7, 16, 33, 100, 2560])
def test_dot_products_agree_with_float64(columns: int, dtype: type) -> None:
    rng = np.random.default_rng(columns)
    rows = rng.standard_normal((7, columns)).astype(dtype)
    x = rng.standard_normal(columns).astype(np.float32)
    bound = np.abs(rows.astype(np.float64)) @ np.abs(x) * 2e-6
    error = np.abs(kernels.dot_rows(rows, x) - rows.astype(np.float64) @ x)
    assert (error <= bound).all()


def test_float16_rows_give_the_same_bits_as_float32_rows() -> None:
    rng = np.random.default_rng(0)
    for columns in (3, 64, 100, 129):
        rows = rng.standard_normal((6, columns)).astype(np.float16)
        x = rng.standard_normal(columns).astype(np.float32)
        np.testing.assert_array_equal(
            kernels.dot_rows(rows, x), kernels.dot_rows(rows.astype(np.float32), x)
        )


def test_every_float16_converts_exactly_and_back() -> None:
    half = np.arange(65536, dtype=np.uint16).view(np.float16)
    wide = kernels.float_operation("f16_to_f32", half)
    np.testing.assert_array_equal(wide, half.astype(np.float32))
    numbers = ~np.isnan(half)
    back = kernels.float_operation("f32_to_f16", wide)
    np.testing.assert_array_equal(back[numbers].view(np.uint16), half[numbers].view(np.uint16))
    assert np.isnan(back[~numbers]).all()


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 16, 256])
def test_int8_becomes_the_same_float32(columns: int) -> None:
    x = np.arange(-128, 128, dtype=np.int8)[-columns:]
    np.testing.assert_array_equal(kernels.float_operation("i8_to_f32", x), x.astype(np.float32))


def test_float32_rounds_to_the_nearest_float16() -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(5000) * 10.0 ** rng.integers(-9, 6, 5000)).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    found = kernels.float_operation("f32_to_f16", x)
    np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("n", [1, 5, 8, 13, 100])
def test_float_operations_agree_with_numpy(n: int) -> None:
    rng = np.random.default_rng(n)
    x, other = rng.standard_normal((2, n)).astype(np.float32)
    wide = x.astype(np.float64) * 4
    x = x * np.float32(4)
    cases = {
        "rms_norm": reference.rms_norm(wide, other, 1e-5),
        "relu2_mul": reference.ACTIVATIONS["relu2"](wide) * other,
        "silu_mul": reference.ACTIVATIONS["silu"](wide) * other,
        "gelu_mul": reference.ACTIVATIONS["gelu"](wide) * other,
    }
    for name, expected in cases.items():
        found = kernels.float_operation(name, x, other, 1e-5)
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=3e-7, err_msg=name)


def test_gelu_is_right_where_it_ends() -> None:
    x = np.array([-1e30, -40, -9, -0.0, 0.0, 9, 40, 1e30, np.inf], np.float32)
    with np.errstate(over="ignore"):
        found = kernels.float_operation("gelu_mul", x, np.ones(9))
    np.testing.assert_allclose(found, [0, 0, 0, 0, 0, 9, 40, 1e30, np.inf], atol=1e-7)


@pytest.mark.parametrize("group", [32, 64, 128, 256, 640])
def test_ternary_rows_become_floats_exactly(group: int) -> None:
    rng = np.random.default_rng(group)
    trits = rng.integers(-1, 2, 640).astype(np.int8)
    scales = rng.standard_normal(-(-640 // group)).astype(np.float32) ** 2
    shown = 1 << (group - 1).bit_length()
    expected = trits * np.repeat(scales, group)[:640]
    found = kernels.decode_ternary(ternary.pack_rows(trits[None])[0], scales, shown)
    np.testing.assert_array_equal(found, expected)


def test_softmax_in_steps_agrees_with_numpy_and_hidden_keys_weigh_nothing() -> None:
    scores = np.random.default_rng(3).uniform(-30, 30, (75, 16)).astype(np.float32)
    scores[::3, 5] = -np.inf
    scores[:40, 6] = -np.inf
    maximum, total = np.full(16, -3.4e38, np.float32), np.zeros(16, np.float32)
    weights = np.zeros((0, 16))
    for start in range(0, 75, 32):
        new, shrink = kernels.softmax_step(scores[start : start + 32], maximum, total)
        weights = np.concatenate([weights * shrink, new])
    wide = scores.astype(np.float64)
    expected = np.exp(wide - wide.max(axis=0))
    np.testing.assert_allclose(weights / total, expected / expected.sum(axis=0), 2e-5, 1e-25)
    np.testing.assert_array_equal(maximum, scores.max(axis=0))
    assert (weights[::3, 5] == 0).all()
    assert (weights[:40, 6] == 0).all()


@pytest.mark.parametrize("name", ["relu2_mul", "silu_mul", "gelu_mul"])
def test_activations_keep_nan(name: str) -> None:
    x = np.full(11, np.nan, np.float32)
    assert np.isnan(kernels.float_operation(name, x, np.ones(11))).all()


def test_code_3_is_found_anywhere() -> None:
    codes = np.full(200_001, 0b10_01_00_10, np.uint8)
    assert not kernels.has_code_3(codes)
    for place in (0, 70_003, 200_000):
        for shift in (0, 2, 4, 6):
            damaged = codes.copy()
            damaged[place] |= 3 << shift
            assert kernels.has_code_3(damaged, 2)


def test_self_check_passes_on_sound_kernels(kernel: str) -> None:
    kernels.self_check(ternary.pack_rows(random_case(16, 640, 1)[0]), "rows")
    assert kernels.selected() == kernel


def test_selecting_an_unknown_kernel_names_those_that_exist() -> None:
    with pytest.raises(OptionError, match="available here: scalar"):
        kernels.select("avx1024")


def test_products_refuse_activations_wider_than_the_rows() -> None:
    with pytest.raises(BitNetError, match="columns"):
        kernels.ternary_matmul(np.zeros((4, 32), np.uint8), np.zeros((1, 200), np.int8))


def test_no_operation_runs_scalar_beside_a_kernel_that_does_not(kernel: str) -> None:
    found = kernels.operations()
    assert found["ternary_gemv"] == found["ternary_gemm"] == kernel
    assert all((name == "scalar") == (kernel == "scalar") for name in found.values())
    assert set(found.values()) <= set(kernels.available())
