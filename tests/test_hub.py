"""Models by repository name: real huggingface_hub, real HTTP, a Hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import numpy as np
import pytest
from fake_hub import FakeHub
from fixtures_fakes import tiny_model

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

REPO = "Org/Tiny-b1.58-gguf"
BIG = np.random.default_rng(0).bytes(12_000_000)  # huggingface_hub writes 10 MB at a time
WITHOUT_EXTRA = (
    "import sys; sys.modules['huggingface_hub'] = None; from bitnet_cy import cli; "
    "sys.exit(cli.main(sys.argv[1:]))"
)
CHECKPOINT = {
    "config.json": b'{"model_type": "bitnet", "architectures": ["BitNetForCausalLM"]}',
    "model.safetensors": b"s" * 100_000,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"never",
    "README.md": b"# a model",
}


class Machine:
    """Runs bitnet-cy in a process of its own, with an empty cache and the Hub of the test."""

    def __init__(self, folder: Path, hub: FakeHub) -> None:
        self.folder, self.hub = folder, hub
        self.cache = folder / "home" / "hub"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        mine = {"HF_HOME": str(folder / "home"), "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
        self.environment = kept | mine | {"HF_HUB_DISABLE_TELEMETRY": "1"}

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        return self._popen([sys.executable, "-m", "bitnet_cy", *arguments], changes)

    def run(self, *arguments: str, **changes: str) -> str:
        """Standard output of a command line that succeeds."""
        code, out, error = self.outcome(self.start(*arguments, **changes))
        assert code == 0, error
        return out

    def fails(self, *arguments: str, program: str | None = None, **changes: str) -> str:
        """The one line of a command line that fails."""
        command = ["-m", "bitnet_cy"] if program is None else ["-c", program]
        process = self._popen([sys.executable, *command, *arguments], changes)
        code, out, error = self.outcome(process)
        assert code in (1, 2), out + error
        assert error.count("\n") == 1
        assert error.startswith("bitnet-cy: error: ")
        return error

    def pull(self, *arguments: str, **changes: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("pull", "--json", *arguments, **changes))
        return found

    def outcome(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, error = process.communicate(timeout=120)
        return process.returncode, out, error

    def _popen(self, command: list[str], changes: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment | changes, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub.running() as hub:
        yield hub


@pytest.fixture
def machine(tmp_path: Path, hub: FakeHub) -> Machine:
    return Machine(tmp_path, hub)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_model(tmp_path_factory.mktemp("hub") / "tiny.gguf").read_bytes()


def test_a_model_runs_by_its_name_and_then_without_a_network(
    machine: Machine, hub: FakeHub, model: bytes
) -> None:
    commit = hub.add(REPO, {"README.md": b"# tiny", "ggml-model-i2_s.gguf": model})
    command = ("generate", "-m", REPO, "-n", "8", "The king")
    text = machine.run(*command)
    file = (
        machine.cache / "models--Org--Tiny-b1.58-gguf/snapshots" / commit / "ggml-model-i2_s.gguf"
    )
    assert file.read_bytes() == model
    before = len(hub.requests)
    assert machine.run(*command) == text
    assert [r.split()[0] for r in hub.requests[before:]] == ["GET"]  # what the branch is now
    assert len(hub.asked("GET /cdn/")) == 1
    assert machine.run(*command, HF_HUB_OFFLINE="1") == text
    assert machine.run(*command, HF_ENDPOINT="http://127.0.0.1:9") == text


def test_pull_prints_the_path_and_follows_the_branch(
    machine: Machine, hub: FakeHub, model: bytes
) -> None:
    first = hub.add(REPO, {"a.gguf": model})
    old = machine.pull(REPO)
    second = hub.add(REPO, {"a.gguf": model + bytes(32)})
    new = machine.pull(REPO)
    assert (old["commit"], new["commit"]) == (first, second)
    assert Path(new["path"]).stat().st_size == new["nbytes"] == len(model) + 32
    assert machine.pull(f"{REPO}@{first}")["path"] == old["path"]
    assert machine.pull(REPO, "--revision", first)["path"] == old["path"]
    assert machine.run("pull", REPO).strip() == new["path"]
    assert "has no revision v9" in machine.fails("pull", f"{REPO}@v9")


def test_an_interrupted_download_continues(machine: Machine, hub: FakeHub) -> None:
    commit = hub.add(REPO, {"a.gguf": BIG})
    hub.break_after, hub.breaks, hub.stall = 11_000_000, 1, threading.Event()
    process = machine.start("pull", REPO)
    partial = machine.cache / "models--Org--Tiny-b1.58-gguf/blobs"
    partial /= hashlib.sha256(BIG).hexdigest() + ".incomplete"
    until = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    machine.outcome(process)
    hub.stall.set()
    hub.stall = None
    have = partial.stat().st_size
    assert 0 < have < len(BIG)
    assert Path(machine.pull(REPO)["path"]).read_bytes() == BIG
    assert hub.asked("GET /cdn/") == [
        f"GET /cdn/{REPO}/{commit}/a.gguf",
        f"GET /cdn/{REPO}/{commit}/a.gguf bytes={have}-",
    ]
    assert not partial.exists()


def test_a_broken_connection_is_taken_up_again(machine: Machine, hub: FakeHub) -> None:
    hub.add(REPO, {"a.gguf": BIG})
    hub.break_after, hub.breaks = 11_000_000, 1
    assert Path(machine.pull(REPO)["path"]).read_bytes() == BIG
    assert len(hub.asked("GET /cdn/")) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_that_is_not_of_this_file_does_no_harm(
    machine: Machine, hub: FakeHub, model: bytes, ranges: bool
) -> None:
    hub.add(REPO, {"a.gguf": model})
    hub.ranges = ranges
    blobs = machine.cache / "models--Org--Tiny-b1.58-gguf/blobs"
    blobs.mkdir(parents=True)
    (blobs / (hashlib.sha256(model).hexdigest() + ".incomplete")).write_bytes(b"x" * 1000)
    if ranges:
        assert "damaged" in machine.fails("pull", REPO)
    assert Path(machine.pull(REPO)["path"]).read_bytes() == model


def test_without_a_network_the_error_says_what_was_asked_and_what_to_do(
    machine: Machine, hub: FakeHub
) -> None:
    for changes, reason in (
        ({"HF_HUB_OFFLINE": "1"}, "offline mode is on; unset HF_HUB_OFFLINE"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
    ):
        message = machine.fails("pull", REPO, **changes)
        assert f"{REPO} is not in the cache" in message
        assert reason in message
        assert "or give the path of a file" in message
    hub.status = 503
    assert "answered 503; try again later" in machine.fails("pull", REPO)


def test_without_the_extra_the_error_names_it_and_the_cache_still_serves(
    machine: Machine, hub: FakeHub, model: bytes
) -> None:
    message = machine.fails("pull", REPO, program=WITHOUT_EXTRA)
    assert "pip install 'bitnet_cy[hub]'" in message
    hub.add(REPO, {"a.gguf": model})
    path = machine.pull(REPO)["path"]
    process = machine._popen([sys.executable, "-c", WITHOUT_EXTRA, "pull", REPO], {})
    assert machine.outcome(process)[1].strip() == path


def test_a_repository_that_may_not_be_read_is_explained(
    machine: Machine, hub: FakeHub, model: bytes
) -> None:
    hub.add("org/gated", {"a.gguf": model}, gated=True)
    hub.add("org/private", {"a.gguf": model}, token="hf_secret")
    assert "org/gated is gated: accept its terms at" in machine.fails("pull", "org/gated")
    for name in ("org/private", "org/none"):
        message = machine.fails("pull", name)
        assert f"shows no repository {name}" in message
        assert "HF_TOKEN" in message
    found = machine.pull("org/private", HF_TOKEN="hf_secret")
    assert Path(found["path"]).read_bytes() == model
    assert "hf_secret" not in json.dumps(found)


def test_one_of_several_models_is_named(machine: Machine, hub: FakeHub, model: bytes) -> None:
    hub.add(REPO, {"m-TQ1_0.gguf": model, "m-TQ2_0.gguf": model + bytes(32), "m-Q4_K_M.gguf": b"q"})
    message = machine.fails("generate", "-m", REPO, "x")
    assert f"m-TQ1_0.gguf, m-TQ2_0.gguf; say which, as in {REPO}:m-TQ1_0.gguf" in message
    assert machine.pull(f"{REPO}:m-TQ2_0.gguf")["path"].endswith("/m-TQ2_0.gguf")
    assert "has no file b.gguf; it has m-Q4_K_M.gguf" in machine.fails("pull", f"{REPO}:b.gguf")
    listed = json.loads(machine.run("list", "--json"))
    assert [entry["name"] for entry in listed] == ["(embedded)", REPO]


def test_a_checkpoint_is_pulled_as_a_folder_to_convert(machine: Machine, hub: FakeHub) -> None:
    hub.add(REPO, CHECKPOINT)
    message = machine.fails("generate", "-m", REPO, "x")
    assert f"bitnet-cy pull {REPO}, then bitnet-cy convert" in message
    code, out, error = machine.outcome(machine.start("pull", REPO))
    assert code == 0
    names = sorted(path.name for path in Path(out.strip()).iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not hub.asked("pytorch_model.bin")
    assert f"bitnet-cy convert {out.strip()} -o Tiny-b1.58-gguf.gguf" in error
    (entry,) = [e for e in json.loads(machine.run("list", "--json")) if e["name"] == REPO]
    assert (entry["architecture"], entry["runs"]) == ("bitnet", "convert")


def test_what_is_on_disk_comes_first_and_a_mistyped_path_asks_no_network(
    machine: Machine, hub: FakeHub, model: bytes
) -> None:
    hub.add("models/tiny", {"a.gguf": b"of the hub"})
    (machine.folder / "models").mkdir()
    (machine.folder / "models" / "tiny").write_bytes(model)
    machine.run("generate", "-m", "models/tiny", "-n", "1", "x")
    for path in ("models/tinny", "nowhere/tiny.gguf", "./org/name", "tiny"):
        assert "no such file" in machine.fails("generate", "-m", path, "x")
    assert "hf://models/tinny" in machine.fails("generate", "-m", "models/tinny", "x")
    message = machine.fails("generate", "-m", "models/tiny", "--revision", "main", "x")
    assert "only a repository has revisions" in message
    assert not hub.requests
    assert machine.pull("hf://models/tiny")["nbytes"] == len(b"of the hub")
    message = machine.fails("generate", "-m", "nowhere/tiny", "x")
    assert "there is no file nowhere/tiny here, and as a repository: " in message


def test_list_shows_size_architecture_and_quantization(
    machine: Machine, hub: FakeHub, model: bytes
) -> None:
    hub.add(REPO, {"a.gguf": model})
    path = machine.pull(REPO)["path"]
    (machine.folder / "mine.gguf").write_bytes(model)
    (machine.folder / "broken.gguf").write_bytes(b"GGUF")
    out = machine.run("list")
    rows = {line.split()[0]: line for line in reversed(out.splitlines())}
    for name, place in ((REPO, path), ("mine.gguf", "mine.gguf")):
        assert rows[name].split()[3:] == ["bitnet-b1.58", "I2_S", "yes", place]
    assert "? " in rows["broken.gguf"]
    assert "broken.gguf has 4 bytes" in out
    assert "no such file or folder: nowhere" in machine.fails("list", "nowhere")
