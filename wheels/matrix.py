"""Fail unless the wheels that cibuildwheel would make are those that wheels/README.md promises.

Usage: python wheels/matrix.py (needs cibuildwheel)
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "wheels" / "README.md"

# The rows of the README's table, as the ends of cibuildwheel's identifiers.
ENDS = {
    "Linux (glibc 2.28) x86-64": "manylinux_x86_64",
    "Linux (glibc 2.28) aarch64": "manylinux_aarch64",
    "Linux (musl 1.2) x86-64": "musllinux_x86_64",
    "Linux (musl 1.2) aarch64": "musllinux_aarch64",
    "macOS 15 arm64": "macosx_arm64",
    "macOS 15 x86-64": "macosx_x86_64",
    "Windows AMD64": "win_amd64",
    "Windows ARM64": "win_arm64",
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def promised() -> set[str]:
    """The identifiers that the README's table stands for: a filled cell is a wheel or its test."""
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    start = next(i for i, line in enumerate(lines) if "free-threaded" in line)
    tags = ["cp" + re.sub(r"\D", "", v) + "t" * ("free" in v) for v in cells(lines[start])[1:]]
    found = set()
    for line in lines[start + 2 : start + 2 + len(ENDS)]:
        platform, *wheels = cells(line)
        found |= {f"{t}-{ENDS[platform]}" for t, w in zip(tags, wheels, strict=True) if w}
    return found


def configured() -> set[str]:
    """What cibuildwheel lists for this project, on every platform."""
    found: set[str] = set()
    for platform in ("linux", "macos", "windows"):
        command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
        command += ["--platform", platform, "--archs", "all", str(ROOT)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        found.update(listed.stdout.split())
    return found


def main() -> int:
    readme, cibuildwheel = promised(), configured()
    for name in sorted(readme - cibuildwheel):
        print(f"README.md promises {name}, which cibuildwheel would not make", file=sys.stderr)
    for name in sorted(cibuildwheel - readme):
        print(f"cibuildwheel would make {name}, which README.md does not promise", file=sys.stderr)
    if readme == cibuildwheel:
        print(f"{len(readme)} wheels and tests of wheels, as README.md promises")
    return int(readme != cibuildwheel)


if __name__ == "__main__":
    raise SystemExit(main())
