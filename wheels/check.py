"""Check what a wheel or an sdist holds against git and against what it must not hold.

Usage: python wheels/check.py FILE... (wheels and sdists; needs git, and readelf for Linux wheels)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = "bitnet_cy/models/tales.gguf"
LARGEST = 10_000_000  # bytes

# In git for those who work on the project, of no use to those who build it.
NOT_IN_SDIST = re.compile(r"\.github/|\.ci/|\.gitignore$|\.pre-commit-config\.yaml$")
MADE_BY_SDIST = re.compile(r"(PKG-INFO|setup\.cfg|bitnet_cy\.egg-info/[\w.-]+)$")
NOT_IN_WHEEL = re.compile(r"\.(pyx|pxd|pxi|h|c|cpp)$")
MADE_BY_WHEEL = re.compile(r"bitnet_cy-[^/]+\.dist-info/|bitnet_cy\.libs/|bitnet_cy/\.dylibs/")
EXTENSION = re.compile(r"(bitnet_cy/engine/\w+)\.[\w.-]*(so|pyd)$")

# What every manylinux system has; a copy of libgomp comes in the wheel.
LIBRARIES = re.compile(
    r"lib(c|m|pthread|dl|rt)\.so\.\d+$|ld-linux[\w-]*\.so\.\d$|libc\.musl-\w+\.so\.1$"
    r"|libgomp-[0-9a-f]+\.so\.1(\.0\.0)?$"
)
BUILD_PATH = re.compile(rb"/(?:home|root|tmp|work|build|project|Users|private|__w)/[\w./+-]{3,}")


def in_git(folder: str = ".") -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", folder]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def differences(found: set[str], expected: set[str]) -> Iterator[str]:
    yield from (f"lacks {name}" for name in sorted(expected - found))
    yield from (f"should not hold {name}" for name in sorted(found - expected))


def check_sdist(path: Path) -> Iterator[str]:
    with tarfile.open(path) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    expected = {name for name in in_git() if not NOT_IN_SDIST.match(name)}
    yield from differences({n for n in names if not MADE_BY_SDIST.match(n)}, expected)


def needed_libraries(path: Path) -> list[str]:
    command = ["readelf", "--dynamic", "--wide", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def check_binary(name: str, data: bytes, folder: Path) -> Iterator[str]:
    for found in sorted(set(BUILD_PATH.findall(data))):
        yield f"{name} names a folder of the machine that built it: {found.decode()}"
    if b".debug_info" in data:
        yield f"{name} holds debug information"
    if data.startswith(b"\x7fELF"):
        copy = folder / Path(name).name
        copy.write_bytes(data)
        for library in needed_libraries(copy):
            if not LIBRARIES.match(library):
                yield f"{name} needs {library}, which not every system has"


def check_wheel(path: Path, folder: Path) -> Iterator[str]:
    size = path.stat().st_size
    if size > LARGEST:
        yield f"has {size} bytes, more than {LARGEST}"
    if "-linux_" in path.name:
        yield "has a tag that no index takes: repair it with auditwheel"
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    names = {name for name in contents if not name.endswith("/")}
    in_package = in_git("bitnet_cy")
    expected = {name for name in in_package if not NOT_IN_WHEEL.search(name)}
    expected |= {f"{name[:-4]} (compiled)" for name in in_package if name.endswith(".pyx")}
    ours = {EXTENSION.sub(r"\1 (compiled)", n) for n in names if not MADE_BY_WHEEL.match(n)}
    yield from differences(ours, expected | {MODEL})
    for name in sorted(names):
        if re.search(r"\.(so|pyd|dylib|dll)(\.|$)", name):
            yield from check_binary(name, contents[name], folder)


def main(arguments: list[str]) -> int:
    wrong = 0
    for path in map(Path, arguments):
        with tempfile.TemporaryDirectory() as folder:
            is_wheel = path.suffix == ".whl"
            found = list(check_wheel(path, Path(folder)) if is_wheel else check_sdist(path))
        for problem in found:
            print(f"{path.name} {problem}", file=sys.stderr)
        if not found:
            print(f"{path.name}: {path.stat().st_size} bytes, as it should be")
        wrong += len(found)
    return 1 if wrong or not arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
