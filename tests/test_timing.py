"""Where a step's time goes, and the peaks it is compared with."""

from __future__ import annotations

import time

import networks
import numpy as np
import pytest

from bitnet_cy import engine
from bitnet_cy.engine import Network, kernels, timing
from bitnet_cy.errors import OptionError


@pytest.fixture(scope="module")
def network() -> Network:
    return networks.make()[0]


def test_a_session_times_nothing_until_it_is_asked(network: Network) -> None:
    session = engine.Session(network, context_length=8)
    session.forward([1])
    assert session.stage_seconds == {}


@pytest.mark.parametrize("threads", [1, 2])
def test_stages_add_up_to_no_more_than_the_step(network: Network, threads: int) -> None:
    session = engine.Session(network, context_length=64, threads=threads)
    session.time_stages()
    start = time.perf_counter()
    session.forward(list(range(40)))
    elapsed = time.perf_counter() - start
    stages = session.stage_seconds
    skipped = {"attention_post_norm", "ffn_post_norm"}  # this network has none
    skipped |= {name for name in stages if name.startswith("head_")}  # of a screened head
    assert all((stages[name] > 0) == (name not in skipped) for name in stages)
    assert sum(stages.values()) <= elapsed


def test_timing_starts_anew_and_stops(network: Network) -> None:
    session = engine.Session(network, context_length=64)
    session.time_stages()
    session.forward(list(range(60)))
    long = session.stage_seconds["attention"]
    session.time_stages()
    assert sum(session.stage_seconds.values()) == 0 < long
    session.time_stages(False)
    session.forward([1])
    assert session.stage_seconds == {}


def test_timing_changes_no_logit(network: Network) -> None:
    plain = engine.Session(network, context_length=8)
    timed = engine.Session(network, context_length=8)
    timed.time_stages()
    np.testing.assert_array_equal(plain.forward([1, 2]), timed.forward([1, 2]))


def test_every_stage_belongs_to_a_part(network: Network) -> None:
    session = engine.Session(network, context_length=8)
    session.time_stages()
    session.forward([1])
    stages = session.stage_seconds
    parts = timing.by_part(stages)
    assert sum(parts.values()) == pytest.approx(sum(stages.values()))
    assert all(parts[name] > 0 for name in ("ternary", "attention", "head", "other"))
    known = {"embedding", "attention_norm", "o_norm", "ffn_norm", "down_norm", "output_norm"}
    known |= {"attention_post_norm", "ffn_post_norm"}
    other = {name for name in stages if timing.by_part({name: 1.0})["other"]}
    assert other == known


def test_a_network_says_what_its_bytes_are_for(network: Network) -> None:
    parts = network.parts
    assert set(parts) == {"ternary", "embedding", "norms"}  # the head is the embedding
    assert sum(part["copied"] for part in parts.values()) == network.nbytes
    assert sum(part["mapped"] for part in parts.values()) == network.mapped_nbytes


def test_peaks_of_this_cpu_run_and_count() -> None:
    for name in kernels.peak_names():
        once = kernels.run_peak(name, 3, 1)
        assert once > 0
        assert kernels.run_peak(name, 3, 2) == 2 * once
    assert set(engine.multiply_add_peaks(1)) == set(kernels.peak_names())


def test_an_unknown_peak_is_an_error() -> None:
    with pytest.raises(OptionError, match="is not measured here"):
        kernels.run_peak("fmadd", 1, 1)
