"""The cache that Hugging Face programs share: one folder a repository, with refs and snapshots.

Its layout is documented (huggingface_hub, "Understand caching"): refs/REVISION holds a commit,
snapshots/COMMIT/ the files of that commit as links into blobs/.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
_PREFIX = "models--"


def folder() -> Path:
    """Where the cache is: HF_HUB_CACHE, else hub/ in HF_HOME, else in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(named or os.path.join(hub, "hub"))))


def repository(repo: str) -> Path:
    """The folder of a repository, whether it is there or not."""
    return folder() / (_PREFIX + repo.replace("/", "--"))


def repositories() -> list[str]:
    """The names of all model repositories in the cache."""
    found = [path.name for path in _subfolders(folder()) if path.name.startswith(_PREFIX)]
    return [name.removeprefix(_PREFIX).replace("--", "/", 1) for name in found]


def snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of a revision's files, or None if there is none."""
    commit = revision if revision and COMMIT.fullmatch(revision) else _commit(repo, revision)
    found = repository(repo) / "snapshots" / commit if commit else None
    return found if found is not None and found.is_dir() else None


def snapshots(repo: str) -> list[tuple[str, Path]]:
    """Every revision that has files, a branch's or tag's name where one points to it."""
    refs = repository(repo) / "refs"
    names = {
        path.read_text(encoding="utf-8").strip(): path.relative_to(refs).as_posix()
        for path in sorted(refs.rglob("*"), reverse=True)
        if path.is_file()
    }
    folders = _subfolders(repository(repo) / "snapshots")
    return [(names.get(path.name, path.name), path) for path in folders]


def files(snapshot: Path) -> dict[str, int]:
    """Path inside the repository -> bytes, of the files of a snapshot that are there in full."""
    return {
        path.relative_to(snapshot).as_posix(): path.stat().st_size
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    }


def _commit(repo: str, revision: str | None) -> str | None:
    try:
        text = (repository(repo) / "refs" / (revision or "main")).read_text(encoding="utf-8")
    except OSError:
        return None
    return text.strip() if COMMIT.fullmatch(text.strip()) else None


def _subfolders(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (entry for entry in sorted(path.iterdir()) if entry.is_dir())
