"""Fuzz one target, guided by coverage.

    python -m fuzz.run TARGET CORPUS [LIBFUZZER OPTION...]

CORPUS is a folder, made and filled with seeds where it is empty; what covers more is added. Stops
at the first finding and leaves its input beside the corpus. Needs the package atheris.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bitnet_cy", "jinja2"]):
    from fuzz import seeds, targets

_MEMORY = 6 << 30
_OPTIONS = {"timeout": 10, "rss_limit_mb": 1500, "max_len": 20000, "print_final_stats": 1}


def main(name: str, corpus: Path, *options: str) -> None:
    """Run libFuzzer; it ends the process."""
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number, seed in enumerate(seeds.SEEDS[name]()):
            (corpus / f"seed-{number}").write_bytes(seed)
    words = corpus.parent / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in seeds.words(name)))
    _limit_memory()
    folder = Path(tempfile.mkdtemp())
    arguments = [f"-{key}={value}" for key, value in _OPTIONS.items()]
    arguments += [f"-dict={words}", f"-artifact_prefix={corpus.parent / name}-", *options]

    def check(data: bytes) -> None:
        try:
            targets.check(name, data, folder)
        except BaseException:
            _leave(data, corpus.parent / f"{name}-finding")

    atheris.Setup([sys.argv[0], *arguments, str(corpus)], check)
    atheris.Fuzz()


def _leave(data: bytes, path: Path) -> None:
    """Keep the input that raised; libFuzzer keeps those that crash, hang or fill the memory."""
    path.write_bytes(data)
    traceback.print_exc()
    print(f"the input is in {path}", file=sys.stderr, flush=True)
    os._exit(77)


def _limit_memory() -> None:
    """An allocation of many gigabytes fails, and is a finding, even if it is never touched."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), *sys.argv[3:])
