"""The search for the largest logits finds what the full head has, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networks
import numpy as np
import pytest
from numpy.typing import NDArray

from bitnet_cy.engine import Network, Session, forward_together, kernels, screen
from bitnet_cy.errors import OptionError
from bitnet_cy.sampling import MOST_WANTED

IDS = np.random.default_rng(3).integers(0, 300, 9).tolist()
HIDDEN, VOCAB = 320, 1500
Head = NDArray[np.float32]


@pytest.fixture(params=kernels.available())
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    kernels.select(request.param)
    yield request.param
    kernels.select()


def network_with(head: Head, type_name: str = "F16", **changes: Any) -> Network:
    """A small network with this output head: float32 [rows, HIDDEN]."""
    return networks.make(hidden=HIDDEN, vocab=len(head), head=head, matrix_type=type_name,
                         **changes)[0]  # fmt: skip


def heads() -> dict[str, Head]:
    """Output heads of kinds that a bound may be wrong for."""
    rng = np.random.default_rng(5)
    plain = rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
    scales = np.exp(1.5 * rng.standard_normal((VOCAB, 1))).astype(np.float32)
    sparse = plain * (rng.random((VOCAB, HIDDEN)) < 0.01)
    spiked = plain.copy()
    spiked[np.arange(VOCAB), rng.integers(0, HIDDEN, VOCAB)] = 300
    near = np.repeat(plain[:1], VOCAB, axis=0) + plain * np.float32(2e-3)
    tiny = plain * np.float32(1e-7)
    tiny[7] = 1
    return {
        "plain": plain,
        "scales apart": plain * scales,
        "a mean row": plain + 4 * plain[:1],
        "sparse": sparse.astype(np.float32),
        "one large value a row": spiked,
        "nearly equal rows": near,
        "equal rows": np.repeat(plain[:3], VOCAB // 3, axis=0),
        "zeros": np.zeros((VOCAB, HIDDEN), np.float32),
        "subnormal halves": tiny,
        "few rows": plain[:300],
    }


def check(network: Network, k: int, listed: NDArray[np.uint8] | None = None) -> list[int]:
    """Compare a search with the full head for every row; how many logits were computed."""
    session = Session(network, context_length=32, threads=2)
    full = session.forward(IDS, "all")
    session.make_screen()
    session.truncate(0)
    found = session.forward_top(IDS, k, listed, rows="all")
    assert len(found) == len(IDS)
    for (ids, logits), row in zip(found, full, strict=True):
        assert (np.diff(ids) > 0).all()
        np.testing.assert_array_equal(logits, row[ids])
        others = row.copy()
        if listed is not None:
            assert set(np.flatnonzero(listed)) <= set(ids.tolist())
            others[listed > 0] = -np.inf
        largest = np.argsort(-others, kind="stable")[: min(k, len(row))]
        assert set(largest.tolist()) <= set(ids.tolist())
    return [len(ids) for ids, _ in found]


@pytest.mark.parametrize("k", [1, 2, 40, 64])
@pytest.mark.parametrize("kind", heads())
def test_the_largest_are_those_of_the_full_head(kernel: str, kind: str, k: int) -> None:
    check(network_with(heads()[kind]), k)


@pytest.mark.parametrize("type_name", ["F16", "BF16", "F32"])
def test_every_type_of_head_that_is_supported(kernel: str, type_name: str) -> None:
    check(network_with(heads()["scales apart"], type_name), 5)


@pytest.mark.parametrize("hidden", [132, 256, 300, 1000])
def test_any_width(kernel: str, hidden: int) -> None:
    network, _ = networks.make(hidden=hidden, vocab=700)
    check(network, 3)


def test_few_logits_are_computed_where_bounds_separate() -> None:
    counts = check(network_with(heads()["plain"]), 1)
    assert np.median(counts) < 0.05 * VOCAB


def test_listed_rows_are_given_beside_the_largest(kernel: str) -> None:
    listed = np.zeros(VOCAB, dtype=np.uint8)
    listed[np.random.default_rng(0).integers(0, VOCAB, 200)] = 1
    check(network_with(heads()["plain"]), 5, listed)
    check(network_with(heads()["plain"]), 1, np.ones(VOCAB, np.uint8))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 65504])
def test_rows_that_are_no_numbers_are_found(kernel: str, bad: float) -> None:
    """No bound holds for them, so they are computed, and the sampler can complain."""
    head = heads()["plain"]
    head[33, 5] = bad
    session = Session(network_with(head), context_length=32)
    full = session.forward(IDS)
    session.make_screen()
    session.truncate(0)
    ((ids, logits),) = session.forward_top(IDS, 1)
    assert 33 in ids or abs(bad) < np.inf
    np.testing.assert_array_equal(logits, full[ids])


def test_dominant_columns_change_only_the_work() -> None:
    """The screen keeps columns whose activations are largest; a sample of zeros keeps none."""
    norm = np.ones(HIDDEN, np.float32)
    norm[::20] = 30
    head = heads()["plain"]
    kept, none = (network_with(head, output_norm=norm) for _ in range(2))
    screen.make(none, np.zeros(HIDDEN, np.float32), 1)
    counts = [check(network, 5) for network in (kept, none)]
    assert np.mean(counts[0]) <= np.mean(counts[1])
    assert kept.screen is not None
    assert none.screen is not None
    assert kept.screen.nbytes > none.screen.nbytes


def test_threads_and_batches_find_the_same() -> None:
    network = network_with(heads()["plain"])
    sessions = [Session(network, context_length=8, threads=count) for count in (1, 2, 3)]
    sessions[0].make_screen()
    asks = [(1, None), (40, None), (7, None)]
    together = forward_together(sessions, [5, 6, 7], asks=asks)
    for session, (k, _), token, (ids, logits) in zip(
        sessions, asks, [5, 6, 7], together, strict=True
    ):
        session.truncate(0)
        ((alone, values),) = session.forward_top([token], k)
        np.testing.assert_array_equal(ids, alone)
        np.testing.assert_array_equal(logits, values)


def test_what_cannot_be_searched_is_an_error() -> None:
    network, _ = networks.make(matrix_type="Q8_0", hidden=256)
    session = Session(network, context_length=8)
    with pytest.raises(OptionError, match="head='full'"):
        session.make_screen()
    with pytest.raises(OptionError, match="make_screen"):
        session.forward_top([1], 1)
    network, _ = networks.make()
    session = Session(network, context_length=8)
    session.make_screen()
    for k in (0, MOST_WANTED + 1):
        with pytest.raises(OptionError, match="k is"):
            session.forward_top([1], k)
    with pytest.raises(OptionError, match="listed is"):
        session.forward_top([1], 1, np.zeros(3, np.uint8))
    assert session.position == 0
