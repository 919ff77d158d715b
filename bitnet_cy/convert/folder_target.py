"""Writing a Model as a Hugging Face folder with packed uint8 weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.convert import rope, tokenizer_files
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.progress import Progress
from bitnet_cy.convert.shape import to_config
from bitnet_cy.convert.space import require
from bitnet_cy.convert.tensors import HEAD, Slot, slots
from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, located
from bitnet_cy.errors import BitNetError, OptionError, ResourceError, UnsupportedError
from bitnet_cy.formats import floats, safetensors
from bitnet_cy.formats.safetensors import TensorSource
from bitnet_cy.formats.ternary import Ternary, pack_quarters

EMBEDDINGS = ("f16", "bf16")
_KEPT = ("F32", "F16", "BF16")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write(model: Model, folder: Path, embedding: str | None, progress: Progress) -> None:
    """Write `folder`, which must not exist: config.json, model.safetensors and the vocabulary.

    BitNet models get the convention of their published checkpoint (scales multiply), Llama models
    that of theirs (scales divide).
    """
    pairs = zip(slots(model.shape, model.tied), model.weights, strict=True)
    sources = [
        source
        for slot, weight in pairs
        for source in (
            _packed(model, slot, weight, progress)
            if isinstance(weight, TernaryWeight)
            else _float(model, slot, weight, embedding, progress)
        )
    ]
    total = sum(source.nbytes for source in sources)
    require(folder, total)
    progress.start("writing", total)
    try:
        folder.mkdir()
        safetensors.write(folder / "model.safetensors", sources, {"format": "pt"})
        _write_json(folder / "config.json", config(model, sources[0].dtype))
        tokenizer_files.write(model, folder)
    except OSError as error:
        raise ResourceError(f"cannot write {folder}: {error.strerror or error}") from error


def config(model: Model, dtype: str) -> dict[str, Any]:
    """The content of config.json; dtype: of the embedding."""
    values = to_config(model.shape, model.tied)
    if model.tokenizer is not None:
        values["bos_token_id"] = model.tokenizer.bos_id
        values["eos_token_id"] = model.tokenizer.eos_id
    values["dtype"] = values["torch_dtype"] = _DTYPES[dtype]
    values["quantization_config"] = {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear" if model.shape.family == "bitnet" else "bitlinear",
        "quantization_mode": "offline",
    }
    return values


def inverse(scale: np.float32) -> np.float32:
    """The number to divide by where `scale` would multiply: the shortest that gives it back."""
    nearest = np.float32(1) / scale
    short = floats.decode("BF16", floats.encode("BF16", nearest.reshape(1)), (1,))[0]
    neighbours = [np.nextafter(nearest, np.float32(end)) for end in (0, np.inf)]
    for candidate in (short, nearest, *neighbours):
        if np.float32(1) / candidate == scale:
            return np.float32(candidate)
    return nearest


def _packed(
    model: Model, slot: Slot, weight: TernaryWeight, progress: Progress
) -> Iterator[TensorSource]:
    rows, cols = weight.shape
    if rows % 4:
        raise UnsupportedError(f"tensor {weight.name} has {rows} rows; packing needs 4, 8, 12, …")
    scales: list[np.float32] = []

    def data() -> Iterator[np.ndarray]:
        try:
            found = weight.load()
            scales.append(_one_scale(found))
        except BitNetError as error:
            raise located(weight, error) from None
        trits = found.trits if slot.heads is None else rope.deinterleave(found.trits, slot.heads)
        yield pack_quarters(trits)
        model.forget()
        progress.advance(rows * cols // 4)

    def scale() -> np.ndarray:
        is_bitnet = model.shape.family == "bitnet"
        return np.array([scales[0] if is_bitnet else inverse(scales[0])], "<f4")

    name = _name(slot)
    yield TensorSource(name, (rows // 4, cols), "U8", data)
    yield TensorSource(f"{name}_scale", (1,), "F32", scale)  # called after the matrix was read


def _one_scale(found: Ternary) -> np.float32:
    """A matrix of zeros may have scale 0, where 1 means the same and can be divided by."""
    if found.scale.size != 1:
        raise UnsupportedError(
            f"has {np.unique(found.scale).size} scales; a packed checkpoint holds one per matrix"
        )
    return np.float32(found.scale.reshape(())) or np.float32(1)


def _float(
    model: Model, slot: Slot, weight: FloatWeight, embedding: str | None, progress: Progress
) -> Iterator[TensorSource]:
    kind = weight.stored if len(weight.shape) == 1 else embedding or weight.stored
    if kind not in _KEPT:
        raise OptionError(
            f"tensor {weight.name} has type {kind}, which a checkpoint cannot hold; choose "
            f"{' or '.join(EMBEDDINGS)} for the embedding"
        )

    def data() -> Iterator[np.ndarray]:
        try:
            for block in weight.blocks():
                piece = floats.encode(kind, block)
                yield piece
                progress.advance(piece.nbytes)
        except BitNetError as error:
            raise located(weight, error) from None
        model.forget()

    yield TensorSource(_name(slot), weight.shape, kind, data)


def _name(slot: Slot) -> str:
    return slot.aliases[0] if slot.name == HEAD else f"model.{slot.aliases[0]}"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
