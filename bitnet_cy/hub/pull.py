"""pull: a repository's model into the cache. locate: the file that a path or a name stands for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bitnet_cy.errors import BitNetError, DownloadError, FormatError, OptionError, UnsupportedError
from bitnet_cy.hub import cache, choice, download
from bitnet_cy.hub.reference import SCHEME, Reference, names_repository, parse


@dataclass(frozen=True)
class Pulled:
    """A model in the cache.

    path: its GGUF file, or the folder of a checkpoint, which is to be converted. commit: the
    revision it has. nbytes: of all its files. from_network: whether the Hub was asked.
    """

    repo: str
    commit: str
    path: Path
    nbytes: int
    from_network: bool

    @property
    def is_checkpoint(self) -> bool:
        return self.path.is_dir()


def pull(name: str, revision: str | None = None) -> Pulled:
    """Download a repository's GGUF file, or its checkpoint in safetensors, unless it is there.

    name: "org/name", with "@revision" and ":file.gguf" if needed. revision: a branch, a tag or a
    commit. Where the Hub cannot be asked, what the cache holds of that revision is taken. Files
    that are pickles are never downloaded. Raises OptionError (a name of another form, or several
    models to choose from), DownloadError, UnsupportedError (nothing that runs), ResourceError.
    """
    reference = parse(name, revision)
    return _pull(reference, checkpoints=True)


def locate(path: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The GGUF file that `path` is, or that the repository of that name holds.

    What exists on disk comes first. A name with the prefix hf:// is always a repository, one whose
    folder exists here never is. Raises what pull raises, and FormatError for a mistaken path.
    """
    text = path if isinstance(path, str) else None
    if text is None or os.path.exists(text) or not names_repository(text):
        if revision is not None:
            raise OptionError(
                f"revision is {revision!r}, and {os.fspath(path)} is a path; only a repository has "
                "revisions"
            )
        return Path(path)
    if text.startswith(SCHEME):
        return _pull(parse(text, revision), checkpoints=False).path
    if Path(text).parent.is_dir():
        raise FormatError(
            f"no such file: {text}; the folder {Path(text).parent} is here, so that this is taken "
            f"for a path: for a repository of that name give {SCHEME}{text}"
        )
    try:
        return _pull(parse(text, revision), checkpoints=False).path
    except BitNetError as error:
        raise type(error)(f"there is no file {text} here, and as a repository: {error}") from None


def _pull(reference: Reference, checkpoints: bool) -> Pulled:
    try:
        found = download.listing(reference)
        return _taken(reference, found, checkpoints)
    except download.UnreachableError as reason:
        return _cached(reference, checkpoints, reason)


def _taken(reference: Reference, found: download.Listing, checkpoints: bool) -> Pulled:
    chosen = choice.gguf_file(reference, found.files)
    if chosen is not None:
        path = download.fetch(reference, found.commit, chosen)
        return Pulled(reference.repo, found.commit, path, path.stat().st_size, True)
    names = choice.checkpoint_files(reference, found.files)
    if not checkpoints:
        raise UnsupportedError(_convert_first(reference))
    paths = [download.fetch(reference, found.commit, name) for name in names]
    nbytes = sum(path.stat().st_size for path in paths)
    return Pulled(reference.repo, found.commit, paths[0].parent, nbytes, True)


def _convert_first(reference: Reference) -> str:
    return (
        f"{reference.repo} is a checkpoint in safetensors, which is converted once before it runs: "
        f"bitnet-cy pull {reference}, then bitnet-cy convert the folder it prints -o model.gguf"
    )


def _cached(reference: Reference, checkpoints: bool, reason: download.UnreachableError) -> Pulled:
    """What the cache holds of a repository that cannot be asked for."""
    folder = cache.snapshot(reference.repo, reference.revision)
    files = cache.files(folder) if folder is not None else {}
    if folder is None or not files or reference.file not in (None, *files):
        raise DownloadError(
            f"{reference} is not in the cache {cache.folder()}, and {reason}; {reason.remedy}, or "
            "give the path of a file"
        )
    chosen = choice.gguf_file(reference, files)
    if chosen is not None:
        return Pulled(reference.repo, folder.name, folder / chosen, files[chosen], False)
    names = choice.checkpoint_files(reference, files)
    if not checkpoints:
        raise UnsupportedError(_convert_first(reference))
    return Pulled(reference.repo, folder.name, folder, sum(files[n] for n in names), False)
