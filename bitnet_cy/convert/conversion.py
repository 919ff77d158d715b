"""convert: read, write under a temporary name, verify, and only then give the file its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bitnet_cy.checks import member, whole
from bitnet_cy.convert import checkpoint_source, folder_target, gguf_source, gguf_target
from bitnet_cy.convert.model import Model
from bitnet_cy.convert.progress import Progress
from bitnet_cy.convert.report import Report
from bitnet_cy.convert.verify import file_size, verify
from bitnet_cy.convert.weights import TernaryWeight, located
from bitnet_cy.convert.workers import Workers, workers
from bitnet_cy.errors import (
    BitNetError,
    FormatError,
    OptionError,
    ResourceError,
    UnsupportedError,
)
from bitnet_cy.formats import checkpoint
from bitnet_cy.formats.activation import ACTIVATION_DTYPES
from bitnet_cy.formats.ternary import Ternary
from bitnet_cy.threads import choose

FOLDER = "hf"
TYPES = (*(name.lower() for name in gguf_target.FILE_TYPES), FOLDER)
KEEP = "keep"
EMBEDDINGS = (KEEP, *(name.lower() for name in gguf_target.EMBEDDINGS))


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str = "i2_s",  # the name of the command line's option
    embedding: str = KEEP,
    from_masters: bool = False,
    activation_dtype: str | None = None,
    pre: str | None = None,
    with_vocabulary: bool = True,
    arrangement: str = "128",
    kernels: Mapping[tuple[int, int], tuple[int, int, int]] | None = None,
    shard_size: int = 5_000_000_000,
    threads: int | None = None,
    force: bool = False,
    progress: bool = False,
) -> Report:
    """Convert a ternary model and verify what was written.

    Arguments
        source: a Hugging Face folder (packed, master or already ternary weights) or a GGUF file.
        out: the file to write, or the folder for type "hf". It appears when it is verified.
        type: of the ternary matrices, one of TYPES: "i2_s", "tq1_0", "tq2_0", "i1_6_s" (1.6 bits a
            weight, which only bitnet_cy reads, from the file as it lies), dequantized "f16" or
            "bf16", or "hf" for a folder with packed uint8 weights.
        embedding: of embedding and head: "keep", "f16", "bf16", "q8_0" or "q6_k".
        from_masters: dense matrices are masters of a BitNet model, to be quantized as in
            training, though the source does not say so (its architecture is Llama's).
        activation_dtype: what the model multiplies weights with, to be named in the file: "int8",
            or "float32" if its weights alone are ternary (TriLM, Bonsai). None leaves it to the
            source, or to matrices with several scales, which need float32.
        pre: the name of the splitting rule, where the vocabulary's own has none.
        with_vocabulary: False leaves a checkpoint's vocabulary out.
        arrangement: of I2_S tensors in the source: "128", "64" or "4row".
        kernels: TL1 and TL2 parameters (BM, BK, bm) of the source by matrix shape.
        shard_size: bytes that a file in a folder has at most; more make several, with an index.
        threads: how many work at once; None for the physical cores.
        force: replace `out` if it exists. progress: show a bar on standard error.

    Memory: a few matrices for each thread. Raises FormatError (damaged source), UnsupportedError
    (not ternary, or not a model of a known kind), OptionError, and ResourceError (disk).
    """
    source, out = Path(source), Path(out)
    type_name, embedding_type = _types(type, embedding)
    if activation_dtype is not None:
        member("activation_dtype", activation_dtype, ACTIVATION_DTYPES)
    _check_target(source, out, type_name, force)
    shard_size = whole("shard_size", shard_size, 1)
    shown, count = Progress(progress), choose(threads).count
    model = _open(source, from_masters, pre, with_vocabulary, arrangement, kernels)
    partial = out.with_name(f".{out.name}.{os.getpid()}.unverified")
    try:
        model = _with_activations(model, _probe(model), activation_dtype)
        with workers(count) as team:
            if type_name is None:
                folder_target.write(model, partial, embedding_type, shard_size, team, shown)
            else:
                gguf_target.write(model, partial, type_name, embedding_type, team, shown)
            report = _verify(model, partial, team, shown)
        if type_name is not None:
            report.notes += gguf_target.notes(model, type_name)
        report.nbytes, report.path = file_size(partial), out
        _rename(partial, out)
        return report
    finally:
        shown.stop()
        model.close()
        _remove(partial)


def _types(type_: str, embedding: str) -> tuple[str | None, str | None]:
    """The names of the GGUF types; None for a folder, and for an embedding kept as it is."""
    if type_ not in TYPES:
        raise OptionError(f"type is {type_!r}; choose from {', '.join(TYPES)}")
    if embedding not in EMBEDDINGS:
        raise OptionError(f"embedding is {embedding!r}; choose from {', '.join(EMBEDDINGS)}")
    if type_ == FOLDER and embedding not in (*folder_target.EMBEDDINGS, KEEP):
        raise OptionError(
            f"embedding is {embedding!r}; a checkpoint folder holds "
            f"{', '.join(folder_target.EMBEDDINGS)} or what the source has (keep)"
        )
    return (
        None if type_ == FOLDER else type_.upper(),
        None if embedding == KEEP else embedding.upper(),
    )


def _check_target(source: Path, out: Path, type_name: str | None, force: bool) -> None:
    if not source.exists():
        raise FormatError(f"no such file or folder: {source}")
    if not out.name:
        raise OptionError(f"{out} is no name to write to; give a file or a new folder")
    if out.exists() and out.samefile(source):
        raise OptionError(f"{out} is the source; choose another name")
    if out.exists() and not force:
        raise OptionError(f"{out} already exists; choose another name, or force to overwrite it")
    if type_name is not None and out.is_dir():
        raise OptionError(f"{out} is a directory; give a file name")
    if type_name is None and out.exists() and not (out / "config.json").is_file():
        raise OptionError(f"{out} is no checkpoint folder, and is not overwritten; name another")


def _open(
    source: Path,
    from_masters: bool,
    pre: str | None,
    with_vocabulary: bool,
    arrangement: str,
    kernels: Mapping[tuple[int, int], tuple[int, int, int]] | None,
) -> Model:
    if source.is_dir():
        return checkpoint_source.read(
            source, from_masters=from_masters, pre=pre, with_vocabulary=with_vocabulary
        )
    if source.suffix in checkpoint.PICKLED:
        raise UnsupportedError(
            f"{source} is pickled, which can run any program when loaded; bitnet_cy reads folders "
            "with safetensors: convert it with the transformers package"
        )
    if source.suffix == ".safetensors":
        raise OptionError(f"{source} is one file of a checkpoint; give its folder")
    return gguf_source.read(
        source, arrangement=arrangement, kernels=kernels, from_masters=from_masters, pre=pre
    )


def _probe(model: Model) -> Ternary:
    """The first matrix. Fails before a byte is written: a dense model is told at once."""
    first = next(weight for weight in model.weights if isinstance(weight, TernaryWeight))
    try:
        return first.load()
    except BitNetError as error:
        raise located(first, error) from None


def _with_activations(model: Model, first: Ternary, asked: str | None) -> Model:
    """The model with what it multiplies weights with: as asked, or as several scales need it."""
    dtype = asked or model.shape.activation_dtype
    if dtype is None and first.scale.size > 1:
        dtype = "float32"
        model.notes.append(
            "matrices have several scales, as models have whose weights alone are ternary, so "
            "activations are not quantized: activation_dtype = float32"
        )
    return replace(model, shape=replace(model.shape, activation_dtype=dtype))


def _verify(model: Model, partial: Path, team: Workers, shown: Progress) -> Report:
    """Open what was written and compare it with the source."""
    if partial.is_dir():
        written = checkpoint_source.read(partial, with_vocabulary=model.tokenizer is not None)
    else:
        written = gguf_source.read(partial)
    try:
        return verify(model, written, team, shown)
    finally:
        written.close()


def _rename(partial: Path, out: Path) -> None:
    """Give the verified result its name; an old folder goes only when the new one is there."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        if out.is_dir():
            os.replace(out, old)
        os.replace(partial, out)
    except OSError as error:
        raise ResourceError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if old.exists() and not out.exists():
            os.replace(old, out)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
