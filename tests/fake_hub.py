"""A small Hugging Face Hub on this machine: the parts of its protocol that downloads use.

Model information with the files and their sizes; files by revision with X-Repo-Commit and ETag;
large ones redirected to another path with X-Linked-Etag (their SHA-256) and ranges; errors with
X-Error-Code. It notes every request, and can break a connection in the middle of a file.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = 1 << 16


@dataclass
class Repository:
    """Files by commit; revisions name commits. token: who may read it; gated: its terms."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    token: str | None = None
    gated: bool = False


@dataclass
class FakeHub:
    """Repositories by name, and what was asked for: "METHOD path", with the range if any.

    url: its address; cdn: that of large files. signed: paths that a token came with.

    break_after: a large file's connection ends after so many bytes, as often as `breaks` says; it
    stays open without a byte more until `stall` is set, where there is one.
    status: answer everything with this error. ranges: whether a part of a file can be asked for.
    """

    url: str = ""
    cdn: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    break_after: int = 0
    breaks: int = 0
    stall: threading.Event | None = None
    status: int | None = None
    ranges: bool = True

    def add(self, repo: str, files: dict[str, bytes], **settings: Any) -> str:
        """A repository whose branch main is one commit with these files; gives the commit."""
        commit = hashlib.sha1(repr([repo, sorted(files.items())]).encode()).hexdigest()
        found = self.repositories.setdefault(repo, Repository({}, {}, **settings))
        found.commits[commit] = files
        found.refs["main"] = commit
        return commit

    def asked(self, words: str) -> list[str]:
        """The requests that contain these words."""
        return [request for request in self.requests if words in request]


@contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(_Handler):
        fake = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.cdn = hub.url.replace("127.0.0.1", "localhost")  # to a client another host
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        hub, path = self.fake, self.path.split("?")[0]
        asked_range = self.headers.get("Range")
        hub.requests.append(f"{self.command} {path}" + (f" {asked_range}" if asked_range else ""))
        if "authorization" in self.headers:
            hub.signed.append(path)
        if hub.status is not None:
            self._send(hub.status, {}, b"")
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(\w+)/(.+)", path):
            self._send_large(hub.repositories[found[1]].commits[found[2]][found[3]])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._send_info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._send_file(found[1], found[2], found[3])
        else:
            self._send(404, {}, b"")

    def _refused(self, repo: str, revision: str) -> bool:
        """Sends the error that a repository or revision that is not there gives."""
        known = self.fake.repositories.get(repo)
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if known is None or known.token not in (None, token):
            self._send(401, {"X-Error-Code": "RepoNotFound"}, b"")
            return True
        if known.refs.get(revision, revision) not in known.commits:
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"")
            return True
        return False

    def _send_info(self, repo: str, revision: str) -> None:
        if self._refused(repo, revision):
            return
        known = self.fake.repositories[repo]
        commit = known.refs.get(revision, revision)
        siblings = [
            {"rfilename": name, "size": len(data)} for name, data in known.commits[commit].items()
        ]
        info = {"id": repo, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def _send_file(self, repo: str, revision: str, name: str) -> None:
        if self._refused(repo, revision):
            return
        known = self.fake.repositories[repo]
        commit = known.refs.get(revision, revision)
        data = known.commits[commit].get(name)
        headers = {"X-Repo-Commit": commit}
        if known.gated:
            self._send(403, headers | {"X-Error-Code": "GatedRepo"}, b"")
        elif data is None:
            self._send(404, headers | {"X-Error-Code": "EntryNotFound"}, b"")
        elif len(data) < LARGE:
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self._send(200, headers | {"ETag": f'"{blob}"'}, data)
        else:
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(data))
            headers["Location"] = f"{self.fake.cdn}/cdn/{repo}/{commit}/{name}"
            self._send(302, headers, b"")

    def _send_large(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.fake.ranges else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self._send(206 if start else 200, headers, data[start:])

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        hub = self.fake
        if len(body) >= LARGE // 2 and hub.breaks:
            hub.breaks -= 1
            body = body[: hub.break_after]
        self.wfile.write(body)
        if len(body) == hub.break_after and hub.stall is not None:
            self.wfile.flush()
            hub.stall.wait(60)
