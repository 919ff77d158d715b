"""Generations in a batch are those each prompt gives alone."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures_fakes import tiny_model

from bitnet_cy import engine
from bitnet_cy.batch import Batch
from bitnet_cy.errors import ContextError, OptionError
from bitnet_cy.generation import GenerationConfig, Writer
from bitnet_cy.model import Model, load

PROMPTS = [[5, 6, 7], [9] * 40, [100, 2, 30, 4], [8], [17, 3, 99, 200, 41], [5, 6, 7], [1, 2]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.8, "seed": 1, "top_p": 0.9}, {"repetition_penalty": 1.2}]
)
def test_each_result_is_that_of_its_prompt_alone(
    model: Model, options: dict[str, Any], batch_size: int
) -> None:
    found = model.generate_batch(PROMPTS, max_new_tokens=20, batch_size=batch_size, **options)
    assert len(found) == len(PROMPTS)
    for prompt, result in zip(PROMPTS, found, strict=True):
        alone = model.generate(prompt, max_new_tokens=20, **options)
        assert (result.token_ids, result.text) == (alone.token_ids, alone.text)
        assert result.finish_reason == alone.finish_reason
        assert result.prompt_token_ids == prompt


def test_texts_are_prompts_too(model: Model) -> None:
    found = model.generate_batch(["a king", "the queen said"], max_new_tokens=5)
    alone = [model.generate(text, max_new_tokens=5) for text in ("a king", "the queen said")]
    assert [result.text for result in found] == [result.text for result in alone]


def test_members_join_and_leave_at_any_time(model: Model) -> None:
    batch = Batch(engine.forward_together)
    results: dict[int, list[int]] = {}
    for key, (prompt, tokens) in enumerate([([5, 6, 7], 12), ([8], 3), ([9] * 40, 7)]):
        config = GenerationConfig(max_new_tokens=tokens)
        writer = Writer(prompt, config, model.tokenizer, model.context_length)
        batch.add(key, model.new_session(64), writer)
        for _ in range(2):
            for member, chunk in batch.step():
                results.setdefault(member, []).append(chunk.token_id)
    while len(batch):
        for member, chunk in batch.step():
            results.setdefault(member, []).append(chunk.token_id)
    for key, (prompt, tokens) in enumerate([([5, 6, 7], 12), ([8], 3), ([9] * 40, 7)]):
        assert results[key] == model.generate(prompt, max_new_tokens=tokens).token_ids


def test_no_prompts_give_no_results(model: Model) -> None:
    assert model.generate_batch([]) == []


def test_every_prompt_is_checked_before_the_first_token(model: Model) -> None:
    with pytest.raises(OptionError, match="token id"):
        model.generate_batch([[1, 2], [-1]])
    with pytest.raises(ContextError):
        model.generate_batch([[1, 2], [1] * (model.context_length + 1)])
    for bad in ("text", 7, None):
        with pytest.raises(OptionError, match="list of prompts"):
            model.generate_batch(bad)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="batch_size"):
        model.generate_batch([[1]], batch_size=0)
