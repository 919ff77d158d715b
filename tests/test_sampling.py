"""Sampling chooses what a plain reading of its documentation says, repeatably."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitnet_cy.errors import BitNetError
from bitnet_cy.sampling import Sampler, nucleus, top_k


def logits_of(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def random_logits(size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def drawn(logits: np.ndarray, count: int = 400, **options: float) -> set[int]:
    sampler = Sampler(temperature=options.pop("temperature", 1.0), seed=1, **options)  # type: ignore[arg-type]
    return {sampler.sample(logits) for _ in range(count)}


def test_greedy_takes_the_largest_and_the_lowest_id_among_equals() -> None:
    assert Sampler().sample(logits_of(1, 5, 2, 5)) == 1


def test_greedy_ignores_the_steps_that_only_restrict_drawing() -> None:
    assert Sampler(top_k=1, top_p=0.1, min_p=0.9, seed=3).sample(logits_of(1, 5, 2)) == 1


def test_the_same_seed_gives_the_same_ids() -> None:
    rows = [random_logits(1000, seed) for seed in range(50)]
    first, second, other = (Sampler(temperature=1.5, seed=seed) for seed in (7, 7, 8))
    ids = [first.sample(row) for row in rows]
    assert ids == [second.sample(row) for row in rows]
    assert ids != [other.sample(row) for row in rows]


def test_no_seed_draws_a_fresh_one() -> None:
    flat = np.zeros(1 << 16, dtype=np.float32)
    assert len({Sampler(temperature=1.0).sample(flat) for _ in range(8)}) > 1


def test_draws_follow_the_softmax_of_logits_over_temperature() -> None:
    logits = logits_of(0, 1, 2)
    sampler = Sampler(temperature=2.0, seed=0)
    counts = np.bincount([sampler.sample(logits) for _ in range(6000)], minlength=3)
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    np.testing.assert_allclose(counts / 6000, expected, atol=0.025)


def test_top_k_keeps_the_likeliest_and_the_lowest_ids_among_equals() -> None:
    assert drawn(logits_of(1, 2, 2, 2, 0), top_k=2) == {1, 2}
    assert drawn(logits_of(1, 2, 3), top_k=99) == {0, 1, 2}


def test_top_p_keeps_the_fewest_that_reach_the_share() -> None:
    logits = np.log(logits_of(0.5, 0.3, 0.15, 0.05))
    assert drawn(logits, top_p=0.7) == {0, 1}
    assert drawn(logits, top_p=0.94) == {0, 1, 2}
    assert drawn(logits, top_p=0.0) == {0}


def test_top_p_works_on_what_top_k_left() -> None:
    logits = np.log(logits_of(0.4, 0.3, 0.2, 0.1))
    assert drawn(logits, top_k=2, top_p=0.57) == {0}  # 0.4 of 0.7 is 0.571


def test_min_p_drops_what_is_rare_beside_the_likeliest() -> None:
    logits = np.log(logits_of(0.5, 0.3, 0.15, 0.05))
    assert drawn(logits, min_p=0.29) == {0, 1, 2}
    assert drawn(logits, min_p=0.31) == {0, 1}
    assert drawn(logits, min_p=1.0) == {0}


def test_temperature_comes_before_top_p() -> None:
    logits = np.log(logits_of(0.5, 0.3, 0.2))
    assert drawn(logits, temperature=0.25, top_p=0.85) == {0}
    assert drawn(logits, temperature=4.0, top_p=0.85) == {0, 1, 2}


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    sampler = Sampler(repetition_penalty=2.0, seen=[0, 1])
    penalized = sampler._penalized(logits_of(3, -1, 2))
    assert penalized.tolist() == [1.5, -2.0, 2.0]


def test_repetition_penalty_counts_what_was_generated_and_each_token_once() -> None:
    sampler = Sampler(repetition_penalty=2.0, seen=[2, 2, 2])
    logits = logits_of(3, 2, 4.5, 0)
    assert [sampler.sample(logits) for _ in range(3)] == [0, 2, 2]


def test_sampling_leaves_the_logits_alone() -> None:
    logits = random_logits(100)
    before = logits.copy()
    Sampler(temperature=0.7, top_k=5, top_p=0.5, repetition_penalty=1.3, seen=[1, 2]).sample(logits)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_logit_that_is_no_number_is_an_error_naming_the_token(
    bad: float, temperature: float
) -> None:
    logits = random_logits(300)
    logits[123] = bad
    with pytest.raises(BitNetError, match="token 123"):
        Sampler(temperature=temperature).sample(logits)


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e30, 1e308])
def test_extreme_temperatures_and_logits_stay_numbers(temperature: float) -> None:
    logits = logits_of(-3e38, 0, 3e38, 1)
    assert Sampler(temperature=temperature, seed=0).sample(logits) in range(4)
    assert Sampler(temperature=1e-30, seed=0).sample(logits) == 2


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=60), st.integers(1, 60))
def test_top_k_is_the_head_of_a_stable_sort(values: list[int], k: int) -> None:
    k = min(k, len(values))
    array = np.array(values, dtype=np.float32)
    expected = np.sort(np.argsort(-array, kind="stable")[:k])
    assert top_k(array, k).tolist() == expected.tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([3, 255, 257, 5000]))
def test_nucleus_is_the_head_of_a_full_sort(seed: int, share: float, size: int) -> None:
    weights = np.exp(random_logits(size, seed).astype(np.float64))
    kept = nucleus(weights, share)
    order = np.argsort(-weights, kind="stable")[: len(kept)]
    assert kept.tolist() == np.sort(order).tolist()
    wanted = share * weights.sum()
    assert weights[kept].sum() >= wanted * (1 - 1e-12)
    assert len(kept) == 1 or weights[order[:-1]].sum() < wanted * (1 + 1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.5},
        {"repetition_penalty": 0.5},
        {"temperature": 0.7, "top_k": 5, "seed": 1},
        {"temperature": 2.0, "top_k": 40, "top_p": 0.8, "min_p": 0.05, "seed": 2},
        {"temperature": 1.0, "top_k": 64, "repetition_penalty": 1.3, "seed": 3},
    ],
)
def test_the_wanted_logits_give_the_token_that_all_give(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    whole = Sampler(seen=[3, 4, 77], **options)
    part = Sampler(seen=[3, 4, 77], **options)
    for _ in range(60):
        logits = np.round(rng.standard_normal(200) * 3, 1).astype(np.float32)  # with equals
        wanted = part.wanted(200)
        assert wanted is not None
        k, listed = wanted
        others = logits.copy()
        chosen = rng.random(200) < 0.1
        if listed is not None:
            others[listed > 0] = -np.inf
            chosen |= listed > 0
        chosen[np.argsort(-others, kind="stable")[:k]] = True
        ids = np.flatnonzero(chosen)
        assert part.sample(logits[ids], ids) == whole.sample(logits)


def test_what_needs_every_logit_wants_all() -> None:
    assert Sampler(temperature=0.8).wanted(10) is None
    assert Sampler(temperature=0.8, top_p=0.9).wanted(10) is None
    assert Sampler(temperature=0.8, top_k=65).wanted(10) is None
    assert Sampler(top_k=65).wanted(10) == (1, None)
