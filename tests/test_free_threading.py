"""Threads generate at once from one model, with and without the interpreter's lock."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from fixtures_fakes import tiny_model

from bitnet_cy.engine import Session
from bitnet_cy.errors import BitNetError
from bitnet_cy.model import Model, load

PROMPTS = [[5 + 7 * i, 300 + i, 40] for i in range(4)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of SentencePiece's kind: the package that reads the others has no wheel for
    every free-threaded CPython."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", specials=None)


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return load(path)


def at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """What each task returns or raises, all started together in threads of their own."""
    start = threading.Barrier(len(tasks))
    results: list[Any] = [None] * len(tasks)

    def work(place: int) -> None:
        start.wait()
        try:
            results[place] = tasks[place]()
        except Exception as error:
            results[place] = error

    workers = [threading.Thread(target=work, args=(place,)) for place in range(len(tasks))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def test_importing_loading_and_generating_switch_no_gil_on(path: Path) -> None:
    script = (
        "import sys; gil = getattr(sys, '_is_gil_enabled', bool); before = gil();"
        "import bitnet_cy, bitnet_cy.engine; assert gil() == before, 'import';"
        "model = bitnet_cy.load(sys.argv[1]); assert gil() == before, 'load';"
        "model.generate('a', max_new_tokens=4); assert gil() == before, 'generate'"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_threads_that_generate_at_once_write_what_each_writes_alone(model: Model) -> None:
    def tasks(repeats: int) -> list[Callable[[], Any]]:
        def drawn(ids: list[int]) -> Any:
            options = {"max_new_tokens": 24, "temperature": 0.9, "seed": ids[0]}
            return [model.generate(ids, **options).token_ids for _ in range(repeats)]

        def batch() -> Any:
            found = model.generate_batch(PROMPTS, max_new_tokens=12)
            return [result.token_ids for result in found]

        return [*(lambda ids=ids: drawn(ids) for ids in PROMPTS), batch]

    alone = [task() for task in tasks(1)]
    together = at_once(*tasks(5))
    assert together[-1] == alone[-1]
    assert together[:-1] == [found * 5 for found in alone[:-1]]


def test_models_load_and_tokenize_while_others_generate(path: Path, model: Model) -> None:
    expected = model.generate(PROMPTS[0], max_new_tokens=24).token_ids
    ids = model.tokenizer.encode("once upon a time")
    found = at_once(
        lambda: [load(path).generate(PROMPTS[0], max_new_tokens=24).token_ids for _ in range(3)],
        lambda: [model.generate(PROMPTS[0], max_new_tokens=24).token_ids for _ in range(3)],
        lambda: [model.tokenizer.encode("once upon a time") for _ in range(200)],
        lambda: [model.tokenizer.decode(ids) for _ in range(200)],
    )
    assert found[:3] == [[expected] * 3, [expected] * 3, [ids] * 200]
    assert len(set(found[3])) == 1


def test_a_session_takes_one_thread_and_refuses_the_others() -> None:
    network, _ = networks.make()
    session = Session(network, context_length=400)
    ids = np.arange(40)

    def ask() -> int:
        taken = 0
        for _ in range(5):
            try:
                session.forward(ids)
                taken += 1
            except BitNetError as error:
                assert "in use by another thread" in str(error)
        return taken

    taken = at_once(ask, ask)
    assert all(isinstance(count, int) for count in taken), taken
    assert session.position == 40 * sum(taken) > 0
