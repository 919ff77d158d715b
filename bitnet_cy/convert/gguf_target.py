"""Writing a Model as a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.convert.encoding import float_jobs, ternary_bytes
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.progress import Progress
from bitnet_cy.convert.shape import to_metadata
from bitnet_cy.convert.space import require
from bitnet_cy.convert.weights import TernaryWeight, Weight
from bitnet_cy.convert.workers import Job, Workers
from bitnet_cy.errors import UnsupportedError
from bitnet_cy.formats import gguf, types
from bitnet_cy.formats.gguf import TensorSource

# Value of general.file_type for each type of the ternary matrices.
FILE_TYPES = {
    "I2_S": 40, "I1_6_S": 1600, "TQ1_0": 36, "TQ2_0": 37, "Q2_0": 41, "F16": 1, "BF16": 32,
}  # fmt: skip
_NOT_OF_LLAMA_CPP = ("I2_S", "I1_6_S")
EMBEDDINGS = ("F16", "BF16", "Q8_0", "Q6_K")


def write(
    model: Model,
    path: Path,
    type_name: str,
    embedding: str | None,
    team: Workers,
    progress: Progress,
) -> None:
    """Write `path`, with matrices of trits as `type_name`.

    embedding: the type of embedding and head, None to keep what they have. team: makes the bytes
    while those before are written.
    """
    kinds = [_kind(weight, type_name, embedding) for weight in model.weights]
    jobs = [_jobs(weight, kind) for weight, kind in zip(model.weights, kinds, strict=True)]
    made = team.in_order(chain.from_iterable(jobs))

    def data(count: int) -> Iterator[np.ndarray]:
        for piece in islice(made, count):
            yield piece
            progress.advance(piece.nbytes)
            model.forget()

    sources = [
        TensorSource(weight.name, weight.shape, kind, partial(data, len(parts)))
        for weight, kind, parts in zip(model.weights, kinds, jobs, strict=True)
    ]
    total = sum(source.nbytes for source in sources)
    require(path, total)
    progress.start("writing", total)
    with closing(made):
        gguf.write(path, metadata(model, type_name), sources)


def metadata(model: Model, type_name: str) -> dict[str, Any]:
    """The keys of the file.

    bitnet.cpp, which reads I2_S, tells ReLU² models from SiLU models by their architecture's
    name; llama.cpp, which reads the other types, knows only one name for both.
    """
    architecture = model.shape.family
    if type_name == "I2_S" and architecture == "bitnet" and model.shape.activation == "relu2":
        architecture = "bitnet-b1.58"
    keys: dict[str, Any] = {
        "general.architecture": architecture,
        "general.name": model.shape.name,
        "general.file_type": FILE_TYPES[type_name],
        "general.quantization_version": 2,
    }
    shape = model.shape
    if shape.activation_dtype is None and type_name == "Q2_0":  # whose models are mostly not so
        shape = replace(shape, activation_dtype="int8")
    return keys | to_metadata(shape, architecture) | model.keys


def notes(model: Model, type_name: str) -> list[str]:
    """What llama.cpp makes of the file, where it is not what the model computes."""
    shape = model.shape
    found: list[str] = []
    if type_name in _NOT_OF_LLAMA_CPP:
        return found
    if shape.family == "bitnet" and shape.activation != "silu":
        found.append(
            f"llama.cpp runs every bitnet model with SiLU; this one was trained with "
            f"{shape.activation}, so there its text is wrong, while bitnet_cy runs it rightly"
        )
    if shape.family == "gemma3" and shape.attention_scale:
        found.append(
            "llama.cpp divides the attention scores of every gemma3 model by the root of head_dim "
            f"{shape.head_dim}; this one has another factor, so there its logits are off, while "
            "bitnet_cy runs it rightly"
        )
    if shape.input_norms:
        found.append(
            "llama.cpp knows no norms for the input of each matrix and does not load this file"
        )
    return found


def _kind(weight: Weight, type_name: str, embedding: str | None) -> str:
    """The type to store a weight in; UnsupportedError if it cannot hold the rows."""
    if isinstance(weight, TernaryWeight):
        kind = type_name
    else:
        kind = "F32" if len(weight.shape) == 1 else embedding or weight.stored
    if types.by_name(kind).nbytes(weight.shape) is None:
        raise UnsupportedError(
            f"tensor {weight.name} has rows of {weight.shape[-1]} weights, which {kind} cannot "
            "hold (it packs whole blocks of a row); choose i2_s or f16"
        )
    return kind


def _jobs(weight: Weight, kind: str) -> list[Job[np.ndarray]]:
    if isinstance(weight, TernaryWeight):
        return [partial(ternary_bytes, weight, kind)]
    return float_jobs(weight, kind)
