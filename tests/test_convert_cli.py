"""bitnet-cy convert and tools/convert.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny

from bitnet_cy import cli

TOOL = Path(__file__).resolve().parents[1] / "tools" / "convert.py"


def test_convert_prints_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny()
    source = folder.write(tmp_path / "hf")
    out = tmp_path / "out.gguf"
    assert cli.main(["convert", str(source), "-o", str(out), "--embedding", "q8_0"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["part", "tensors", "from", "to", "bytes", "-1", "0", "+1", "scale", "error"]  # fmt: skip  # noqa: E501
    assert any(line.startswith("attn_q") and "packed uint8  I2_S" in line for line in lines)
    assert any(line.startswith("token_embd") and "Q8_0" in line for line in lines)
    trits = np.concatenate([found.trits.ravel() for found in folder.weights.linears.values()])
    minus, zero, plus = np.bincount(trits + 1)
    assert lines[-2] == (
        f"{trits.size:,} ternary weights: {minus:,} are -1, {zero:,} are 0, {plus:,} are +1"
    )
    assert lines[-1].startswith(str(out))
    assert captured.err == ""


def test_convert_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tiny().write(tmp_path / "hf")
    out = tmp_path / "out"
    assert cli.main(["convert", str(source), "-o", str(out), "--type", "hf", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(out)
    assert {row["part"] for row in found["rows"]} >= {"token_embd", "attn_q", "output_norm"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--type", "q4_0"], 2, "type is 'q4_0'"),
        (["--embedding", "x"], 2, "embedding is 'x'"),
        (["--type", "f16", "--kernel-config", "none.ini"], 1, "cannot read none.ini"),
    ],
)
def test_convert_tells_what_is_wrong(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny().write(tmp_path / "hf")
    assert cli.main(["convert", str(source), "-o", str(tmp_path / "x"), *arguments]) == code
    assert words in capsys.readouterr().err


def test_the_tool_is_the_verb(tmp_path: Path) -> None:
    source = tiny().write(tmp_path / "hf")
    command = [sys.executable, str(TOOL), str(source), "-o", str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "every tensor compared" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "already exists" in done.stderr
