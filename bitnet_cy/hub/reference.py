"""Reference: what ORG/NAME[@REVISION][:FILE] names."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from bitnet_cy.errors import OptionError, UnsupportedError

SCHEME = "hf://"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9._/-]+))?(?::(?P<file>[^:]+))?"
)
# With one slash and no file of that name, what ends like this is a path with a mistake in it.
_FILE_ENDINGS = (
    ".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".model", ".txt",
    ".tiktoken",
)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A repository "org/name", and what of it: a revision and a file, or None for the default."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return self.repo + revision + (f":{self.file}" if self.file else "")


def names_repository(name: str) -> bool:
    """Whether a text could name a repository: its form decides, not the disk or the network."""
    if name.startswith(SCHEME):
        return True
    found = _NAME.fullmatch(name)
    return found is not None and not found["repo"].lower().endswith(_FILE_ENDINGS)


def parse(name: str, revision: str | None = None) -> Reference:
    """The Reference that a name stands for.

    revision: as if the name said @REVISION. Raises OptionError for a name of another form or two
    revisions, UnsupportedError for a file that is no GGUF file.
    """
    found = _NAME.fullmatch(name.removeprefix(SCHEME))
    if found is None:
        raise OptionError(
            f"{name!r:.200} names no repository; give ORG/NAME, with @REVISION and :FILE.gguf if "
            "needed"
        )
    reference = Reference(found["repo"], found["revision"], found["file"])
    if revision is not None:
        if reference.revision not in (None, revision):
            raise OptionError(
                f"{name} says revision {reference.revision}, the option {revision}; give one"
            )
        reference = replace(reference, revision=_checked(revision))
    _checked(reference.revision or "main")
    _check_file(reference)
    return reference


def _checked(revision: str) -> str:
    """A revision is a branch, a tag or a commit, and becomes part of a path in the cache."""
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", revision) or not _is_plain(revision):
        raise OptionError(f"revision is {revision!r:.100}; give a branch, a tag or a commit")
    return revision


def _check_file(reference: Reference) -> None:
    file = reference.file
    if file is None:
        return
    if not _is_plain(file) or "\\" in file:
        raise OptionError(f"{file!r:.200} is no path inside a repository; give one like a/b.gguf")
    if not file.lower().endswith(".gguf"):
        raise UnsupportedError(
            f"{file} is no GGUF file; give one that ends with .gguf, or the repository alone for a "
            "checkpoint in safetensors"
        )


def _is_plain(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts
