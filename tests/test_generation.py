"""The loop stops where it should, and gives text in whole characters with honest numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from fixtures_fakes import FakeSession, FakeTokenizer
from hypothesis import given
from hypothesis import strategies as st

from bitnet_cy.errors import BitNetError, ContextError, OptionError
from bitnet_cy.generation import (
    BLOCK,
    Chunk,
    Generation,
    GenerationConfig,
    StopStrings,
    check_fits,
    run,
)

PROMPT = [256, 72, 105]


def chunks_of(script: Any, context_length: int = 100, **options: Any) -> list[Chunk]:
    session = FakeSession(script, context_length)
    config = GenerationConfig().updated(**options)
    return list(run(session, PROMPT, config, FakeTokenizer()))  # type: ignore[arg-type]


def generated(script: Any, context_length: int = 100, **options: Any) -> Generation:
    return Generation.from_chunks(PROMPT, chunks_of(script, context_length, **options))


# The options


def test_the_defaults_are_greedy() -> None:
    config = GenerationConfig()
    assert (config.temperature, config.max_new_tokens, config.stop) == (0.0, 256, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -5),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", True),
        ("max_new_tokens", "12"),
        ("max_new_tokens", None),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", 10**400),
        ("top_k", -1),
        ("top_k", 1.0),
        ("top_p", 1.01),
        ("top_p", -0.01),
        ("top_p", math.nan),
        ("min_p", 2),
        ("min_p", None),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("repetition_penalty", math.inf),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", 3),
        ("stop", [1]),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", np.bool_(True)),
    ],
)
def test_a_value_out_of_range_or_of_a_wrong_type_is_an_error_naming_both(
    name: str, value: object
) -> None:
    with pytest.raises(OptionError) as caught:
        GenerationConfig(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{name} is ")
    assert repr(value) in str(caught.value)


def test_numpy_numbers_and_whole_floats_are_taken() -> None:
    config = GenerationConfig(
        max_new_tokens=np.int64(5),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        top_p=1,
        seed=np.uint8(3),  # type: ignore[arg-type]
    )
    assert config == GenerationConfig(max_new_tokens=5, temperature=0.5, seed=3)
    assert type(config.max_new_tokens) is int
    assert type(config.temperature) is float


def test_a_config_cannot_be_changed_but_copied() -> None:
    config = GenerationConfig(top_k=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.top_k = 5  # type: ignore[misc]
    assert config.updated(top_k=5, stop="x") == GenerationConfig(top_k=5, stop=("x",))
    assert config.top_k == 4


def test_max_tokens_is_another_name_but_not_a_second_option() -> None:
    assert GenerationConfig().updated(max_tokens=7).max_new_tokens == 7
    with pytest.raises(OptionError, match="one option"):
        GenerationConfig().updated(max_tokens=7, max_new_tokens=7)


def test_an_unknown_option_is_an_error_naming_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"temprature; did you mean temperature\?"):
        GenerationConfig().updated(temprature=1)
    with pytest.raises(OptionError, match="options are max_new_tokens, "):
        GenerationConfig().updated(zzz=1)


# The loop


def test_text_ends_at_max_new_tokens_with_length() -> None:
    result = generated("hello world", max_new_tokens=5)
    assert (result.text, result.finish_reason, len(result.token_ids)) == ("hello", "length", 5)
    assert result.prompt_token_ids == PROMPT


@pytest.mark.parametrize("stop_id", [257, 258])
def test_any_stop_token_ends_the_text_and_is_not_part_of_it(stop_id: int) -> None:
    result = generated([*b"hi", stop_id, *b"more"])
    assert (result.text, result.finish_reason) == ("hi", "stop")
    assert result.token_ids == [*b"hi", stop_id]


def test_the_prompt_is_given_once_and_each_token_but_the_last_after_it() -> None:
    session = FakeSession("abcd")
    list(run(session, PROMPT, GenerationConfig(max_new_tokens=4), FakeTokenizer()))  # type: ignore[arg-type]
    assert session.given == [*PROMPT, *b"abc"]


def test_a_long_prompt_goes_in_blocks_and_only_its_last_logits_are_computed() -> None:
    session = FakeSession("a", context_length=2000)
    prompt = [65] * (2 * BLOCK + 3)
    list(run(session, prompt, GenerationConfig(max_new_tokens=1), FakeTokenizer()))  # type: ignore[arg-type]
    assert session.calls == [(BLOCK, "none"), (BLOCK, "none"), (3, "last")]


def test_what_the_session_holds_of_the_prompt_is_not_given_again() -> None:
    session = FakeSession("a")
    session.forward(PROMPT[:2], logits="none")
    (chunk,) = run(session, PROMPT, GenerationConfig(max_new_tokens=1), FakeTokenizer())  # type: ignore[arg-type]
    assert session.given == PROMPT
    assert (chunk.reused_tokens, chunk.prompt_tokens) == (2, 3)


def test_a_full_context_ends_the_text_with_length() -> None:
    result = generated("abcdefgh", context_length=6)
    assert (result.text, result.finish_reason) == ("abcd", "length")


def test_a_prompt_that_fills_the_context_still_gives_one_token() -> None:
    assert generated("abc", context_length=3).text == "a"


def test_a_prompt_longer_than_the_context_is_an_error_with_both_numbers() -> None:
    check_fits(5, 5, 5)
    with pytest.raises(ContextError, match="6 tokens and the context holds 5; shorten the prompt$"):
        check_fits(6, 5, 5)
    with pytest.raises(ContextError, match="context_length of up to 9"):
        check_fits(6, 5, 9)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    class Broken(FakeSession):
        def forward(self, ids: Any, logits: str = "last") -> Any:
            return super().forward(ids, logits) * np.float32(np.nan)

    with pytest.raises(BitNetError, match="logit"):
        list(run(Broken("a"), PROMPT, GenerationConfig(), FakeTokenizer()))  # type: ignore[arg-type]


def test_repetition_penalty_covers_prompt_and_text() -> None:
    class Three(FakeSession):
        def forward(self, ids: Any, logits: str = "last") -> Any:
            row = super().forward(ids, logits) * 0
            row[[72, 73, 74]] = [9, 8, 6]  # 72 is in the prompt
            return row

    config = GenerationConfig(max_new_tokens=3, repetition_penalty=2.0)
    chunks = run(Three("-"), PROMPT, config, FakeTokenizer())  # type: ignore[arg-type]
    assert [chunk.token_id for chunk in chunks] == [73, 74, 72]


# Characters and stop strings


def test_chunks_hold_whole_characters_only() -> None:
    chunks = chunks_of("a€𠀀é", max_new_tokens=10)
    assert [chunk.text for chunk in chunks] == ["a", "", "", "€", "", "", "", "𠀀", "", "é"]


def test_a_character_cut_off_at_the_end_becomes_a_replacement() -> None:
    assert generated("a€", max_new_tokens=3).text == "a\ufffd"
    assert generated([*b"a", 0xE2, 257]).text == "a\ufffd"


@pytest.mark.parametrize("stop", ["lo w", ["zzz", "lo w"], "lo wor"])
def test_text_ends_before_a_stop_string(stop: Any) -> None:
    result = generated("hello world", stop=stop)
    assert (result.text, result.finish_reason) == ("hel", "stop")


def test_text_held_back_for_a_stop_string_is_released() -> None:
    chunks = chunks_of("a<b<<end", stop="<<end>", max_new_tokens=8)
    assert [chunk.text for chunk in chunks] == ["a", "", "<b", "", "", "", "", "<<end"]
    assert chunks[-1].finish_reason == "length"
    assert generated([*b"x<<e", 257], stop="<<end>").text == "x<<e"


def test_a_stop_string_at_the_limit_is_a_stop() -> None:
    assert generated("abc", stop="c", max_new_tokens=3).finish_reason == "stop"


def test_a_stop_string_may_hold_characters_of_several_tokens() -> None:
    assert generated("naïve text", stop="ïv").text == "na"


STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


@given(st.text("abc", max_size=30), STOPS, st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_stop_strings_cut_the_same_however_the_text_is_split(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    def cut(sizes: list[int]) -> tuple[str, bool]:
        matcher, out, position = StopStrings(stops), "", 0
        while position < len(text):
            size = sizes[position % len(sizes)]
            final, found = matcher.push(text[position : position + size])
            out += final
            if found:
                return out, True
            position += size
        return out + matcher.flush(), False

    out, found = cut(sizes)
    assert (out, found) == cut([1]) == cut([99])
    assert found == any(stop in text for stop in stops)
    assert text.startswith(out)
    assert not any(stop in out for stop in stops)
    assert found or out == text


# The numbers


def test_rates_count_what_was_computed() -> None:
    chunk = Chunk("x", 1, None, 10, 5, 2.0, 4.0, reused_tokens=4)
    assert chunk.prompt_tokens_per_second == 3.0
    assert chunk.decode_tokens_per_second == 1.0
    assert Chunk("x", 1, None, 10, 1, 0.0, 0.0).decode_tokens_per_second == 0.0


def test_chunks_carry_running_numbers() -> None:
    chunks = chunks_of("abc", max_new_tokens=3)
    assert [chunk.new_tokens for chunk in chunks] == [1, 2, 3]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "length"]
    assert {chunk.prompt_tokens for chunk in chunks} == {3}
    assert chunks[0].prompt_seconds > 0
    assert chunks[0].decode_seconds == 0
    assert chunks[2].decode_seconds > 0
