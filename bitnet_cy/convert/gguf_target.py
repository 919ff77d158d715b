"""Writing a Model as a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.convert.model import Model
from bitnet_cy.convert.progress import Progress
from bitnet_cy.convert.shape import to_metadata
from bitnet_cy.convert.space import require
from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, Weight, located
from bitnet_cy.errors import BitNetError, UnsupportedError
from bitnet_cy.formats import floats, gguf, ternary, types
from bitnet_cy.formats.gguf import TensorSource
from bitnet_cy.formats.ternary import Ternary

# Value of general.file_type for each type of the ternary matrices.
FILE_TYPES = {"I2_S": 40, "TQ1_0": 36, "TQ2_0": 37, "F16": 1, "BF16": 32}
EMBEDDINGS = ("F16", "BF16", "Q8_0", "Q6_K")
_DENSE_ROWS = 256


def write(
    model: Model, path: Path, type_name: str, embedding: str | None, progress: Progress
) -> None:
    """Write `path`, with matrices of trits as `type_name`.

    embedding: the type of embedding and head, None to keep what they have.
    """
    sources = [_source(model, weight, type_name, embedding, progress) for weight in model.weights]
    total = sum(source.nbytes for source in sources)
    require(path, total)
    progress.start("writing", total)
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
    return keys | to_metadata(model.shape, architecture) | model.keys


def _source(
    model: Model, weight: Weight, type_name: str, embedding: str | None, progress: Progress
) -> TensorSource:
    if isinstance(weight, TernaryWeight):
        kind, pieces = type_name, _ternary_pieces(weight, type_name)
    else:
        kind = "F32" if len(weight.shape) == 1 else embedding or weight.stored
        pieces = _float_pieces(weight, kind)

    if types.by_name(kind).nbytes(weight.shape) is None:
        raise UnsupportedError(
            f"tensor {weight.name} has rows of {weight.shape[-1]} weights, which {kind} cannot "
            "hold (it packs whole blocks of a row); choose i2_s or f16"
        )

    def data() -> Iterator[np.ndarray]:
        try:
            for piece in pieces:
                yield piece
                progress.advance(piece.nbytes)
        except BitNetError as error:
            raise located(weight, error) from None
        model.forget()

    return TensorSource(weight.name, weight.shape, kind, data)


def _ternary_pieces(weight: TernaryWeight, type_name: str) -> Iterator[np.ndarray]:
    found = weight.load()
    if type_name in ternary.NAMES:
        yield ternary.encode(type_name, found.trits, found.scale)
    else:
        with np.errstate(over="ignore"):
            for start in range(0, len(found.trits), _DENSE_ROWS):
                yield floats.encode(type_name, _rows(found, start, start + _DENSE_ROWS).dense())


def _rows(found: Ternary, start: int, stop: int) -> Ternary:
    scale = found.scale if found.scale.ndim < 2 else found.scale[start:stop]
    return Ternary(found.trits[start:stop], scale)


def _float_pieces(weight: FloatWeight, kind: str) -> Iterator[np.ndarray]:
    if kind == weight.stored:
        for _ in weight.blocks() if kind in floats.NAMES else ():
            pass  # every value is looked at before it is copied
        yield weight.raw()
        return
    with np.errstate(over="ignore"):
        for block in weight.blocks():
            yield floats.encode(kind, block.reshape(-1, weight.shape[-1]))
