"""Prompt lookup drafts what was there before, and changes no token."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures_fakes import tiny_model

from bitnet_cy.errors import OptionError
from bitnet_cy.model import Model, load
from bitnet_cy.speculation import PromptLookup

REPEATED = [11, 42, 7, 99, 5] * 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


def test_a_draft_is_what_followed_the_latest_occurrence() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 9, 1, 2, 3, 6, 7, 1, 2, 3], most=2)
    assert lookup.draft(10) == [6, 7]
    assert lookup.draft(1) == [6]
    assert lookup.draft(0) == []


def test_two_tokens_will_do_where_three_were_never_seen() -> None:
    lookup = PromptLookup([1, 2, 3, 8, 2, 3], most=4)
    assert lookup.draft(10) == [8, 2, 3]


def test_nothing_is_drafted_where_nothing_repeats() -> None:
    assert PromptLookup([1, 2, 3, 4], most=4).draft(10) == []
    assert PromptLookup([], most=4).draft(10) == []
    assert PromptLookup([1, 1, 1, 1, 1], most=0).draft(10) == []


def test_drafts_grow_when_they_hold_and_shrink_when_they_fail() -> None:
    lookup = PromptLookup([1, 2] * 40, most=16)
    assert len(lookup.draft(40)) == 2  # the text ends two tokens after the latest occurrence
    lookup = PromptLookup([*range(40), *range(3)], most=16)
    lengths = [len(lookup.draft(40))]
    for drafted, accepted in ((4, 4), (8, 8), (16, 16), (16, 3), (8, 7)):
        lookup.judge(drafted, accepted)
        lengths.append(len(lookup.draft(40)))
    assert lengths == [4, 8, 16, 16, 8, 8]


@pytest.mark.parametrize("most", [1, 3, 8, 64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.3},
        {"temperature": 0.7, "seed": 3},
        {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 4},
    ],
)
def test_the_tokens_are_those_of_plain_decoding(
    model: Model, options: dict[str, float], most: int
) -> None:
    for prompt in (REPEATED, [3, 1, 4, 1, 5, 9, 2, 6]):
        plain = model.generate(prompt, max_new_tokens=60, **options)
        found = model.generate(prompt, max_new_tokens=60, prompt_lookup_num_tokens=most, **options)
        assert found.token_ids == plain.token_ids
        assert (found.text, found.finish_reason) == (plain.text, plain.finish_reason)


def test_the_context_fills_to_the_same_token(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path / "tiny.gguf"), context_length=64)
    plain = model.generate(REPEATED)
    found = model.generate(REPEATED, prompt_lookup_num_tokens=16)
    assert found.token_ids == plain.token_ids
    assert found.finish_reason == "length"


def test_a_repeating_text_takes_fewer_steps(model: Model) -> None:
    session = model.new_session()
    steps = []

    class Counting:
        screened = False
        context_length = session.context_length
        expect = staticmethod(session.expect)
        position = property(lambda self: session.position)
        truncate = staticmethod(session.truncate)

        def forward(self, ids: list[int], logits: str = "last") -> object:
            steps.append(len(ids))
            return session.forward(ids, logits)

    from bitnet_cy.generation import GenerationConfig, run

    config = GenerationConfig(max_new_tokens=40, prompt_lookup_num_tokens=8)
    chunks = list(run(Counting(), REPEATED, config, model.tokenizer))
    assert len(chunks) == 40 or chunks[-1].finish_reason == "stop"
    assert len(steps) < len(chunks)


def test_the_option_is_checked(model: Model) -> None:
    for bad in (-1, 65, 1.5, True):
        with pytest.raises(OptionError, match="prompt_lookup_num_tokens"):
            model.generate([1, 2, 3], prompt_lookup_num_tokens=bad)
