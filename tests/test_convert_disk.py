"""A disk that is full, or a file that may not grow: one error, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import tiny

from bitnet_cy.convert import convert

resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")

# A process that no file may grow beyond a limit in: writing fails as on a full disk.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from bitnet_cy.cli import main
sys.exit(main(["convert", *sys.argv[2:]]))
"""


def limited(limit: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(limit), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("type_", "limit"), [("i2_s", 0), ("tq1_0", 20_000), ("f16", 300_000), ("hf", 300_000)]
)
def test_a_file_that_cannot_grow_is_told_and_removed(
    type_: str, limit: int, tmp_path: Path
) -> None:
    """The limit is reached in the header, in a matrix, or in a later one."""
    source = tiny().write(tmp_path / "hf")
    done = limited(limit, source, "-o", tmp_path / "out", "--type", type_)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_what_stood_there_before_stays_when_the_disk_is_full(tmp_path: Path) -> None:
    source = tiny().write(tmp_path / "hf")
    convert(source, tmp_path / "a.gguf")
    convert(source, tmp_path / "b", type="hf")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out, type_ in (("a.gguf", "tq1_0"), ("b", "hf")):
        done = limited(100_000, source, "-o", tmp_path / out, "--type", type_, "--force")
        assert done.returncode == 1, done.stdout
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full stands for a full disk")
def test_a_report_that_cannot_be_printed_does_not_undo_the_conversion(tmp_path: Path) -> None:
    source = tiny().write(tmp_path / "hf")
    command = [sys.executable, "-m", "bitnet_cy", "convert", str(source), "-o"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, str(tmp_path / "out.gguf")], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out.gguf").is_file()
