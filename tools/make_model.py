"""Write a GGUF model of a published shape with random weights.

    python tools/make_model.py --preset bitnet-2b-4t --out 2b.gguf --vocab llama3.tiktoken

The file has the names, types, sizes and metadata of the real one, flaws included, so everything
but the text can be tried at full size without a download.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from model_vocabulary import Vocabulary, from_file, synthetic_bytes, synthetic_sentencepiece
from presets import FILE_TYPES, PRESETS, Shape, metadata
from random_weights import SPECTRA, RandomWeights

from bitnet_cy.errors import BitNetError, OptionError
from bitnet_cy.formats import floats, gguf
from bitnet_cy.formats.gguf import TensorSource


def make(
    preset: str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    type: str = "i2_s",  # the name of the command line's option
    embedding: str = "f16",
    vocab: str | os.PathLike[str] | None = None,
    spectrum: str = "realistic",
    metadata_changes: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: bool = False,
    **changes: Any,
) -> Path:
    """Write a model file and give its path.

    `changes` replace fields of the preset's `Shape`, such as `layers=2` or `tied=False`.
    `metadata_changes` add keys, or drop those set to None.
    """
    if preset not in PRESETS:
        raise OptionError(f"preset {preset!r}; known are {', '.join(PRESETS)}")
    type_name = _known(type, FILE_TYPES, "type")
    embedding_type = _known(embedding, floats.NAMES, "embedding")
    shape = replace(PRESETS[preset], **changes)
    if shape.layers < 1:
        raise OptionError(f"layers is {shape.layers}; a model has at least 1")
    keys = metadata(shape, _vocabulary(shape, vocab), type_name) | dict(metadata_changes or {})
    keys = {key: value for key, value in keys.items() if value is not None}
    weights = RandomWeights(seed, spectrum)
    sources = list(tensors(shape, weights, type_name, embedding_type))
    gguf.write(out, keys, _with_progress(sources) if progress else sources, force=force)
    return Path(out)


def _known(name: str, names: Mapping[str, Any] | tuple[str, ...], what: str) -> str:
    if name.upper() not in names:
        raise OptionError(f"{what} {name!r}; known are {', '.join(names).lower()}")
    return name.upper()


def _vocabulary(shape: Shape, path: str | os.PathLike[str] | None) -> Vocabulary:
    if path is not None:
        vocabulary = from_file(Path(path), shape.specials)
    elif shape.specials is None:
        vocabulary = synthetic_sentencepiece(min(shape.vocab_size, 32000))
    else:
        vocabulary = synthetic_bytes(shape.vocab_size, shape.specials)
    return vocabulary.fill(shape.vocab_size)


def tensors(
    shape: Shape, weights: RandomWeights, type_name: str, embedding_type: str
) -> Iterator[TensorSource]:
    """Every tensor of the model, in file order."""
    heads, kv_heads = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    residual = 1 / math.sqrt(2 * shape.layers)

    def embedding(name: str) -> TensorSource:
        rows, cols = shape.vocab_size, shape.hidden
        return TensorSource(
            name, (rows, cols), embedding_type,
            lambda: weights.embedding(name, rows, cols, embedding_type),
        )  # fmt: skip

    def norm(name: str, size: int, is_last: bool = False) -> TensorSource:
        return TensorSource(name, (size,), "F32", lambda: weights.norm(name, size, is_last))

    def linear(name: str, rows: int, cols: int, gain: float = 1.0) -> TensorSource:
        return TensorSource(
            name, (rows, cols), type_name,
            lambda: weights.ternary(name, rows, cols, type_name, gain),
        )  # fmt: skip

    yield embedding("token_embd.weight")
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        yield norm(f"{block}.attn_norm.weight", shape.hidden)
        yield linear(f"{block}.attn_q.weight", heads, shape.hidden)
        yield linear(f"{block}.attn_k.weight", kv_heads, shape.hidden)
        yield linear(f"{block}.attn_v.weight", kv_heads, shape.hidden)
        if shape.sub_norms:
            yield norm(f"{block}.attn_sub_norm.weight", heads)
        yield linear(f"{block}.attn_output.weight", shape.hidden, heads, residual)
        yield norm(f"{block}.ffn_norm.weight", shape.hidden)
        yield linear(f"{block}.ffn_gate.weight", shape.ffn, shape.hidden)
        yield linear(f"{block}.ffn_up.weight", shape.ffn, shape.hidden)
        if shape.sub_norms:
            yield norm(f"{block}.ffn_sub_norm.weight", shape.ffn)
        yield linear(f"{block}.ffn_down.weight", shape.hidden, shape.ffn, residual)
    yield norm("output_norm.weight", shape.hidden, is_last=True)
    if not shape.tied:
        yield embedding("output.weight")


def _with_progress(sources: list[TensorSource]) -> list[TensorSource]:
    """The same sources, drawing a bar of bytes as they are written."""
    from tqdm import tqdm

    bar = tqdm(total=sum(source.nbytes for source in sources), unit="B", unit_scale=True)

    def counted(source: TensorSource) -> Iterator[np.ndarray]:
        for piece in source.pieces():
            yield piece
            bar.update(piece.nbytes)
        if source is sources[-1]:
            bar.close()

    return [replace(source, data=lambda source=source: counted(source)) for source in sources]


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", required=True, choices=list(PRESETS))
    parser.add_argument("--out", help="the file to write (default: PRESET.gguf)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--type", default="i2_s", choices=[name.lower() for name in FILE_TYPES])
    parser.add_argument(
        "--embedding", default="f16", choices=[name.lower() for name in floats.NAMES]
    )
    parser.add_argument("--layers", type=int, help="fewer or more layers than the real model")
    parser.add_argument("--vocab", metavar="FILE", help="a tiktoken rank file or a GGUF")
    parser.add_argument("--spectrum", default="realistic", choices=SPECTRA)
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    options = _arguments(arguments)
    changes = {} if options.layers is None else {"layers": options.layers}
    try:
        path = make(
            options.preset, options.out or f"{options.preset}.gguf", seed=options.seed,
            type=options.type, embedding=options.embedding, vocab=options.vocab,
            spectrum=options.spectrum, force=options.force, progress=True, **changes,
        )  # fmt: skip
    except BitNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
