"""Convert, and tell how long it took and how much memory it needed at most.

    python tools/measure_convert.py SRC -o OUT.gguf --no-vocabulary --force

The arguments are those of `bitnet-cy convert`. The peak counts all resident pages of the process,
those of the mapped files among them. Beside it stands what reading and writing as many bytes takes
here, without doing anything with them: no conversion can be faster.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

CHUNK = 1 << 24


def plain_copy(source: Path, target: Path) -> float:
    """Seconds to read a file or folder, and to write a file of the size of `target`."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    start = time.perf_counter()
    piece = b""
    for path in files:
        with path.open("rb", buffering=0) as file:
            while found := file.read(CHUNK):
                piece = found
    left = _size(target)
    scratch = target.with_name(f".{target.name}.scratch")
    with scratch.open("wb", buffering=0) as file:
        while left > 0:
            left -= file.write(piece[:left])
    seconds = time.perf_counter() - start
    scratch.unlink()
    return seconds


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size


def main(arguments: list[str]) -> int:
    """The command line."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "bitnet_cy", "convert", *arguments])
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{seconds:.1f} s, processor {used.ru_utime + used.ru_stime:.1f} s, peak "
        f"{used.ru_maxrss / 1024:.0f} MiB"
    )
    if done.returncode == 0:
        out = next(
            value for name, value in pairwise(arguments)
            if name in ("-o", "--out")
        )  # fmt: skip
        print(f"reading and writing alone: {plain_copy(Path(arguments[0]), Path(out)):.1f} s")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
