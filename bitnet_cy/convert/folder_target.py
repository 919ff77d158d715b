"""Writing a Model as a Hugging Face folder with packed uint8 weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.convert import rope, tokenizer_files
from bitnet_cy.convert.encoding import float_jobs
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.progress import Progress
from bitnet_cy.convert.shape import to_config
from bitnet_cy.convert.space import require
from bitnet_cy.convert.tensors import HEAD, Slot, slots
from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, located
from bitnet_cy.convert.workers import Job, Workers
from bitnet_cy.errors import BitNetError, OptionError, ResourceError, UnsupportedError
from bitnet_cy.formats import floats, safetensors
from bitnet_cy.formats.checkpoint import INDEX
from bitnet_cy.formats.safetensors import TensorSource
from bitnet_cy.formats.ternary import Ternary, pack_quarters

EMBEDDINGS = ("f16", "bf16")
_KEPT = ("F32", "F16", "BF16")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class _Entry:
    """A tensor to be written, the jobs that make its bytes, and the tensors that come after."""

    source: TensorSource
    jobs: list[Job[np.ndarray]]
    more: tuple[TensorSource, ...] = ()


def write(
    model: Model,
    folder: Path,
    embedding: str | None,
    shard_size: int,
    team: Workers,
    progress: Progress,
) -> None:
    """Write `folder`, which must not exist: config.json, the tensors and the vocabulary.

    The tensors are in model.safetensors, or, if they take more than `shard_size` bytes, in files
    of at most that size with an index. team: makes the bytes while those before are written.
    BitNet models get the convention of their published checkpoint (scales multiply), Llama models
    that of theirs (scales divide).
    """
    if model.shape.activation_dtype == "float32":
        raise UnsupportedError(
            "programs that open packed checkpoints quantize activations, which this model does "
            "not bear: write a GGUF file (i2_s; tq2_0 keeps several scales)"
        )
    pairs = zip(slots(model.shape, model.tied), model.weights, strict=True)
    entries = [
        _packed(model, slot, weight)
        if isinstance(weight, TernaryWeight)
        else _float(slot, weight, embedding)
        for slot, weight in pairs
    ]
    made = team.in_order(chain.from_iterable(entry.jobs for entry in entries))

    def data(count: int) -> Iterator[np.ndarray]:
        for piece in islice(made, count):
            yield piece
            progress.advance(piece.nbytes)
            model.forget()

    sources = [
        source
        for entry in entries
        for source in (replace(entry.source, data=partial(data, len(entry.jobs))), *entry.more)
    ]
    total = sum(source.nbytes for source in sources)
    require(folder, total)
    progress.start("writing", total)
    try:
        folder.mkdir()
        with closing(made):
            write_tensors(folder, sources, shard_size)
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
    if model.shape.input_norms:
        values["quantization_config"] |= {
            "use_rms_norm": True,
            "rms_norm_eps": model.shape.norm_eps,
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


def write_tensors(folder: Path, sources: list[TensorSource], shard_size: int) -> None:
    """Write model.safetensors, or files of at most `shard_size` bytes and their index."""
    shards: list[list[TensorSource]] = [[]]
    size = 0
    for source in sources:
        size += source.nbytes
        if size > shard_size and shards[-1]:
            shards.append([])
            size = source.nbytes
        shards[-1].append(source)
    if len(shards) == 1:
        safetensors.write(folder / "model.safetensors", sources, {"format": "pt"})
        return
    owners: dict[str, str] = {}
    for number, part in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors.write(folder / name, part, {"format": "pt"})
        owners |= {source.name: name for source in part}
    total = sum(source.nbytes for source in sources)
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": owners})


def _packed(model: Model, slot: Slot, weight: TernaryWeight) -> _Entry:
    rows, cols = weight.shape
    if rows % 4:
        raise UnsupportedError(f"tensor {weight.name} has {rows} rows; packing needs 4, 8, 12, …")
    scales: list[np.float32] = []

    def job() -> np.ndarray:
        try:
            found = weight.load()
            scales.append(_one_scale(found))
        except BitNetError as error:
            raise located(weight, error) from None
        trits = found.trits if slot.heads is None else rope.deinterleave(found.trits, slot.heads)
        return pack_quarters(trits)

    def scale() -> np.ndarray:
        is_bitnet = model.shape.family == "bitnet"
        return np.array([scales[0] if is_bitnet else inverse(scales[0])], "<f4")

    name = _name(slot)
    return _Entry(
        TensorSource(name, (rows // 4, cols), "U8", None),
        [job],
        (TensorSource(f"{name}_scale", (1,), "F32", scale),),  # called after the matrix was made
    )


def _one_scale(found: Ternary) -> np.float32:
    """A matrix of zeros may have scale 0, where 1 means the same and can be divided by."""
    if found.scale.size != 1:
        raise UnsupportedError(
            f"has {np.unique(found.scale).size} scales; a packed checkpoint holds one per matrix"
        )
    return np.float32(found.scale.reshape(())) or np.float32(1)


def _float(slot: Slot, weight: FloatWeight, embedding: str | None) -> _Entry:
    weight = replace(weight, offset=weight.offset - slot.offset)
    kind = weight.stored if len(weight.shape) == 1 else embedding or weight.stored
    if kind not in _KEPT:
        raise OptionError(
            f"tensor {weight.name} has type {kind}, which a checkpoint cannot hold; choose "
            f"{' or '.join(EMBEDDINGS)} for the embedding"
        )
    return _Entry(TensorSource(_name(slot), weight.shape, kind, None), float_jobs(weight, kind))


def _name(slot: Slot) -> str:
    return slot.aliases[0] if slot.name == HEAD else f"model.{slot.aliases[0]}"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
