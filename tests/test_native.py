"""Kernels for other CPUs, in C, against the scalar ones: emulated by SIMDe, or under QEMU."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from bitnet_cy.engine import kernels

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests" / "native" / "kernels.c"
ENGINE = ROOT / "bitnet_cy" / "engine" / "csrc"
FLAGS = ["-std=gnu11", "-O2", "-fno-math-errno", "-fno-strict-aliasing", "-ffp-contract=off"]
FLAGS += os.environ.get("CFLAGS", "").split()

# The CPUs QEMU plays, and the rows of the kernel table each can run.
ARM_CPUS = {
    "max": ["neon", "neondot", "neoni8mm"],
    "neoverse-n1": ["neon", "neondot"],
    "cortex-a57": ["neon"],
}


def needs(tool: str, package: str) -> str:
    """Path of a program, or skip."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed (Debian: {package})")
    return found


def compile_kernels(compiler: str, folder: Path, *flags: str) -> Path:
    program = folder / "kernels"
    command = [compiler, *FLAGS, f"-I{ENGINE}", *flags, str(SOURCE), "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    return program


def check(*command: str | Path, env: dict[str, str] | None = None) -> list[str]:
    """Run the program; the names of the kernels it found right."""
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stdout + run.stderr
    return [line.split(":")[0] for line in run.stdout.splitlines()]


@pytest.mark.parametrize("name", ["cc", "clang"])
def test_kernels_of_this_cpu_agree_in_c(name: str, tmp_path: Path) -> None:
    compiler = needs(name, {"cc": "gcc"}.get(name, name))
    target = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True).stdout
    if not target.startswith(platform.machine()):
        pytest.skip(f"this CPU lacks a compiler of its own: {name} builds for {target.strip()}")
    program = compile_kernels(compiler, tmp_path)
    assert check(program, *kernels.available()) == kernels.available()


def test_kernels_touch_no_other_memory_and_no_undefined_behaviour(tmp_path: Path) -> None:
    compiler = needs("gcc", "gcc")
    if not Path(_runtime(compiler, "libasan.so")).is_absolute():
        pytest.skip("the sanitizers are not installed (Debian: libgcc-dev)")
    target = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True).stdout
    if not target.startswith(platform.machine()):
        pytest.skip(f"this CPU lacks a compiler of its own: gcc builds for {target.strip()}")
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    program = compile_kernels(compiler, tmp_path, *sanitizers)
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    assert check(program, *kernels.available(), env=environment) == kernels.available()


def _runtime(compiler: str, name: str) -> str:
    """The path of one of the compiler's libraries, or its bare name if it has none."""
    command = [compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def test_vnni_kernels_agree_emulated(tmp_path: Path) -> None:
    if "avx2" not in kernels.available():
        pytest.skip("this CPU lacks AVX2, which the emulation is compiled for")
    if not Path("/usr/include/simde").exists():
        pytest.skip("SIMDe is not installed (Debian: libsimde-dev)")
    compiler = needs("gcc", "gcc")
    program = compile_kernels(compiler, tmp_path, "-DBN_EMULATED", "-mavx2", "-mfma", "-mf16c")
    names = ["avx2", "avxvnni", "avx512vnni"]
    assert check(program, *names) == names


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("qemu-aarch64-static", "qemu-user-static")
    compiler = needs("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    return compile_kernels(compiler, tmp_path_factory.mktemp("arm"), "-static")


@pytest.mark.parametrize("cpu", ARM_CPUS)
def test_arm_kernels_agree_under_qemu(cpu: str, arm_program: Path) -> None:
    found = check("qemu-aarch64-static", "-cpu", cpu, arm_program)
    assert found == ["scalar", *ARM_CPUS[cpu]]
