"""Scaled positions: the frequencies and the factor of transformers, read from every place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bitnet_cy.architectures.rope import scaled
from bitnet_cy.convert import scaling
from bitnet_cy.engine.weights import Rope
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import rope
from bitnet_cy.formats.rope import RopeScaling

YARN: dict[str, Any] = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16384,
}  # fmt: skip
CASES = {
    "Bonsai-8B": (1e6, 128, YARN),
    "short": (1e4, 64, YARN | {"factor": 1.5, "original_max_position_embeddings": 40}),
    "betas": (5e5, 96, YARN | {"beta_fast": 16.0, "beta_slow": 2.0}),
    "equal betas": (1e4, 64, YARN | {"beta_fast": 1.0, "beta_slow": 1.0}),
    "factor given": (1e6, 128, YARN | {"attention_factor": 0.9}),
    "mscale": (1e4, 64, YARN | {"mscale": 1.0, "mscale_all_dim": 0.707}),
    "linear": (1e6, 256, {"rope_type": "linear", "factor": 8.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_frequencies_are_those_of_transformers(case: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip(
        "transformers", "5", reason="transformers 5 is not installed"
    )
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    base, head_dim, parameters = CASES[case]
    config = transformers.Qwen3Config(
        head_dim=head_dim, max_position_embeddings=65536,
        rope_parameters=parameters | {"rope_theta": base},
    )  # fmt: skip
    expected, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu")
    read = scaling.from_config({"rope_parameters": parameters, "max_position_embeddings": 65536})
    found = scaled(base, head_dim, read)
    np.testing.assert_allclose(found.frequencies, expected.numpy(), rtol=2e-6)
    assert math.isclose(found.factor, factor)


@pytest.mark.parametrize("case", CASES)
def test_scaling_survives_metadata_and_configuration(case: str) -> None:
    expected = scaling.from_config({"rope_scaling": CASES[case][2]})
    assert expected is not None
    keys = {
        key: float(np.float32(value)) if isinstance(value, float) else value
        for key, value in rope.to_keys(expected).items()
    }
    for found in (rope.from_keys(keys, 1), scaling.from_config(scaling.to_config(expected))):
        assert found is not None
        assert vars(found) | {"attention_factor": 0} == vars(expected) | {"attention_factor": 0}
        assert math.isclose(found.attention_factor, expected.attention_factor, rel_tol=1e-6)


def test_the_ends_of_yarn_are_kept_and_slowed() -> None:
    plain = np.array(Rope.of_base(1e6, 128).frequencies)
    found = scaled(1e6, 128, RopeScaling("yarn", 4.0, 16384, attention_factor=1.1))
    ratio = plain / np.array(found.frequencies)
    assert found.factor == 1.1
    assert (ratio[0], ratio[-1]) == (1.0, 4.0)
    assert (np.diff(ratio) >= 0).all()
    # A pair turns 16384 * frequency / 2 pi times over the first training: 32 and more, or 1.
    turns = 16384 * plain / (2 * np.pi)
    np.testing.assert_allclose(ratio[turns > 40], 1.0)
    np.testing.assert_allclose(ratio[turns < 0.8], 4.0)


@pytest.mark.parametrize(
    "parameters", [None, {}, {"rope_type": "default"}, {"type": "linear", "factor": 1.0}]
)
def test_positions_may_be_as_they_are(parameters: Any) -> None:
    assert scaling.from_config({"rope_scaling": parameters}) is None


def test_layers_that_see_a_window_are_not_scaled() -> None:
    kinds = {"full_attention": YARN, "sliding_attention": {"rope_type": "default"}}
    found = scaling.from_config({"rope_parameters": kinds})
    assert found is not None
    assert found.factor == 4.0
    kinds = {"full_attention": {"rope_type": "default"}, "sliding_attention": YARN}
    with pytest.raises(UnsupportedError, match="positions of sliding_attention layers"):
        scaling.from_config({"rope_parameters": kinds})


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rope_type": "llama3"}, UnsupportedError, "'llama3'.*linear and yarn"),
        ({"truncate": False}, UnsupportedError, "usual rounding"),
        ({"factor": "four"}, FormatError, "factor is 'four'"),
        ({"factor": math.nan}, FormatError, "a number is needed"),
        ({"factor": 10**400}, FormatError, "a number is needed"),
        ({"factor": -1}, FormatError, "positive numbers are needed"),
        ({"beta_fast": 0}, FormatError, "positive numbers are needed"),
        ({"original_max_position_embeddings": 0}, FormatError, "positive numbers are needed"),
        ({"original_max_position_embeddings": math.inf}, FormatError, "a number is needed"),
    ],
)
def test_absurd_scaling_is_refused(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        scaling.from_config({"rope_scaling": YARN | changes, "max_position_embeddings": 65536})


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"type": "longrope"}, UnsupportedError, "'longrope'.*linear and yarn are"),
        ({"type": 7}, UnsupportedError, "rope scaling 7"),
        ({"type": np.arange(3)}, UnsupportedError, "rope scaling array"),
        ({"factor": "x"}, FormatError, "rope.scaling.factor is 'x'"),
        ({"factor": math.inf}, FormatError, "a number is needed"),
        ({"factor": 0.0}, FormatError, "positive numbers are needed"),
        ({"yarn_beta_slow": -1.0}, FormatError, "positive numbers are needed"),
        ({"yarn_log_multiplier": 0.1}, UnsupportedError, "yarn_log_multiplier"),
    ],
)
def test_absurd_metadata_is_refused(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    keys = {"type": "yarn", "factor": 4.0, "original_context_length": 64} | changes
    with pytest.raises(error, match=words):
        rope.from_keys({f"rope.scaling.{key}": value for key, value in keys.items()}, 128)


@pytest.mark.parametrize("base", [1.0, 0.5, math.inf])
def test_a_base_must_be_one_to_compute_with(base: float) -> None:
    with pytest.raises(FormatError, match="rope base"):
        Rope.of_base(base, 64)
