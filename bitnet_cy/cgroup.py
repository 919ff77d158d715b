"""The control groups (Linux cgroup v1 and v2) that confine this process, and what they grant."""

from __future__ import annotations

from pathlib import Path


def directories(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders that hold this process's limits for `controller` ("cpu" or "memory").

    Innermost first, up to each mount point, because every ancestor's limit binds too. Folders may
    lack the controller's files; the list is empty where there are no cgroups. `root` stands for
    the root of the file system, so that tests can give a tree of their own.
    """
    groups = _groups(root)
    found: list[Path] = []
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        fields, _, tail = line.partition(" - ")
        mount, kind = fields.split(), tail.split()
        if len(mount) < 5 or len(kind) < 3 or not kind[0].startswith("cgroup"):
            continue
        key = "" if kind[0] == "cgroup2" else controller
        if key not in groups or (key and key not in kind[2].split(",")):
            continue
        point = root / mount[4].lstrip("/")
        found += _upward(point, _relative(groups[key], mount[3]))
    return found


def read_text(path: Path) -> str:
    """The text of a small file of the kernel's, empty where there is none to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _groups(root: Path) -> dict[str, str]:
    """Controller name ("" for cgroup v2) -> path of this process's group."""
    groups: dict[str, str] = {}
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            groups[""] = path
        groups.update((name, path) for name in controllers.split(",") if name)
    return groups


def _relative(group: str, mounted: str) -> str:
    """The group's path below a mount point that shows the hierarchy from `mounted` down."""
    if mounted == "/":
        return group.strip("/")
    inside = group == mounted or group.startswith(mounted + "/")
    return group[len(mounted) :].strip("/") if inside else ""


def _upward(point: Path, relative: str) -> list[Path]:
    parts = [part for part in relative.split("/") if part not in ("", "..")]
    return [point.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]
