"""A Hugging Face folder as a Model: packed, master and already ternary weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_cy.convert import masters, rope, vocabulary
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.shape import from_config
from bitnet_cy.convert.tensors import HEAD, Slot, slots
from bitnet_cy.convert.weights import FloatWeight, TernaryWeight, Weight, matrix
from bitnet_cy.errors import FormatError, UnsupportedError
from bitnet_cy.formats import checkpoint
from bitnet_cy.formats.checkpoint import Checkpoint
from bitnet_cy.formats.json_file import read_object
from bitnet_cy.formats.ternary import Ternary, unpack_quarters

_FLOATS = ("F32", "F16", "BF16")
_BYTES = ("U8", "I8")
_INPUT_NORMS = (".q_proj.norm.weight", ".q_proj.rms_norm.weight")
_POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
_NO_WEIGHTS = (".inv_freq", ".attention.bias", ".masked_bias")
_LINEAR_CLASSES = {None: "divide", "bitlinear": "divide", "autobitlinear": "multiply"}


@dataclass(frozen=True)
class Quantization:
    """What config.json says about the weights.

    direction: whether a packed matrix is to be multiplied or divided by its scale, None if none
    is packed. from_masters: whether float matrices are masters of a ternary model.
    """

    direction: str | None
    from_masters: bool


def read(
    folder: str | os.PathLike[str],
    *,
    from_masters: bool = False,
    pre: str | None = None,
    with_vocabulary: bool = True,
) -> Model:
    """Open a folder; its tensors are read when they are loaded.

    from_masters: float matrices are masters even if the configuration does not say so.
    pre: the splitting rule to name, for a tokenizer.json whose own has no name.
    """
    source = checkpoint.read(folder)
    try:
        return _read(source, from_masters, pre, with_vocabulary)
    except BaseException:
        source.close()
        raise


def _read(source: Checkpoint, from_masters: bool, pre: str | None, with_vocabulary: bool) -> Model:
    shape = from_config(source.config, source.path.resolve().name)
    has_input_norms = any(name.endswith(_INPUT_NORMS) for name in source.tensors)
    from_masters = from_masters or shape.kind.has_masters or has_input_norms
    quantization = read_quantization(source.config, from_masters, shape.norm_eps)
    is_quantized = quantization.from_masters or not shape.kind.weight_only
    shape = replace(
        shape,
        input_norms=has_input_norms,
        activation_dtype=None if is_quantized else "float32",
        pooling=read_pooling(source.path),
    )
    reader = _Tensors(source, quantization)
    tied = reader.is_tied()
    weights = tuple(reader.weight(slot) for slot in slots(shape, tied))
    reader.refuse_rest(shape.family, tied)
    found = None
    if with_vocabulary:
        found = vocabulary.from_folder(source.path, source.config, shape.vocab_size, pre)
    return Model(
        path=source.path,
        shape=shape,
        tied=tied,
        weights=weights,
        keys=dict(found.keys) if found else {},
        tokenizer=found.tokenizer if found else None,
        forget=source.forget,
        close=source.close,
    )


def read_pooling(folder: Path) -> str | None:
    """How an embedding model pools, by the file that sentence-transformers keeps it in."""
    path = folder / "1_Pooling" / "config.json"
    values = read_object(path) if path.is_file() else {}
    found = [name for name, key in _POOLINGS.items() if values.get(f"pooling_mode_{key}")]
    if len(found) != 1 and values:
        raise UnsupportedError(
            f"{path} does not name one of the poolings {', '.join(_POOLINGS)}, which are supported"
        )
    return found[0] if found else None


def read_quantization(config: dict[str, Any], from_masters: bool, eps: float) -> Quantization:
    """The `quantization_config`; UnsupportedError for methods other than BitNet's.

    eps: of the model's norms, which those inside linear layers must share.
    """
    value = config.get("quantization_config")
    if value is None:
        return Quantization(None, from_masters)
    if not isinstance(value, dict):
        raise FormatError(f"config.json: quantization_config is {value!r:.60}, not an object")
    method, linear = value.get("quant_method"), value.get("linear_class")
    mode = value.get("quantization_mode", "offline")
    if method != "bitnet":
        raise UnsupportedError(
            f"config.json names the quant_method {method!r:.60}; bitnet_cy converts 'bitnet' and "
            "unquantized checkpoints"
        )
    if linear not in _LINEAR_CLASSES or mode not in ("offline", "online"):
        raise UnsupportedError(
            f"config.json: linear_class {linear!r:.40} in quantization_mode {mode!r:.40}; known "
            "are bitlinear and autobitlinear, offline and online"
        )
    if value.get("use_rms_norm") and value.get("rms_norm_eps", 1e-6) != eps:
        raise UnsupportedError(
            f"config.json sets use_rms_norm with an epsilon other than the model's {eps}; one for "
            "all norms is supported"
        )
    return Quantization(_LINEAR_CLASSES[linear], True)


class _Tensors:
    """The tensors of a checkpoint by the names of GGUF slots."""

    def __init__(self, source: Checkpoint, quantization: Quantization) -> None:
        self._source, self._quantization = source, quantization
        self._left = {name.removeprefix("model."): name for name in source.tensors}

    def is_tied(self) -> bool:
        """By config.json where it says so; a missing head alone tells little."""
        has_head = "lm_head.weight" in self._left
        return bool(self._source.config.get("tie_word_embeddings", not has_head))

    def weight(self, slot: Slot) -> Weight:
        name = self._take(slot)
        if not slot.is_ternary:
            info = self._source.tensors[name]
            self._check(name, slot.shape, _FLOATS)
            return FloatWeight(
                slot.name, name, slot.shape, info.dtype, lambda: self._source.raw(name), slot.offset
            )
        rows, cols = slot.shape
        load, stored = self._ternary(name, rows, cols)
        nbytes = self._source.tensors[name].nbytes
        if slot.heads is None:
            return TernaryWeight(slot.name, name, (rows, cols), stored, nbytes, load)
        heads = slot.heads

        def interleaved() -> Ternary:
            found = load()
            scale = found.scale if found.scale.ndim < 2 else rope.interleave(found.scale, heads)
            return Ternary(rope.interleave(found.trits, heads), scale)

        return TernaryWeight(slot.name, name, (rows, cols), stored, nbytes, interleaved)

    def refuse_rest(self, family: str, tied: bool) -> None:
        """Every tensor must have been used: what is left out changes the model."""
        if tied and "lm_head.weight" in self._left:
            self._refuse_second_head()
        for name in self._left.values():
            if not name.endswith(_NO_WEIGHTS):
                raise UnsupportedError(
                    f"{self._source.path.name} has tensor {name}, which {family} models lack; "
                    "leaving it out would change the model"
                )

    def _refuse_second_head(self) -> None:
        head, embedding = self._left.pop("lm_head.weight"), "model.embed_tokens.weight"
        embedding = embedding if embedding in self._source.tensors else "embed_tokens.weight"
        if not np.array_equal(self._source.raw(head), self._source.raw(embedding)):
            raise FormatError(
                f"config.json ties the head to the embedding, but {head} differs from {embedding};"
                " set tie_word_embeddings to false if the head is to be used"
            )

    def _take(self, slot: Slot) -> str:
        for alias in slot.aliases:
            if alias in self._left:
                return self._left.pop(alias)
        prefix = "" if slot.name == HEAD else "model."
        raise FormatError(
            f"{self._source.path.name} has no tensor {prefix}{slot.aliases[0]}; is the download "
            "complete?"
        )

    def _check(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        info = self._source.tensors[name]
        if info.dtype not in dtypes:
            raise UnsupportedError(
                f"tensor {name} has dtype {info.dtype}; {', '.join(dtypes)} are converted"
            )
        if info.shape != shape:
            raise FormatError(
                f"tensor {name}: shape {list(shape)} follows from config.json, the file has "
                f"{list(info.shape)}"
            )

    def _ternary(self, name: str, rows: int, cols: int) -> tuple[Callable[[], Ternary], str]:
        dtype = self._source.tensors[name].dtype
        if dtype in _BYTES:
            return self._packed(name, rows, cols), "packed uint8"
        self._check(name, (rows, cols), (*_FLOATS, *_BYTES))

        found = matrix(lambda: self._source.raw(name), dtype, (rows, cols))

        def load() -> Ternary:
            return from_floats(found, self._quantization.from_masters)

        return load, dtype

    def _packed(self, name: str, rows: int, cols: int) -> Callable[[], Ternary]:
        if rows % 4:
            raise FormatError(
                f"tensor {name} is packed, four rows in one, but config.json gives it {rows} rows"
            )
        self._check(name, (rows // 4, cols), _BYTES)
        direction = self._quantization.direction
        if direction is None:
            raise FormatError(
                f"tensor {name} is packed, but config.json has no quantization_config, which says "
                "how its scale is meant; restore the original config.json"
            )
        scale = self._scale(name, direction)
        return lambda: Ternary(unpack_quarters(self._source.array(name)), scale)

    def _scale(self, name: str, direction: str) -> np.ndarray:
        """The scale to multiply trits with."""
        key = f"{name.removeprefix('model.')}_scale"
        if key not in self._left:
            raise FormatError(f"{self._source.path.name} has no tensor {name}_scale")
        stored = self._left.pop(key)
        if self._source.tensors[stored].dtype not in _FLOATS:
            raise FormatError(f"tensor {stored} is not of a float type; the checkpoint is damaged")
        values = self._source.array(stored).reshape(-1)
        if values.size != 1 or not np.isfinite(values[0]) or values[0] <= 0:
            raise FormatError(
                f"tensor {stored} holds {values[:4].tolist()}; one positive number is expected: "
                "the checkpoint is damaged"
            )
        with np.errstate(over="ignore"):
            scale = values[0] if direction == "multiply" else np.float32(1) / values[0]
        if not np.isfinite(scale):
            raise FormatError(f"tensor {stored} is {values[0]}, too small to divide by")
        return np.asarray(scale, np.float32)


def from_floats(weights: masters.Matrix, from_masters: bool) -> Ternary:
    """A float matrix as trits; UnsupportedError if it is dense and no master."""
    found = masters.on_grid(weights)
    if found is not None:
        return found
    if from_masters:
        return masters.absmean(weights)
    share = masters.share_off_grid(weights)
    raise UnsupportedError(
        f"is not ternary: {share:.2%} of its weights are not -a, 0 or +a for one a; converting a "
        "dense model would destroy it. If these are the master weights of a BitNet model, say so "
        "(from_masters, --from-masters); if not, use llama.cpp"
    )
