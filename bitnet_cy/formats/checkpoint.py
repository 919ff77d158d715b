"""A Hugging Face folder: config.json and the tensors of one or more safetensors files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import safetensors
from bitnet_cy.formats.json_file import read_object
from bitnet_cy.formats.safetensors import SafetensorsFile, TensorInfo

INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


class Checkpoint:
    """The tensors of all files together: `path`, `config`, `tensors`. A context manager."""

    def __init__(self, path: Path, config: dict[str, Any], files: list[SafetensorsFile]) -> None:
        self.path = path
        self.config = config
        self._files = files
        self._owner: dict[str, SafetensorsFile] = {}
        for file in files:
            for name in file.tensors:
                if name in self._owner:
                    first = self._owner[name].path.name
                    raise FormatError(f"tensor {name} is in both {first} and {file.path.name}")
                self._owner[name] = file
        self.tensors: dict[str, TensorInfo] = {
            name: file.tensors[name] for name, file in self._owner.items()
        }

    def raw(self, name: str) -> np.ndarray:
        """The stored bytes of a tensor, uint8, as a read-only view."""
        return self._file(name).raw(name)

    def array(self, name: str) -> np.ndarray:
        """A tensor in its shape: floats as float32 (a copy), integers as they are stored."""
        return self._file(name).array(name)

    def forget(self) -> None:
        """Give back the memory of pages that were read; they are read again when needed."""
        for file in self._files:
            file.forget()

    def close(self) -> None:
        """Drop all mappings. Views already given out stay valid."""
        for file in self._files:
            file.close()

    def _file(self, name: str) -> SafetensorsFile:
        if name not in self._owner:
            raise FormatError(f"{self.path} has no tensor {name}; is the download complete?")
        return self._owner[name]

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a folder.

    Raises FormatError for missing or damaged files and UnsupportedError if the weights are
    pickled, since loading a pickle can run any program.
    """
    path = Path(path)
    if not path.is_dir():
        raise FormatError(f"no such folder: {path}")
    config = read_object(path / "config.json")
    return Checkpoint(path, config, [safetensors.read(file) for file in _weight_files(path)])


def _weight_files(path: Path) -> list[Path]:
    if (path / INDEX).exists():
        return _indexed_files(path)
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if (path / "model.safetensors") in found:
        return [path / "model.safetensors"]
    if found:
        raise FormatError(f"{path} has {len(found)} safetensors files and no {INDEX}; download it")
    if any(file.suffix in PICKLED for file in path.iterdir()):
        raise UnsupportedError(
            f"{path} holds pickled weights, which can run any program when loaded; bitnet_cy reads "
            "safetensors: convert them with the transformers package"
        )
    raise FormatError(f"{path} holds no weights; a file model.safetensors is expected")


def _indexed_files(path: Path) -> list[Path]:
    """The files an index names, all of which must be there."""
    weight_map = read_object(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{INDEX} has no weight_map; it is damaged")
    names = dict.fromkeys(weight_map.values())
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise FormatError(f"{INDEX} names the file {str(name)[:80]!r}, which is no plain name")
        if not (path / name).is_file():
            raise FormatError(f"{name} is missing from {path}; download it again")
    return [path / name for name in names]
