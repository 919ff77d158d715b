"""A GGUF file as a Model, with the flaws of published files repaired."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bitnet_cy.convert import q4_0, vocabulary
from bitnet_cy.convert.checkpoint_source import from_floats
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.shape import from_metadata
from bitnet_cy.convert.tensors import EMBEDDING, HEAD, Slot, slots
from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, Weight, matrix
from bitnet_cy.errors import FormatError, OptionError, UnsupportedError
from bitnet_cy.formats import floats, gguf, ternary
from bitnet_cy.formats.activation import activation_dtype
from bitnet_cy.formats.gguf import GGUFFile, TensorInfo
from bitnet_cy.formats.ternary import Ternary

Kernels = Mapping[tuple[int, int], tuple[int, int, int]]
_REWRITTEN = ("general.architecture", "general.file_type", "general.alignment")


def read(
    path: str | os.PathLike[str],
    *,
    arrangement: str = "128",
    kernels: Kernels | None = None,
    from_masters: bool = False,
    pre: str | None = None,
) -> Model:
    """Open a file; its tensors are decoded when they are loaded.

    arrangement: of I2_S tensors, "128", "64" or "4row". kernels: TL1 and TL2 parameters (BM, BK,
    bm) by matrix shape (rows, cols). from_masters: dense matrices are masters of a ternary model.
    pre: the splitting rule, if the file's is missing or wrong.
    """
    file = gguf.read(path)
    try:
        return _read(file, _Tensors(file, arrangement, kernels or {}, from_masters), pre)
    except BaseException:
        file.close()
        raise


def _read(file: GGUFFile, reader: _Tensors, pre: str | None) -> Model:
    shape = from_metadata(file.metadata, file.path.stem)
    embedding = file.tensors.get(EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise FormatError(f"{file.path.name} has no embedding matrix {EMBEDDING}; it is no model")
    shape = replace(
        shape,
        vocab_size=embedding.shape[0],
        input_norms="blk.0.attn_q_norm_in.weight" in file.tensors,
        activation_dtype=shape.activation_dtype or _dtype_of_types(file),
    )
    tied = HEAD not in file.tensors
    weights = tuple(reader.weight(slot) for slot in slots(shape, tied))
    reader.refuse_rest(shape.family)
    prefix = f"{file.metadata['general.architecture']}."
    keys: dict[str, Any] = {
        key: file.metadata.typed(key)
        for key in file.metadata
        if key not in _REWRITTEN and not key.startswith((prefix, "split."))
    }
    found = vocabulary.from_file(file, shape.family, pre)
    return Model(
        path=file.path,
        shape=shape,
        tied=tied,
        weights=weights,
        keys=keys | dict(found.keys) if found else keys,
        tokenizer=found.tokenizer if found else None,
        forget=file.forget,
        close=file.close,
        notes=list(found.notes) if found else [],
    )


def _dtype_of_types(file: GGUFFile) -> str | None:
    """To be named in a file of other types, which would not tell."""
    found = activation_dtype(info.type_name for info in file.tensors.values())
    return found if found == "float32" else None


class _Tensors:
    def __init__(
        self, file: GGUFFile, arrangement: str, kernels: Kernels, from_masters: bool
    ) -> None:
        self._file, self._arrangement, self._kernels = file, arrangement, kernels
        self._from_masters = from_masters
        self._left = dict(file.tensors)

    def weight(self, slot: Slot) -> Weight:
        info = self._take(slot)
        if not slot.is_ternary:
            return FloatWeight(
                slot.name, slot.name, slot.shape, info.type_name, lambda: self._file.raw(slot.name)
            )
        rows, cols = slot.shape
        factor = self._factor(slot.name)
        if info.type_name in floats.NAMES:
            load = partial(self._from_floats, info, factor)
        elif info.type_name in ternary.NAMES:
            load = partial(self._decode, info, self._layout(info), factor)
        else:
            known = f"bitnet_cy converts {', '.join((*ternary.NAMES, *floats.NAMES))}"
            raise UnsupportedError(f"{info.explain()}: {ternary.UNREAD.get(info.type_name, known)}")
        return TernaryWeight(slot.name, slot.name, (rows, cols), info.type_name, info.nbytes, load)

    def refuse_rest(self, family: str) -> None:
        for info in self._left.values():
            raise UnsupportedError(
                f"{self._file.path.name}: {info.explain()}, which {family} models lack; leaving it "
                "out would change the model"
            )

    def _take(self, slot: Slot) -> TensorInfo:
        info = self._left.pop(slot.name, None)
        if info is None:
            raise FormatError(f"{self._file.path.name} has no tensor {slot.name}")
        if info.shape != slot.shape:
            raise FormatError(
                f"tensor {slot.name}: shape {list(slot.shape)} follows from the metadata, the "
                f"file has {list(info.shape)}"
            )
        return info

    def _factor(self, name: str) -> np.float32:
        """ik_llama.cpp's conversions keep the scale of a matrix in a tensor of its own."""
        info = self._left.pop(f"{name.removesuffix('weight')}scale", None)
        if info is None:
            return np.float32(1)
        values = self._file.array(info.name).reshape(-1)
        if values.size != 1 or not np.isfinite(values[0]) or values[0] <= 0:
            raise FormatError(f"tensor {info.name} is not one positive number; it is damaged")
        return np.float32(values[0])

    def _layout(self, info: TensorInfo) -> dict[str, Any]:
        """What the file does not say about a layout."""
        if info.type_name == "I2_S":
            return {"arrangement": self._arrangement}
        if info.type_name in ("TL1", "TL2"):
            if info.shape not in self._kernels:
                raise OptionError(
                    f"{info.explain()}: the kernel parameters of this shape are not in the file; "
                    "give the kernel_config.ini it was made with"
                )
            return {"kernel": self._kernels[info.shape]}  # type: ignore[index]
        return {}

    def _decode(self, info: TensorInfo, layout: dict[str, Any], factor: np.float32) -> Ternary:
        rows, cols = info.shape
        raw = self._file.raw(info.name)
        found = ternary.decode(info.type_name, raw, rows, cols, grouped=True, **layout)
        return found if factor == 1 else Ternary(found.trits, found.scale * factor)

    def _from_floats(self, info: TensorInfo, factor: np.float32) -> Ternary:
        rows, cols = info.shape
        found = None
        if info.type_name == "Q4_0":
            found = q4_0.read(self._file.raw(info.name), rows, cols)
        if found is None:
            weights = matrix(lambda: self._file.raw(info.name), info.type_name, (rows, cols))
            found = from_floats(weights, self._from_masters)
        return Ternary(found.trits, found.scale * factor)
