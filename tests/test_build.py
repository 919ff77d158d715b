"""Building from source: switches, compilers without OpenMP, compilers that do not work.

The real setup.py builds modules that are empty, with a compiler that writes down its arguments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in (ROOT / "bitnet_cy" / "engine").glob("*.pyx"))
# Says what it is asked, then does it; refuses OpenMP if told so.
RECORDER = """#!/bin/sh
echo "$@" >>"$0.log"
case "$NO_OPENMP $*" in 1*-fopenmp*) echo "no OpenMP here" >&2; exit 1;; esac
exec cc "$@"
"""
BROKEN = """#!/bin/sh
echo "cc1: fatal error: the moon is full" >&2
exit 1
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="imitates a Linux compiler")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree whose modules are empty."""
    pytest.importorskip("Cython", reason="Cython is not installed")
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed (Debian: gcc)")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    engine = tmp_path / "bitnet_cy" / "engine"
    engine.mkdir(parents=True)
    for name in MODULES:
        (engine / f"{name}.pyx").write_text("# cython: language_level=3\n")
    return tmp_path


def build(tree: Path, compiler: str, **switches: str) -> subprocess.CompletedProcess[str]:
    script = tree / "compiler"
    script.write_text(compiler)
    script.chmod(0o755)
    unset = ("LD_PRELOAD", "BITNET_CY_NATIVE", "BITNET_CY_DEBUG", "BITNET_CY_SANITIZE", "CFLAGS")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"CC": str(script), "LDSHARED": f"{script} -shared", **switches}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def compilations(tree: Path) -> list[str]:
    """The compiler's arguments for every module, without those of the probes."""
    lines = (tree / "compiler.log").read_text().splitlines()
    return [line for line in lines if " -c " in f" {line} " and "probe" not in line]


def test_a_plain_build_is_optimised_and_for_every_cpu(tree: Path) -> None:
    run = build(tree, RECORDER)
    assert run.returncode == 0, run.stderr
    lines = compilations(tree)
    assert len(lines) == len(MODULES)
    for line in lines:
        assert " -O3 " in line
        assert "-march" not in line
        assert "-fsanitize" not in line


@pytest.mark.parametrize(
    ("switch", "value", "flags"),
    [
        ("BITNET_CY_NATIVE", "1", ["-march=native"]),
        ("BITNET_CY_DEBUG", "1", ["-O0", "-g"]),
        ("BITNET_CY_SANITIZE", "undefined", ["-fsanitize=undefined", "-fno-omit-frame-pointer"]),
    ],
)
def test_every_switch_adds_its_flags(tree: Path, switch: str, value: str, flags: list[str]) -> None:
    run = build(tree, RECORDER, **{switch: value})
    assert run.returncode == 0, run.stderr
    for line in compilations(tree):
        assert set(flags) <= set(line.split())


def test_a_compiler_without_openmp_builds_for_one_thread_and_says_so(tree: Path) -> None:
    run = build(tree, RECORDER, NO_OPENMP="1")
    assert run.returncode == 0, run.stderr
    assert "OpenMP was not found; building for one thread" in run.stderr
    assert not any("-fopenmp" in line for line in compilations(tree))


def test_a_broken_compiler_is_quoted_and_advice_is_one_sentence(tree: Path) -> None:
    run = build(tree, BROKEN)
    assert run.returncode != 0
    assert "the moon is full" in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    advice = run.stderr.strip().splitlines()[-1]
    assert "needs a C11 compiler" in advice
    assert "apt-get install gcc" in advice
