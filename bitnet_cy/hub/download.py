"""The network: what a repository holds, and its files into the cache, through huggingface_hub.

huggingface_hub knows the endpoint (HF_ENDPOINT), the user's token, offline mode (HF_HUB_OFFLINE)
and the protocol, retries a broken connection from where it broke, and shows a progress bar. Not
every version of it continues a download that was ended, so that a part of a file is kept here, as
blobs/ETAG.incomplete, and continued by the next call; a complete one is checked against its
SHA-256 before it gets its name.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from bitnet_cy.errors import DownloadError, OptionError, ResourceError
from bitnet_cy.hub import cache
from bitnet_cy.hub.reference import Reference

_NETWORK_MODULES = {"httpx", "httpx2", "httpcore", "requests", "urllib3"}


class UnreachableError(Exception):
    """The Hub could not be asked, and why: no network, offline mode, a server that fails, or
    huggingface_hub is not installed. What the cache holds may do.
    """

    def __init__(self, reason: str, remedy: str = "try again when there is a network") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True)
class Listing:
    """A repository at one commit: its files, path -> bytes (None where it is not told)."""

    commit: str
    files: dict[str, int | None]


def listing(reference: Reference) -> Listing:
    """Ask the Hub for a repository. Raises UnreachableError, or DownloadError for its refusal."""
    hub = _huggingface_hub()
    with _explained(reference):
        info = hub.HfApi(library_name="bitnet_cy").model_info(
            reference.repo, revision=reference.revision, files_metadata=True
        )
    files = {entry.rfilename: entry.size for entry in info.siblings or []}
    if not cache.COMMIT.fullmatch(info.sha or ""):
        raise DownloadError(f"{endpoint()} tells no commit of {reference.repo}; is it a Hub?")
    return Listing(info.sha, files)


def fetch(reference: Reference, commit: str, name: str) -> Path:
    """The path in the cache of one file at a commit, downloaded if it is not there.

    Raises UnreachableError, DownloadError, and ResourceError if the disk is too full.
    """
    folder = cache.repository(reference.repo)
    if not (folder / "snapshots" / commit / name).exists():
        _download(reference, commit, name, folder)
    elif cache.snapshot(reference.repo, reference.revision) == folder / "snapshots" / commit:
        return folder / "snapshots" / commit / name
    hub = _huggingface_hub()
    with _explained(reference):  # links the blob into the snapshot, and notes the branch's commit
        path = hub.hf_hub_download(
            reference.repo, name, revision=reference.revision, cache_dir=str(cache.folder())
        )
    return Path(path)


def endpoint() -> str:
    """The Hub's address, without the scheme where it is the usual one."""
    from huggingface_hub import constants

    address: str = constants.ENDPOINT
    return address.removeprefix("https://")


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise UnreachableError(
            "the package huggingface_hub, which downloads, is not installed",
            "install it: pip install 'bitnet_cy[hub]'",
        ) from None
    return huggingface_hub


def _download(reference: Reference, commit: str, name: str, folder: Path) -> None:
    """Bring one file's content into blobs/, continuing what an earlier try has left."""
    hub = _huggingface_hub()
    utils = import_module("huggingface_hub.utils")
    with _explained(reference):
        url = hub.hf_hub_url(reference.repo, name, revision=commit)
        about = hub.get_hf_file_metadata(url)
        etag = about.etag
        if not etag or not re.fullmatch(r"[\w.-]+", etag):
            raise DownloadError(f"{endpoint()} gives {name} no ETag; is it a Hub?")
        headers = utils.build_hf_headers(library_name="bitnet_cy")
        if urlsplit(about.location).netloc != urlsplit(url).netloc:
            headers.pop("authorization", None)  # another host needs no token of the Hub's
        blob = folder / "blobs" / etag
        lock = cache.folder() / ".locks" / folder.name / f"{etag}.lock"
        for path in (blob, lock):
            path.parent.mkdir(parents=True, exist_ok=True)
        with utils.WeakFileLock(lock):
            if not blob.exists():
                _download_blob(blob, about, headers, name)


def _download_blob(blob: Path, about: Any, headers: dict[str, Any], name: str) -> None:
    """Get what is missing of a blob, again after a connection that broke but brought something."""
    partial = blob.with_name(blob.name + ".incomplete")
    while True:
        have = _size(partial)
        if about.size is not None:
            if have > about.size:
                partial.unlink()
                have = 0
            _require_space(partial, about.size - have, name)
        try:
            _get_rest(partial, have, about, headers, name)
            break
        except Exception as error:
            broke = _is_network(error) and _size(partial) > have
            no_ranges = have > 0 and about.size is not None and _size(partial) > about.size
            if not (broke or no_ranges):
                raise
    _check(partial, blob.name, name)
    os.replace(partial, blob)


def _get_rest(partial: Path, have: int, about: Any, headers: dict[str, Any], name: str) -> None:
    get = import_module("huggingface_hub.file_download").http_get
    with partial.open("ab") as file:
        get(
            about.location,
            file,
            resume_size=have,
            headers=headers,
            expected_size=about.size,
            displayed_filename=name,
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check(partial: Path, etag: str, name: str) -> None:
    """The ETag of a large file is its SHA-256; a file that has another one is thrown away."""
    if not re.fullmatch(r"[0-9a-f]{64}", etag):
        return
    digest = hashlib.sha256()
    with partial.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != etag:
        partial.unlink()
        raise DownloadError(f"{name} arrived damaged: its SHA-256 is not the Hub's; try again")


def _require_space(partial: Path, nbytes: int, name: str) -> None:
    free = shutil.disk_usage(partial.parent).free
    if nbytes > free:
        raise ResourceError(
            f"{name} takes {nbytes:,} more bytes, and the cache {cache.folder()} has {free:,} "
            "left; make room, or set HF_HOME to a folder on another disk"
        )


@contextmanager
def _explained(reference: Reference) -> Iterator[None]:
    """What huggingface_hub and the HTTP library raise, as one sentence of ours."""
    from huggingface_hub import errors

    repo, where = reference.repo, endpoint()
    try:
        yield
    except errors.GatedRepoError:
        raise DownloadError(
            f"{repo} is gated: accept its terms at {where}/{repo}, then sign in with `hf auth "
            "login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DownloadError(
            f"{where} shows no repository {repo}; check the name, and sign in with `hf auth login` "
            "or set HF_TOKEN if it is private"
        ) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(
            f"{repo} has no revision {reference.revision or 'main'}; give a branch, a tag or a "
            "commit that it has"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise UnreachableError(f"{where} cannot be reached") from None
    except errors.EntryNotFoundError:
        raise DownloadError(f"{repo} has lost a file since it was listed; try again") from None
    except errors.OfflineModeIsEnabled:
        raise UnreachableError("offline mode is on", "unset HF_HUB_OFFLINE and try again") from None
    except errors.HFValidationError as error:
        raise OptionError(f"{repo} is no name of a repository: {error}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (408, 429) or status >= 500:
            raise UnreachableError(f"{where} answered {status}", "try again later") from None
        raise DownloadError(
            f"{where} answered {status} for {repo}; check your token (`hf auth whoami`)"
        ) from None
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if _is_network(error):
            raise UnreachableError(f"{where} cannot be reached ({reason:.100})") from None
        if isinstance(error, OSError) and error.errno is not None:
            raise ResourceError(f"cannot write to the cache {cache.folder()}: {reason}") from None
        if isinstance(error, OSError):
            raise DownloadError(f"{repo} did not arrive whole ({reason:.200}); try again") from None
        raise


def _is_network(error: Exception) -> bool:
    """Whether an error is one of the HTTP library, of which each huggingface_hub has another."""
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return bool(modules & _NETWORK_MODULES) or isinstance(error, (ConnectionError, TimeoutError))
