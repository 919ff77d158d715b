"""The forward step: against the oracle, and the same bits however the work is split."""

from __future__ import annotations

import os
import threading
from typing import Any

import networks
import numpy as np
import pytest

from bitnet_cy.architectures.rope import scaled
from bitnet_cy.engine import (
    Matrix,
    Network,
    Rope,
    Session,
    cache_nbytes,
    forward_together,
    kernels,
)
from bitnet_cy.errors import BitNetError, ContextError, FormatError, OptionError, UnsupportedError
from bitnet_cy.formats.rope import RopeScaling

IDS = np.random.default_rng(3).integers(0, 300, 75)

SCALED = scaled(10000.0, 32, RopeScaling("yarn", 4.0, 16, attention_factor=1.2))
VARIANTS: dict[str, dict[str, Any]] = {
    "bitnet": {},
    "silu": {"activation": "silu"},
    "llama": {"activation": "silu", "interleaved": True, "sub_norms": False},
    "head of 100": {"head_dim": 100, "hidden": 400, "kv_heads": 4},
    "tails": {"hidden": 132, "ffn": 5460 // 12, "head_dim": 34},
    "many rows": {"hidden": 128, "ffn": 2600},
    "wide heads": {"head_dim": 256, "heads": 2, "kv_heads": 1},
    "head of 96": {"head_dim": 96, "hidden": 384, "kv_heads": 1, "activation": "silu"},
    "qwen3": networks.QWEN3 | {"hidden": 96},
    "qwen3 with input norms": networks.QWEN3 | {"input_norms": True},
    "weight-only": networks.QWEN3 | {"weight_only": True, "hidden": 132, "ffn": 5460 // 12},
    "weight-only groups": networks.QWEN3
    | {"weight_only": True, "group": 128, "hidden": 256, "ffn": 384},
    "weight-only groups of 32": networks.QWEN3 | {"weight_only": True, "group": 32},
    "scaled positions": networks.QWEN3 | {"rope": SCALED},
    "gemma3 with scaled positions": networks.GEMMA3 | {"rope": SCALED, "bases": (10000.0, None)},
    "gemma3": networks.GEMMA3,
    "gemma3 with input norms": networks.GEMMA3 | {"input_norms": True, "head_dim": 256},
    **{
        name: {"matrix_type": name, "hidden": 256}
        for name in ("F32", "BF16", "Q8_0", "Q6_K", "Q4_0")
    },
}


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """A float32 step may move a value across a rounding edge of the int8 activations, which
    changes the logits by some thousandths; the direction stays."""
    for a, b in zip(found.astype(np.float64), expected, strict=True):
        assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.9995
    assert np.median(np.abs(found - expected)) < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("kernel", kernels.available())
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_agree_with_the_oracle(variant: str, kernel: str) -> None:
    network, model = networks.make(**VARIANTS[variant])
    kernels.select(kernel)
    try:
        found = Session(network, context_length=80, kv_dtype="float32").forward(IDS, "all")
    finally:
        kernels.select()
    close(found, model.logits(IDS))


@pytest.mark.parametrize("kernel", kernels.available())
@pytest.mark.parametrize(
    ("variant", "kv_dtype"),
    [
        *((name, "float16") for name in ("bitnet", "llama", "tails", "weight-only", "gemma3")),
        ("tails", "int8"),
        ("many rows", "float16"),
        ("gemma3 with input norms", "int8"),
    ],
)
def test_blocks_and_threads_change_nothing(variant: str, kv_dtype: str, kernel: str) -> None:
    network, _ = networks.make(**VARIANTS[variant])
    options: dict[str, Any] = {"context_length": 80, "kv_dtype": kv_dtype}
    kernels.select(kernel)
    try:
        expected = Session(network, **options).forward(IDS, "all")
        for threads in (1, 2, 3):
            for block in (1, 3, 5, 32, 128):
                session = Session(network, threads=threads, block_size=block, **options)
                np.testing.assert_array_equal(session.forward(IDS, "all"), expected)
    finally:
        kernels.select()


def test_prompt_then_token_by_token_equals_one_block() -> None:
    network, _ = networks.make()
    expected = Session(network, context_length=80).forward(IDS, "all")
    session = Session(network, context_length=80, threads=2)
    assert session.forward(IDS[:40], "none") is None
    steps = [session.forward([token]) for token in IDS[40:]]
    np.testing.assert_array_equal(np.array(steps), expected[40:])
    assert session.position == len(IDS)


def test_truncate_forgets() -> None:
    network, _ = networks.make()
    session = Session(network, context_length=80)
    session.forward(IDS[:30], "none")
    first = session.forward(IDS[30:40])
    session.truncate(30)
    np.testing.assert_array_equal(session.forward(IDS[30:40]), first)
    with pytest.raises(OptionError, match="position"):
        session.truncate(41)


def test_float16_cache_is_close_to_float32() -> None:
    network, model = networks.make()
    close(Session(network, context_length=80).forward(IDS, "all"), model.logits(IDS))


@pytest.mark.parametrize("kernel", kernels.available())
@pytest.mark.parametrize("variant", ["bitnet", "llama", "tails", "wide heads", "gemma3"])
def test_an_int8_cache_is_the_oracle_s(variant: str, kernel: str) -> None:
    network, model = networks.make(**VARIANTS[variant])
    model.int8_cache = True
    kernels.select(kernel)
    try:
        found = Session(network, context_length=80, kv_dtype="int8").forward(IDS, "all")
    finally:
        kernels.select()
    close(found, model.logits(IDS))


@pytest.mark.parametrize(("kv_dtype", "row"), [("float32", 136), ("float16", 68), ("int8", 38)])
def test_a_cache_takes_the_memory_of_its_type(kv_dtype: str, row: int) -> None:
    network, _ = networks.make(**VARIANTS["tails"])
    sessions = [Session(network, context_length=n, kv_dtype=kv_dtype) for n in (64, 128)]
    rows = 2 * network.shape.n_layers * network.shape.n_kv_heads * 64
    assert [session.cache_nbytes for session in sessions] == [rows * row, 2 * rows * row]
    assert cache_nbytes(network.shape, 64, kv_dtype) == rows * row


@pytest.mark.parametrize(
    ("count", "kv_dtype"), [(1, "float16"), (2, "float16"), (5, "int8"), (17, "float16")]
)
@pytest.mark.parametrize("variant", ["bitnet", "weight-only groups", "gemma3"])
def test_sessions_together_equal_sessions_alone(count: int, kv_dtype: str, variant: str) -> None:
    network, _ = networks.make(**VARIANTS[variant])
    prompts = [IDS[: 3 + 4 * place] for place in range(count)]
    options: dict[str, Any] = {"context_length": 96, "kv_dtype": kv_dtype}
    alone = [Session(network, **options) for _ in prompts]
    together = [Session(network, threads=2, **options) for _ in prompts]
    for session, other, prompt in zip(alone, together, prompts, strict=True):
        session.forward(prompt, "none")
        other.forward(prompt, "none")
    for token in IDS[:6]:
        ids = [(int(token) + place) % 300 for place in range(count)]
        found = forward_together(together, ids)
        expected = [session.forward([i]) for session, i in zip(alone, ids, strict=True)]
        np.testing.assert_array_equal(found, np.array(expected))
    assert [session.position for session in together] == [len(prompt) + 6 for prompt in prompts]


def test_sessions_together_are_checked() -> None:
    network, _ = networks.make()
    first, second = (Session(network, context_length=3) for _ in range(2))
    other = Session(networks.make(seed=1)[0], context_length=3)
    for sessions, ids in (
        ([], []), ([first, first], [1, 2]), ([first, second], [1]), ([first, other], [1, 2]),
        ([first, second], [1, 300]),
    ):  # fmt: skip
        with pytest.raises(OptionError):
            forward_together(sessions, ids)
    second.forward([1, 2, 3])
    with pytest.raises(ContextError):
        forward_together([first, second], [1, 2])
    assert (first.position, second.position) == (0, 3)
    assert forward_together([first], [1]).shape == (1, 300)


@pytest.mark.parametrize("variant", ["weight-only", "weight-only groups"])
def test_weight_only_networks_agree_with_the_oracle_to_float_rounding(variant: str) -> None:
    network, model = networks.make(**VARIANTS[variant])
    found = Session(network, context_length=80, kv_dtype="float32").forward(IDS, "all")
    expected = model.logits(IDS)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_scales_of_groups_need_float_activations() -> None:
    with pytest.raises(UnsupportedError, match="scale for each group"):
        networks.make(group=32)
    with pytest.raises(UnsupportedError, match="groups of 32, 64"):
        networks.make(group=48, weight_only=True)


def test_two_threads_share_a_network() -> None:
    network, _ = networks.make()
    expected = Session(network, context_length=80).forward(IDS, "all")
    results: list[Any] = [None, None]

    def work(place: int) -> None:
        session = Session(network, context_length=80, threads=2)
        results[place] = [session.forward([token]) for token in IDS]

    workers = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        np.testing.assert_array_equal(np.array(result), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_generates_and_does_not_hang() -> None:
    network, _ = networks.make()
    session = Session(network, context_length=80, threads=2)
    session.forward(IDS[:20], "none")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # the child reports the warning and the logits, then leaves without cleaning up
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            logits = session.forward(IDS[20:30])
        report = logits.tobytes() + bytes([len(caught)])
        os.write(writer, report)
        os._exit(0)
    os.close(writer)
    expected = session.forward(IDS[20:30])
    with os.fdopen(reader, "rb") as pipe:
        report = pipe.read()
    os.waitpid(child, 0)
    assert report[:-1] == expected.tobytes()
    assert report[-1] == kernels.has_openmp()  # a warning where there were more threads to use


def test_ids_are_checked() -> None:
    network, _ = networks.make()
    session = Session(network, context_length=20)
    for ids in ([300], [-1], [[1, 2]], [1.5], ["a"]):
        with pytest.raises(OptionError, match="token ids"):
            session.forward(ids)
    with pytest.raises(ContextError, match="21 tokens do not fit"):
        session.forward([1] * 21)
    assert session.position == 0


@pytest.mark.parametrize(
    "options",
    [
        {"context_length": 0},
        {"context_length": 10, "threads": 0},
        {"context_length": 10, "threads": 1.5},
        {"context_length": 10, "kv_dtype": "int4"},
        {"context_length": 10, "block_size": -1},
    ],
)
def test_session_options_are_checked(options: dict[str, Any]) -> None:
    network, _ = networks.make()
    with pytest.raises(OptionError):
        Session(network, **options)


def test_a_cache_too_large_for_memory_is_an_error() -> None:
    network, _ = networks.make(layers=8, heads=64, kv_heads=64, head_dim=256)
    with pytest.raises(BitNetError, match="memory"):
        Session(network, context_length=2**24 - 1, kv_dtype="float32")


@pytest.mark.parametrize(
    "rope", [Rope((1.0,)), Rope((1.0,) * 15 + (0.0,)), Rope((1.0,) * 16, float("nan"))]
)
def test_a_rope_must_turn_every_pair(rope: Rope) -> None:
    with pytest.raises(FormatError, match="does not rotate heads of 32"):
        networks.make(rope=rope)


def test_matrix_sizes_are_checked() -> None:
    network, _ = networks.make(hidden=128)
    short = Matrix(np.zeros(10, np.uint8), "F16", 300, 128)
    with pytest.raises(FormatError, match="bytes are needed"):
        Network(network.shape, _layers_of(), short, short, np.ones(128, np.float32))


def _layers_of() -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = {"q": (128, 128), "k": (64, 128), "v": (64, 128), "o": (128, 128)}
    shapes |= {"gate": (320, 128), "up": (320, 128), "down": (128, 320)}
    norms = {"attn_norm": 128, "ffn_norm": 128, "attn_sub_norm": 128, "ffn_sub_norm": 320}
    return [networks._layer(networks._block(rng, shapes, norms, True), 32) for _ in range(2)]
