"""inventory: the models on this machine, in the cache and in folders, and what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitnet_cy.errors import BitNetError
from bitnet_cy.formats import gguf
from bitnet_cy.formats.json_file import read_object
from bitnet_cy.hub import cache
from bitnet_cy.hub.reference import Reference


@dataclass(frozen=True)
class Found:
    """A GGUF file, or the folder of a checkpoint (`is_checkpoint`).

    name: what load and -m take. quantization: the type of most of the weights. architecture and
    quantization are None where the file does not say or cannot be read; `problem` says why.
    """

    name: str
    path: Path
    nbytes: int
    architecture: str | None
    quantization: str | None
    is_checkpoint: bool
    problem: str | None = None


def cached() -> list[Found]:
    """The models in the cache, by repository and revision."""
    return [
        found
        for repo in cache.repositories()
        for revision, folder in cache.snapshots(repo)
        for found in _in_snapshot(repo, revision, folder)
    ]


def on_disk(paths: Iterable[Path]) -> list[Found]:
    """The models that are, or lie in, these files and folders (not in folders inside them)."""
    return [found for path in paths for found in _at(path)]


def _at(path: Path) -> Iterator[Found]:
    if path.is_file():
        yield _gguf(str(path), path)
    elif path.is_dir():
        if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
            yield _checkpoint(str(path), path)
        yield from (_gguf(str(file), file) for file in sorted(path.glob("*.gguf")))


def _in_snapshot(repo: str, revision: str, folder: Path) -> Iterator[Found]:
    names = [name for name in cache.files(folder) if name.lower().endswith(".gguf")]
    pinned = None if revision == "main" else revision
    for name in names:
        reference = Reference(repo, pinned, name if len(names) > 1 else None)
        yield _gguf(str(reference), folder / name)
    if not names and (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        yield _checkpoint(str(Reference(repo, pinned)), folder)


def _gguf(name: str, path: Path) -> Found:
    nbytes = path.stat().st_size
    try:
        with gguf.read(path) as file:
            architecture = file.metadata.get("general.architecture")
            weights: Counter[str] = Counter()
            for tensor in file.tensors.values():
                if len(tensor.shape) == 2 and tensor.name.startswith("blk."):
                    weights[tensor.type_name] += tensor.nbytes
    except BitNetError as error:
        return Found(name, path, nbytes, None, None, False, str(error))
    most = weights.most_common(1)
    return Found(name, path, nbytes, _text(architecture), most[0][0] if most else None, False)


def _checkpoint(name: str, path: Path) -> Found:
    files = [file for file in path.iterdir() if file.is_file()]
    nbytes = sum(file.stat().st_size for file in files)
    try:
        config = read_object(path / "config.json")
    except BitNetError as error:
        return Found(name, path, nbytes, None, None, True, str(error))
    quantized = config.get("quantization_config")
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    kind = method or config.get("torch_dtype") or config.get("dtype")
    return Found(name, path, nbytes, _text(config.get("model_type")), _text(kind), True)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
