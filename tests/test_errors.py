"""Whatever a user gets wrong, or a file holds: one clear line, a failing code, no traceback."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_fakes import tiny_model

from bitnet_cy import cli, memory
from bitnet_cy.formats import gguf
from bitnet_cy.formats.gguf import TensorSource

TERNARY = "blk.0.attn_q.weight"
Maker = Callable[[Path, bytes], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("errors") / "good.gguf")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must fail; gives its one line of complaint."""

    def fails(*arguments: object, code: int | None = None) -> str:
        capsys.readouterr()
        try:
            found: object = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:
            found = exit.code
        captured = capsys.readouterr()
        assert found in ((1, 2) if code is None else (code,))
        return one_line(captured.err, captured.out)

    return fails


def one_line(err: str, out: str = "") -> str:
    assert err.startswith("bitnet-cy: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert out.strip() == ""
    return err


# Files


def patched(raw: bytes, name: str, kind: int | None = None, offset: int | None = None) -> bytes:
    """The file with another type id or offset in one row of its tensor table."""
    start = raw.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
    (dims,) = struct.unpack_from("<I", raw, start)
    place = start + 4 + 8 * dims
    old = struct.unpack_from("<IQ", raw, place)
    new = struct.pack("<IQ", old[0] if kind is None else kind, old[1] if offset is None else offset)
    return raw[:place] + new + raw[place + 12 :]


def counts(tensors: int, pairs: int) -> Maker:
    def make(path: Path, raw: bytes) -> None:
        path.write_bytes(raw[:8] + struct.pack("<QQ", tensors, pairs) + raw[24:])

    return make


def written(change: Callable[[bytes], bytes]) -> Maker:
    return lambda path, raw: path.write_bytes(change(raw))


def other(**changes: Any) -> Maker:
    return lambda path, raw: tiny_model(path, **changes)


def dense(path: Path, raw: bytes) -> None:
    """The same model with 16-bit weights in place of the ternary ones."""
    whole = path.with_name("whole.gguf")
    whole.write_bytes(raw)
    with gguf.read(whole) as file:
        sources = [
            TensorSource(t.name, t.shape, "F16", bytes(2 * int(np.prod(t.shape))))
            if t.type_name == "I2_S"
            else TensorSource(t.name, t.shape, t.type_name, file.raw(t.name).tobytes())
            for t in file.tensors.values()
        ]
        keys = {key: file.metadata.typed(key) for key in file.metadata}
        gguf.write(path, keys, sources)


FILES: dict[str, tuple[Maker, str]] = {
    "missing": (lambda path, raw: None, "no such file"),
    "directory": (lambda path, raw: path.mkdir(), "is a directory"),
    "empty": (written(lambda raw: b""), "0 bytes"),
    "wrong magic": (written(lambda raw: b"GGML" + raw[4:]), "GG"),
    "text": (written(lambda raw: b"Once upon a time there was no model here."), "not"),
    "version 1": (written(lambda raw: raw[:4] + struct.pack("<I", 1) + raw[8:]), "version 1"),
    "absurd tensor count": (counts(1 << 60, 5), "tensors"),
    "absurd key count": (counts(5, 1 << 60), "metadata"),
    "absurd offset": (written(lambda raw: patched(raw, TERNARY, offset=1 << 50)), TERNARY),
    "overlapping tensors": (written(lambda raw: patched(raw, TERNARY, offset=0)), "overlap"),
    "unsupported tensor type": (written(lambda raw: patched(raw, TERNARY, kind=99)), TERNARY),
    "dense": (dense, "not a ternary model"),
    "unknown architecture": (
        other(metadata_changes={"general.architecture": "gptj"}),
        "bitnet_cy runs bitnet",
    ),
    "no architecture": (other(metadata_changes={"general.architecture": None}), "architecture"),
    "missing key": (other(metadata_changes={"bitnet-b1.58.block_count": None}), "block_count"),
    "absurd key": (other(metadata_changes={"bitnet-b1.58.block_count": 10**6}), "blk."),
    "missing tokenizer": (other(metadata_changes={"tokenizer.ggml.model": None}), "no tokenizer"),
    "unknown splitting rule": (other(pre="zebra"), "zebra"),
    **{
        f"truncated at {place}": (written(lambda raw, place=place: raw[:place]), "")  # type: ignore[misc]
        for place in (1, 4, 10, 23, 24, 60, 1000, 9000, 100_000, -1)
    },
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_run_gives_one_line(
    case: str, good: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    make, words = FILES[case]
    path = tmp_path / "bad.gguf"
    make(path, good.read_bytes())
    message = fails("generate", "-m", path, "x", code=1)
    assert words in message
    assert "bad.gguf" in message or words


UNREADABLE = ["missing", "directory", "empty", "wrong magic", "absurd offset", "truncated at 1000"]


@pytest.mark.parametrize("verb", ["chat", "tokenize", "perplexity", "bench", "inspect"])
@pytest.mark.parametrize("case", UNREADABLE)
def test_every_verb_refuses_a_file_that_cannot_be_read(
    case: str, verb: str, good: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    path = tmp_path / "bad.gguf"
    FILES[case][0](path, good.read_bytes())
    text = tmp_path / "text.txt"
    text.write_text("some text")
    arguments = {
        "chat": ["-m", path],
        "tokenize": ["-m", path, "x"],
        "perplexity": ["-m", path, "-f", text],
        "bench": ["-m", path],
        "inspect": [path],
    }[verb]
    fails(verb, *arguments, code=1)


@pytest.mark.parametrize("case", ["unknown architecture", "unsupported tensor type", "dense"])
def test_inspect_shows_a_file_that_cannot_be_run(
    case: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.gguf"
    FILES[case][0](path, good.read_bytes())
    assert cli.main(["inspect", str(path)]) == 0
    assert TERNARY in capsys.readouterr().out
    assert cli.main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"]


# Options and prompts

GENERATE: list[tuple[Sequence[object], str]] = [
    (["-t", 0], "threads is 0"),
    (["-t", -1], "threads is -1"),
    (["-t", 99999], "threads is 99999"),
    (["-t", "two"], "-t/--threads"),
    (["-n", 0], "max_new_tokens is 0"),
    (["-n", -5], "max_new_tokens is -5"),
    (["-n", 1.5], "-n/--max-new-tokens"),
    (["--temperature", -1], "temperature is -1"),
    (["--temperature", "nan"], "temperature is nan"),
    (["--temperature", "inf"], "temperature is inf"),
    (["--temperature", "warm"], "--temperature"),
    (["--top-k", -1], "top_k is -1"),
    (["--top-p", 1.5], "top_p is 1.5"),
    (["--min-p", -0.5], "min_p is -0.5"),
    (["--repetition-penalty", 0], "repetition_penalty is 0"),
    (["--stop", ""], "stop is "),
    (["--seed", -1], "seed is -1"),
    (["-c", 0], "context_length is 0"),
    (["-c", 99999], "context_length is 99999"),
    (["--kv-dtype", "int3"], "kv_dtype is 'int3'"),
    (["--activation", "tanh"], "activation is 'tanh'"),
    (["--pre", "zebra"], "pre is 'zebra'"),
    (["--no-such-option"], "--no-such-option"),
    (["--temp", 1], "--temp"),
    (["-f", "prompt.txt"], "both"),
]


@pytest.mark.parametrize(
    ("options", "words"), GENERATE, ids=[" ".join(map(str, case[0])) for case in GENERATE]
)
def test_a_nonsense_option_gives_one_line_that_names_it(
    options: Sequence[object], words: str, good: Path, fails: Callable[..., str]
) -> None:
    assert words in fails("generate", "-m", good, "x", *options, code=2)


OTHERS: list[tuple[Sequence[object], str]] = [
    ([], "VERB"),
    (["paint"], "paint"),
    (["generate", "-m", "MODEL"], "neither"),
    (["bench", "-m", "MODEL", "-p", 0], "--prompt-tokens is 0"),
    (["bench", "-m", "MODEL", "-n", 0], "--max-new-tokens is 0"),
    (["bench", "-m", "MODEL", "--repeats", -2], "--repeats is -2"),
    (["bench", "-m", "MODEL", "-p", 250, "-n", 99], "do not fit"),
    (["perplexity", "-m", "MODEL"], "-f"),
    (["perplexity", "-m", "MODEL", "-f", "TEXT", "--stride", 0], "stride is 0"),
    (["perplexity", "-m", "MODEL", "-f", "TEXT", "--stride", 999], "stride is 999"),
    (["perplexity", "-m", "MODEL", "-f", "EMPTY"], "empty"),
    (["perplexity", "-m", "MODEL", "-f", "LATIN"], "not UTF-8"),
    (["perplexity", "-m", "MODEL", "-f", "NOWHERE"], "NOWHERE"),
    (["generate", "-m", "MODEL", "-f", "LATIN"], "not UTF-8"),
    (["generate", "-m", "MODEL", "-f", "NOWHERE"], "NOWHERE"),
    (["generate", "-m", "MODEL", "LONG"], "the context holds 256"),
    (["generate", "-m", "MODEL", "\udcff"], "surrogate"),
    (["tokenize", "-m", "TEXT", "x"], "text.txt"),
]


@pytest.mark.parametrize(
    ("arguments", "words"), OTHERS, ids=[" ".join(map(ascii, case[0])) for case in OTHERS]
)
def test_wrong_usage_gives_one_line(
    arguments: Sequence[object],
    words: str,
    good: Path,
    tmp_path: Path,
    fails: Callable[..., str],
) -> None:
    stand_ins: dict[object, object] = {"MODEL": good, "LONG": "word " * 300}
    for name, content in (("TEXT", b"hello"), ("EMPTY", b""), ("LATIN", b"K\xf6nig")):
        stand_ins[name] = tmp_path / f"{name.lower()}.txt"
        (tmp_path / f"{name.lower()}.txt").write_bytes(content)
    assert words in fails(*(stand_ins.get(argument, argument) for argument in arguments))


def test_a_model_too_large_for_the_memory_gives_one_line_with_both_sizes(
    good: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda root: 50_000)
    message = fails("generate", "-m", good, "x", code=1)
    assert "kB and 50 kB are available" in message


def test_running_out_of_memory_gives_one_line(
    good: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("bitnet_cy.model.load", run_out)
    assert "out of memory" in fails("generate", "-m", good, "x", code=1)


def test_a_base_model_says_to_generate_instead_of_chatting(
    tmp_path: Path, fails: Callable[..., str]
) -> None:
    base = tiny_model(tmp_path / "base.gguf", template=None)
    assert "generate" in fails("chat", "-m", base, code=1)


def test_names_in_a_file_cannot_drive_the_terminal(
    tmp_path: Path, fails: Callable[..., str]
) -> None:
    evil = tiny_model(
        tmp_path / "evil.gguf", metadata_changes={"general.architecture": "\x1b[2J\nx"}
    )
    assert "\x1b" not in fails("generate", "-m", evil, "x")


# The same from outside

OUTSIDE: list[tuple[list[str], int]] = [
    (["generate", "-m", "nowhere.gguf", "x"], 1),
    (["generate", "-t", "0", "x"], 2),
    (["inspect", "."], 1),
    (["nonsense"], 2),
]


@pytest.mark.parametrize(("arguments", "code"), OUTSIDE, ids=[c[0][0] + str(c[1]) for c in OUTSIDE])
def test_the_program_ends_with_one_line_and_a_code(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-m", "bitnet_cy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    one_line(done.stderr, done.stdout)


def test_an_address_space_limit_gives_one_line(good: Path) -> None:
    pytest.importorskip("resource", reason="limits are a POSIX thing")
    script = (
        "import resource, sys; from bitnet_cy import cli, model; "
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300_000, used + 300_000)); "
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux's /proc to set a limit just above what is in use")
    command = [sys.executable, "-c", script, "generate", "-m", str(good), "x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    one_line(done.stderr)
