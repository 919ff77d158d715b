"""The command line: each verb does its work, for people and for programs."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_fakes import tiny_model

import bitnet_cy
from bitnet_cy import cli
from bitnet_cy.cli import chat, output, perplexity
from bitnet_cy.model import Model

COMMAND = [sys.executable, "-m", "bitnet_cy"]
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("cli") / "tiny.gguf"))


@pytest.fixture(scope="module")
def model(path: str) -> Model:
    return bitnet_cy.load(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line that must succeed; gives its standard output."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return run


# As the command line draws unless told otherwise.
DRAWN = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "seed": 0}


def stdin(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))


# generate


def test_generate_prints_what_the_model_generates(run: Run, path: str, model: Model) -> None:
    expected = model.generate("Once upon", max_new_tokens=12, **DRAWN)
    assert run("generate", "-m", path, "Once upon", "-n", 12) == expected.text + "\n"
    assert run("generate", "-m", path, "Once upon", "-n", 12, "--echo") == (
        f"Once upon{expected.text}\n"
    )
    found = json.loads(run("generate", "-m", path, "Once upon", "-n", 12, "--json"))
    assert found["token_ids"] == expected.token_ids
    assert found["prompt"] == "Once upon"
    assert set(found) > {"text", "finish_reason", "decode_tokens_per_second", "prompt_seconds"}


def test_generate_passes_every_option_on(run: Run, path: str, model: Model) -> None:
    options = {
        "temperature": 0.9, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2,
        "seed": 11, "max_new_tokens": 20,
    }  # fmt: skip
    flags = [str(x) for k, v in options.items() for x in (f"--{k.replace('_', '-')}", v)]
    text = run("generate", "-m", path, "x", *flags, "--stop", "zq", "--stop", "qz")
    assert text == model.generate("x", stop=["zq", "qz"], **options).text + "\n"


def test_a_prompt_comes_from_a_file_or_standard_input(
    run: Run, path: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.generate("Zwölf\nBrüder", max_new_tokens=5, **DRAWN).text + "\n"
    file = tmp_path / "prompt.txt"
    file.write_bytes("Zwölf\nBrüder\n".encode())
    assert run("generate", "-m", path, "-n", 5, "-f", file) == expected
    stdin(monkeypatch, "Zwölf\nBrüder".encode())
    assert run("generate", "-m", path, "-n", 5, "-") == expected


def test_verbose_numbers_go_to_standard_error(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", "-m", path, "-n", "3", "-v", "x"]) == 0
    captured = capsys.readouterr()
    assert "tok/s" in captured.err
    assert "tok/s" not in captured.out


# chat


def test_chat_answers_lines_and_keeps_the_conversation(
    run: Run, path: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"Hello\n\nAnd you?\n/reset\nHello\n/exit\nnever\n")
    system = {"role": "system", "content": "Be kind."}
    messages = [system, {"role": "user", "content": "Hello"}]
    first = model.chat(messages, max_new_tokens=6, **DRAWN).text
    messages += [
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And you?"},
    ]
    second = model.chat(messages, max_new_tokens=6, **DRAWN).text
    found = run("chat", "-m", path, "-n", 6, "--system", "Be kind.")
    assert found == f"{first}\n{second}\n{first}\n"


def test_chat_says_when_the_conversation_no_longer_fits_and_goes_on(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, b"Hello\n" + b"long " * 300 + b"\nHello\n")
    assert cli.main(["chat", "-m", path, "-n", "4"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("bitnet-cy: error:") == 1
    assert "/reset" in captured.err
    assert captured.out.count("\n") >= 2


def test_interrupting_a_reply_keeps_the_chat(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = chat.Conversation(model, bitnet_cy.GenerationConfig(max_new_tokens=9), None, False)
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output, "write", write)
        talk.answer("Hello")
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    assert talk.messages[1]["content"] == "".join(written[:3])
    talk.answer("Hello again")
    assert len(talk.messages) == 4


# tokenize, inspect, info


def test_tokenize_shows_ids_and_pieces(run: Run, path: str, model: Model) -> None:
    found = json.loads(run("tokenize", "-m", path, "a€<|eot_id|>", "--json"))
    assert found["ids"] == model.tokenizer.encode("a€<|eot_id|>")
    assert len(found["pieces"]) == len(found["ids"])
    assert found["pieces"][0] == "<|begin_of_text|>"
    assert "\\xe2" in found["pieces"]
    plain = json.loads(run("tokenize", "-m", path, "a", "--json", "--no-special"))
    assert plain["pieces"] == ["a"]
    special = json.loads(run("tokenize", "-m", path, "a<|eot_id|>", "--json", "--parse-special"))
    assert special["ids"][-1] == 383
    assert "'a'" in run("tokenize", "-m", path, "a")


def test_inspect_shows_metadata_and_tensors(run: Run, path: str) -> None:
    found = json.loads(run("inspect", path, "--json"))
    assert found["metadata"]["general.architecture"] == "bitnet-b1.58"
    assert found["metadata"]["tokenizer.ggml.tokens"]["length"] == 384
    assert len(found["metadata"]["tokenizer.ggml.tokens"]["first"]) == 5
    tensor = next(t for t in found["tensors"] if t["name"] == "blk.0.ffn_down.weight")
    assert (tensor["shape"], tensor["type_name"]) == ([256, 512], "I2_S")
    text = run("inspect", path)
    assert "blk.0.ffn_down.weight" in text
    assert "(384 in all)" in text


def test_info_tells_what_runs_here(run: Run) -> None:
    found = json.loads(run("info", "--json"))
    assert found == bitnet_cy.info() | {"memory": found["memory"]}
    assert found["kernels"]["chosen"] in found["kernels"]["available"]
    assert found["threads"]["count"] >= 1
    text = run("info")
    for word in ("kernel", found["kernels"]["chosen"], found["threads"]["reason"], "numpy"):
        assert word in text


# perplexity


def test_perplexity_is_that_of_the_logits(
    run: Run, path: str, model: Model, tmp_path: Path
) -> None:
    text = "The old king lived happily. " * 5
    file = tmp_path / "text.txt"
    file.write_text(text)
    found = json.loads(run("perplexity", "-m", path, "-f", file, "--json"))
    ids = model.tokenizer.encode(text)
    logits = model.logits(ids).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    chances = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    total = -chances[np.arange(len(ids) - 1), ids[1:]].sum()
    assert found["tokens"] == len(ids) - 1
    assert found["bytes"] == len(text)
    assert found["perplexity"] == pytest.approx(math.exp(total / found["tokens"]), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(total / math.log(2) / len(text), rel=1e-5)


def test_perplexity_in_windows_scores_every_token_once(run: Run, path: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("The old king lived happily. " * 40)
    whole = json.loads(run("perplexity", "-m", path, "-f", file, "--json"))
    strided = json.loads(
        run("perplexity", "-m", path, "-f", file, "--json", "-c", 50, "--stride", 7)
    )
    assert strided["tokens"] == whole["tokens"]
    assert strided["windows"] > whole["windows"] > 1
    assert "bits per byte" in run("perplexity", "-m", path, "-f", file)


@pytest.mark.parametrize(("count", "room", "step", "first"), [
    (100, 10, 10, 0), (100, 10, 9, 1), (97, 10, 3, 0), (97, 10, 3, 1), (5, 10, 10, 0),
    (10, 10, 1, 0),
])  # fmt: skip
def test_windows_cover_the_text_with_the_context_that_the_stride_leaves(
    count: int, room: int, step: int, first: int
) -> None:
    plan = list(perplexity.windows(count, room, step, first))
    scored = [token for window in plan for token in range(window.scored, window.end)]
    assert scored == list(range(first, count))
    for window in plan:
        assert window.end - window.start <= room
        assert window.end - window.scored <= (room if window is plan[0] else step)
    for window in plan[1:-1]:
        assert window.scored - window.start == room - step


# bench


def test_bench_measures_rates_bytes_and_memory(run: Run, path: str) -> None:
    flags = ["-m", path, "-p", 20, "-n", 4, "--repeats", 2, "-t", 1]
    found = json.loads(run("bench", *flags, "--json"))
    low, high = found["decode_tokens_per_second_spread"]
    assert 0 < low <= found["decode_tokens_per_second"] <= high
    assert found["prompt_tokens_per_second"] > 0
    assert found["threads"] == 1
    assert 100_000 < found["bytes_per_token"] < Path(path).stat().st_size
    assert found["read_bandwidth"] > 0
    parts = found["memory_breakdown"]
    assert set(parts) == {"ternary", "embedding", "output head", "norms", "KV cache", "scratch"}
    assert found["ternary_bytes"] == parts["ternary"]["mapped"] + parts["ternary"]["copied"]
    text = run("bench", *flags)
    assert "median of 2" in text
    assert "of a plain read's" in text


def test_info_shows_what_a_model_takes_in_memory(run: Run, path: str, model: Model) -> None:
    found = json.loads(run("info", "-m", path, "--json"))["model"]["memory"]
    assert found == model.memory_breakdown
    assert found["KV cache"]["copied"] == model.kv_cache_nbytes
    assert "KV cache" in run("info", "-m", path)
    assert "KV cache" not in run("info")


# The program as a whole


def test_help_and_version_need_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, word in (("--help", "perplexity"), ("--version", bitnet_cy.__version__)):
        with pytest.raises(SystemExit) as caught:
            cli.main([flag])
        assert caught.value.code == 0
        assert word in capsys.readouterr().out


@pytest.mark.parametrize("verb", [verb.__name__.rpartition(".")[2] for verb in cli.VERBS])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert f"bitnet-cy {verb}" in capsys.readouterr().out


def test_characters_that_the_terminal_lacks_are_replaced(path: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*COMMAND, "generate", "-m", path, "--echo", "-n", "1", "K\u00f6nig \u6f22"],
        capture_output=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(b"K?nig ?")
    assert done.stderr == b""


@pytest.mark.skipif(os.name == "nt", reason="Windows pipes break otherwise")
def test_a_reader_that_goes_away_is_no_error(path: str) -> None:
    command = [*COMMAND, "generate", "-m", path, "-n", "200", "x"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) in (0, 141)
    assert error == b""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_quietly(path: str) -> None:
    endless = [*COMMAND, "chat", "-m", path]
    process = subprocess.Popen(
        endless, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Hello\n")
    process.stdin.flush()
    process.stdout.read(1)  # it answers, or waits for the next line
    process.send_signal(signal.SIGINT)
    process.stdin.close()
    error = process.stderr.read()  # type: ignore[union-attr]
    assert process.wait(60) in (0, 130)
    assert b"Traceback" not in error
