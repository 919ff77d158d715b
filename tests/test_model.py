"""A loaded model generates the same text whichever way it is asked, from several threads too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_fakes import tiny_model

import bitnet_cy
from bitnet_cy import memory, sessions
from bitnet_cy.errors import (
    BitNetError,
    ContextError,
    FormatError,
    OptionError,
    ResourceError,
    UnsupportedError,
)
from bitnet_cy.formats import gguf
from bitnet_cy.model import Model, embedded_model, load

USER = [{"role": "user", "content": "What is a king?"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return load(path)


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Path]:
    return lambda **changes: tiny_model(tmp_path / "other.gguf", **changes)


# Loading


def test_the_face_has_few_names() -> None:
    assert set(bitnet_cy.__all__) == {
        "BitNetError", "GenerationConfig", "Model", "__version__", "errors", "info", "load",
        "tokenizer",
    }  # fmt: skip
    for name in bitnet_cy.__all__:
        assert getattr(bitnet_cy, name) is not None
    assert set(bitnet_cy.__all__) <= set(dir(bitnet_cy))
    with pytest.raises(AttributeError, match="lod"):
        bitnet_cy.lod  # noqa: B018


def test_a_model_tells_what_it_is(model: Model, path: Path) -> None:
    assert model.path == path
    assert model.architecture == "bitnet-b1.58"
    assert model.context_length == model.config.context_length == 256
    assert "tiny.gguf: bitnet-b1.58" in repr(model)
    assert model.kv_cache_nbytes == 2 * 2 * 2 * 64 * 256 * 2


def test_the_tokenizer_is_read_when_first_used(built: Callable[..., Path]) -> None:
    model = load(built(metadata_changes={"tokenizer.ggml.model": None}))
    assert model.logits([1, 2]).shape == (2, 384)
    assert model.generate.__self__ is model
    with pytest.raises(FormatError, match="no tokenizer"):
        model.generate("x")


def test_a_vocabulary_of_another_size_than_the_network_is_an_error(
    built: Callable[..., Path], path: Path
) -> None:
    with gguf.read(path) as file:
        tokens = list(file.metadata["tokenizer.ggml.tokens"])
        types = file.metadata["tokenizer.ggml.token_type"]
        scores = file.metadata["tokenizer.ggml.scores"]
    changes = {
        "tokenizer.ggml.tokens": [*tokens, "more"],
        "tokenizer.ggml.token_type": np.append(types, np.int32(1)),
        "tokenizer.ggml.scores": np.append(scores, np.float32(0)),
    }
    with pytest.raises(FormatError, match="385 tokens and a network for 384"):
        load(built(metadata_changes=changes)).tokenizer  # noqa: B018


def test_pre_names_the_splitting_rule_that_a_file_lacks(built: Callable[..., Path]) -> None:
    nameless = built(pre=None)
    with pytest.raises(BitNetError, match="pre"):
        load(nameless).tokenizer  # noqa: B018
    assert load(nameless, pre="llama-bpe").generate("a", max_tokens=1).text is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_length": 0}, "context_length is 0.*from 1 to 256"),
        ({"context_length": 257}, "context_length is 257.*from 1 to 256"),
        ({"context_length": True}, "context_length"),
        ({"context_length": "9"}, "context_length"),
        ({"kv_dtype": "int4"}, "kv_dtype is 'int4'; choose from float16, float32, int8"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -3}, "threads is -3"),
        ({"activation": "tanh"}, "activation"),
    ],
)
def test_a_wrong_option_of_load_is_an_error(
    path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        load(path, **options)


@pytest.mark.parametrize("wrong", [3, b"tiny.gguf", ["tiny.gguf"]])
def test_a_path_that_is_none_is_an_error(wrong: Any) -> None:
    with pytest.raises(OptionError, match="path is"):
        load(wrong)


def test_the_context_defaults_to_the_models_own_up_to_a_bound(built: Callable[..., Path]) -> None:
    assert load(built(context=100_000)).context_length == 4096
    assert load(built(context=100_000), context_length=5000).context_length == 5000


def test_a_model_too_large_for_the_memory_is_refused_before_it_is_allocated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda root=None: 100_000)
    with pytest.raises(ResourceError, match=r"tiny.gguf needs 711 kB and 100 kB are available"):
        load(path)
    monkeypatch.setattr(memory, "available", lambda root=None: 800_000)
    with pytest.raises(ResourceError, match=r"with a context of 256 tokens needs 973 kB"):
        load(path)


# Generating


def test_text_ids_and_stream_agree(model: Model) -> None:
    whole = model.generate("Once upon a time", max_new_tokens=24)
    ids = model.tokenizer.encode("Once upon a time")
    assert whole.prompt_token_ids == ids
    assert model.generate(ids, max_new_tokens=24).token_ids == whole.token_ids
    assert model.generate(np.array(ids), max_new_tokens=24).token_ids == whole.token_ids
    chunks = list(model.stream("Once upon a time", max_tokens=24))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.token_id for chunk in chunks] == whole.token_ids
    assert chunks[-1].finish_reason == whole.finish_reason
    assert whole.decode_tokens_per_second > 0
    assert whole.prompt_tokens_per_second > 0


def test_greedy_tokens_are_the_largest_logits(model: Model) -> None:
    result = model.generate([380, 65, 66], max_new_tokens=12)
    logits = model.logits([380, 65, 66, *result.token_ids])
    assert logits.dtype == np.float32
    assert logits.shape == (3 + len(result.token_ids), 384)
    assert logits.argmax(axis=1)[2:-1].tolist() == result.token_ids


def test_a_config_and_options_combine(model: Model) -> None:
    config = bitnet_cy.GenerationConfig(max_new_tokens=5, temperature=1.0, seed=4)
    first = model.generate("a", config)
    assert len(first.token_ids) <= 5
    assert model.generate("a", config, max_new_tokens=3).token_ids == first.token_ids[:3]
    assert model.generate("a", config, seed=5).token_ids != first.token_ids
    with pytest.raises(OptionError, match="config is"):
        model.generate("a", {"seed": 1})  # type: ignore[arg-type]


def test_options_are_checked_when_a_stream_is_made_not_when_it_is_read(model: Model) -> None:
    with pytest.raises(OptionError, match="temperature"):
        model.stream("a", temperature=-1)
    with pytest.raises(ContextError):
        model.stream([1] * 257)


def test_threads_and_cache_type_do_not_change_greedy_tokens(path: Path, model: Model) -> None:
    expected = model.generate("The king", max_new_tokens=40).token_ids
    for threads in (1, 2, 3):
        assert load(path, threads=threads).generate("The king", max_tokens=40).token_ids == expected
    assert len(load(path, kv_dtype="float32").generate("The king", max_tokens=40).token_ids) > 0


def test_two_threads_generate_from_one_model_at_once(model: Model) -> None:
    prompts = ["Once upon", "The old king", "A wolf", "In the wood"]
    alone = [model.generate(prompt, max_new_tokens=40).token_ids for prompt in prompts]
    results: dict[int, list[list[int]]] = {}

    def work(number: int) -> None:
        results[number] = [
            model.generate(prompt, max_new_tokens=40).token_ids
            for prompt in (prompts if number else prompts[::-1])
        ]

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == {0: alone[::-1], 1: alone}


def test_threads_that_do_different_things_with_one_model_do_not_meet(model: Model) -> None:
    ids = model.tokenizer.encode("Once upon a time")
    uses: list[Callable[[], Any]] = [
        lambda: model.generate("The old king", max_new_tokens=20).token_ids,
        lambda: model.logits(ids).tolist(),
        lambda: [g.token_ids for g in model.generate_batch(["A", "In"], max_new_tokens=10)],
        lambda: next(model.stream("A wolf", max_new_tokens=20)).token_id,  # the rest is abandoned
    ]
    alone = [use() for use in uses]
    found: list[list[Any]] = [[] for _ in uses]

    def work(place: int) -> None:
        found[place] = [uses[place]() for _ in range(3)]

    workers = [threading.Thread(target=work, args=(place,)) for place in range(len(uses))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [[result] * 3 for result in alone]


def test_two_streams_may_be_read_in_turn(model: Model) -> None:
    prompts = ["Once upon", "The old king"]
    alone = [model.generate(prompt, max_new_tokens=15).token_ids for prompt in prompts]
    streams = [model.stream(prompt, max_new_tokens=15) for prompt in prompts]
    turns = zip(*streams, strict=True)
    assert [list(ids) for ids in zip(*([c.token_id for c in turn] for turn in turns), strict=True)]
    assert [[c.token_id for c in model.stream(p, max_new_tokens=15)] for p in prompts] == alone


def test_a_stream_closed_early_gives_its_session_back(path: Path) -> None:
    model = load(path)
    for _ in range(3):
        stream = model.stream("Once upon a time", max_new_tokens=50)
        next(stream)
        stream.close()
        assert len(model._pool._idle) == 1
    abandoned = model.stream("never read")
    del abandoned
    assert len(model._pool._idle) == 1


def test_few_idle_sessions_are_kept(path: Path) -> None:
    model = load(path)
    streams = [model.stream("a", max_new_tokens=5) for _ in range(sessions.KEEP + 2)]
    for stream in streams:
        next(stream)
    for stream in streams:
        stream.close()
    assert len(model._pool._idle) == sessions.KEEP


def test_an_empty_text_starts_from_bos_if_there_is_one(
    model: Model, built: Callable[..., Path]
) -> None:
    assert model.generate("", max_tokens=2).prompt_token_ids == [380]
    without = load(built(bos=None, add_bos=None))
    with pytest.raises(OptionError, match="empty"):
        without.generate("")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "no tokens"),
        ([384], "token id is 384; give a whole number from 0 to 383"),
        ([-1], "token id is -1"),
        ([1.5], "token id is 1.5"),
        ([True], "token id is True"),
        ([1, None], "token id is None"),
        (None, "the prompt is None"),
        (b"abc", "the prompt is b'abc'"),
        (7, "the prompt is 7"),
        ("\udc80", "surrogate"),
    ],
)
def test_a_prompt_that_is_none_is_an_error(model: Model, prompt: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.generate(prompt)


def test_a_prompt_longer_than_the_context_is_an_error_with_both_numbers(path: Path) -> None:
    model = load(path, context_length=8)
    with pytest.raises(ContextError, match=r"9 tokens and the context holds 8.*up to 256"):
        model.generate([1] * 9)
    with pytest.raises(ContextError):
        model.logits([1] * 9)
    assert len(model.generate([1] * 8, max_new_tokens=5).token_ids) == 1


def test_logits_that_would_not_fit_the_memory_are_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda root=None: 1000)
    with pytest.raises(ResourceError, match="the logits of 3 tokens"):
        model.logits([1, 2, 3])


# Chatting


def test_a_later_turn_of_a_chat_reuses_the_cache_and_says_the_same(path: Path) -> None:
    model = load(path)
    reply = model.chat(USER, max_new_tokens=10)
    messages = [
        *USER,
        {"role": "assistant", "content": reply.text},
        {"role": "user", "content": "And a queen?"},
    ]
    chunks = list(model.chat_stream(messages, max_new_tokens=10))
    assert chunks[0].reused_tokens > 5
    fresh = load(path).chat(messages, max_new_tokens=10)
    assert [chunk.token_id for chunk in chunks] == fresh.token_ids
    repeated = list(model.chat_stream(messages, max_new_tokens=10))
    assert repeated[0].reused_tokens == repeated[0].prompt_tokens - 1
    assert [chunk.token_id for chunk in repeated] == fresh.token_ids


def test_generate_computes_every_prompt_anew(model: Model) -> None:
    model.generate("Once upon a time", max_new_tokens=2)
    assert next(model.stream("Once upon a time")).reused_tokens == 0


def test_a_model_without_a_chat_template_says_to_generate(built: Callable[..., Path]) -> None:
    model = load(built(template=None))
    with pytest.raises(UnsupportedError, match="generate"):
        model.chat(USER)


# The model in the package


@pytest.mark.skipif(not embedded_model().exists(), reason="the package holds no model yet")
def test_the_embedded_model_writes_text() -> None:
    text = load().generate("Once upon a time", max_new_tokens=40).text
    assert len(text.split()) > 15
    assert sum(c.isalpha() or c in " ,.\u2019" for c in text) > 0.9 * len(text)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.3},
        {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": 4},
        {"temperature": 0.9, "seed": 4},
        {"prompt_lookup_num_tokens": 3},
    ],
)
def test_a_screened_head_gives_the_same_tokens(options: dict[str, Any]) -> None:
    full, screened = load(head="full"), load(head="screened")
    found = [model.generate("The king said", max_new_tokens=40, **options).token_ids
             for model in (full, screened)]  # fmt: skip
    assert found[0] == found[1]
    assert full.network.screen is None
    assert screened.network.screen is not None
    prompts = ["The king said", "Once", "A fox and a"]
    batch = [
        [result.token_ids for result in model.generate_batch(prompts, max_new_tokens=20, **options)]
        for model in (full, screened)
    ]
    assert batch[0] == batch[1]


def test_a_small_head_is_read_whole() -> None:
    model = load()
    model.generate("Once", max_new_tokens=30)
    assert model.network.screen is None


def test_how_the_head_is_read_is_checked() -> None:
    with pytest.raises(OptionError, match="head"):
        load(head="fast")
