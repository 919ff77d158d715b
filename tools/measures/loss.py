"""What is lost by choice: heads of fewer bits and caches of fewer bytes, on held-out text.

Nothing here depends on the machine. The embedded model is the subject, in its whole context.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import bitnet_cy
from bitnet_cy.engine import KV_DTYPES
from bitnet_cy.errors import OptionError
from bitnet_cy.formats import floats, gguf
from bitnet_cy.model import embedded_model
from measures.plan import Plan
from measures.record import Section

HEADS = ("Q8_0", "Q6_K", "Q4_0")
EMBEDDING = "token_embd.weight"


def measure(plan: Plan, section: Section) -> None:
    """Mean divergence, agreement of the likeliest token, and perplexity, against float32."""
    if plan.text is None:
        raise OptionError("what is lost is measured on a text; give --text FILE")
    exact = bitnet_cy.load(kv_dtype="float32")
    windows = _windows(exact, plan.text.read_text(encoding="utf-8"), 1 if plan.quick else 30)
    section.note(model=exact.path.name, tokens=windows.size, windows=len(windows))
    expected = [_log_softmax(exact.logits(ids)) for ids in windows.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        for name, model in _variants(Path(folder)):
            for ids, truth in zip(windows.tolist(), expected, strict=True):
                found = _log_softmax(model.logits(ids))
                for what, unit, value in _differences(truth, found, ids):
                    section.sample(what, unit, value, variant=name)


def _windows(model: bitnet_cy.Model, text: str, most: int) -> np.ndarray:
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    length = model.context_length
    count = min(most, len(ids) // length)
    if not count:
        raise OptionError(f"the text has {len(ids)} tokens; at least {length} are needed")
    return np.array(ids[: count * length]).reshape(count, length)


def _variants(folder: Path) -> Iterator[tuple[str, bitnet_cy.Model]]:
    yield "F16 head, float32 cache", bitnet_cy.load(kv_dtype="float32")
    for dtype in KV_DTYPES:
        if dtype != "float32":
            yield f"F16 head, {dtype} cache", bitnet_cy.load(kv_dtype=dtype)
    for head in HEADS:
        path = _with_head(folder / f"{head}.gguf", head)
        yield f"{head} head, float32 cache", bitnet_cy.load(path, kv_dtype="float32")


def _with_head(out: Path, type_name: str) -> Path:
    """The embedded model with a separate head: the embedding rounded to a type.

    Blocks of the type may run across rows, whose length they need not divide; the rounded values
    are then kept as F32.
    """
    with gguf.read(embedded_model()) as file:
        matrix = file.array(EMBEDDING)
        flat = matrix.reshape(1, -1)
        rounded = floats.decode(type_name, floats.encode(type_name, flat), flat.shape)
        sources = [_source(file, name) for name in file.tensors]
        head = rounded.reshape(matrix.shape).astype(np.float32)
        sources.append(gguf.TensorSource("output.weight", head.shape, "F32", head))
        gguf.write(out, dict(file.metadata), sources)
    return out


def _source(file: gguf.GGUFFile, name: str) -> Any:
    tensor = file.tensors[name]
    return gguf.TensorSource(name, tensor.shape, tensor.type_name, file.raw(name))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def _differences(
    truth: np.ndarray, found: np.ndarray, ids: list[int]
) -> Iterator[tuple[str, str, float]]:
    divergence = (np.exp(truth) * (truth - found)).sum(axis=1)
    yield "divergence", "nats", float(divergence.mean())
    agreement = (truth.argmax(axis=1) == found.argmax(axis=1)).mean()
    yield "same likeliest token", "ratio", float(agreement)
    chosen = found[np.arange(len(ids) - 1), ids[1:]]
    yield "loss", "nats", float(-chosen.mean())
    yield "largest error of a log-probability", "nats", float(np.abs(truth - found).max())
