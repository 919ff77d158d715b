"""bitnet-cy convert: a ternary model from one form to another, verified."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bitnet_cy.cli import options, output
from bitnet_cy.errors import OptionError
from bitnet_cy.memory import size

if TYPE_CHECKING:
    from bitnet_cy.convert import Report, Row

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser(
        "convert",
        help="turn a checkpoint into a GGUF file, or back",
        description="Convert a ternary model, and verify every weight of the result.",
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a Hugging Face folder or a GGUF file")
    parser.add_argument("-o", "--out", required=True, help="the file (or folder) to write")
    parser.add_argument(
        "--type",
        default="i2_s",
        help="i2_s (default), i1_6_s (only bitnet_cy reads it), tq1_0, tq2_0, q2_0; f16 or bf16, "
        "dequantized; hf: a folder, packed uint8",
    )
    parser.add_argument(
        "--embedding",
        default="keep",
        help="type of embedding and head: keep (default), f16, bf16, q8_0, q6_k",
    )
    parser.add_argument(
        "--from-masters",
        action="store_true",
        help="the dense weights are masters of a BitNet model; quantize them as in training",
    )
    options.add_activation_dtype(parser)
    options.add_pre(parser)
    parser.add_argument(
        "--no-vocabulary", action="store_true", help="leave a checkpoint's vocabulary out"
    )
    parser.add_argument(
        "--arrangement", default="128", help="of I2_S in SRC: 128 (default), 64 or 4row"
    )
    parser.add_argument(
        "--kernel-config", metavar="INI", help="the kernel_config.ini that TL1 or TL2 was made with"
    )
    parser.add_argument(
        "--shard-size",
        metavar="SIZE",
        default="5GB",
        help="of the files in a folder, at most; default: 5GB",
    )
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="default: see info")
    parser.add_argument("--force", action="store_true", help="overwrite what exists")
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from bitnet_cy.convert import convert
    from bitnet_cy.formats.ternary import read_kernels

    kernels = arguments.kernel_config
    report = convert(
        arguments.source,
        arguments.out,
        type=arguments.type,
        embedding=arguments.embedding,
        from_masters=arguments.from_masters,
        activation_dtype=arguments.activation_dtype,
        pre=arguments.pre,
        with_vocabulary=not arguments.no_vocabulary,
        arrangement=arguments.arrangement,
        kernels=read_kernels(Path(kernels)) if kernels else None,
        shard_size=_bytes(arguments.shard_size),
        threads=arguments.threads,
        force=arguments.force,
        progress=sys.stderr.isatty(),
    )
    if arguments.json:
        output.write_json(asdict(report) | {"path": str(report.path)})
    else:
        print(as_text(report))
    return 0


def _bytes(text: str) -> int:
    """A size such as 5GB or 300MB; a number alone counts bytes."""
    found = re.fullmatch(r"\s*(\d+)\s*([KMG]?)B?\s*", text, re.IGNORECASE)
    if found is None:
        raise OptionError(f"shard size is {text!r:.40}; give one such as 5GB or 300MB")
    return int(found[1]) * _UNITS[found[2].upper()]


def as_text(report: Report) -> str:
    """The table of what was written."""
    head = ["part", "tensors", "from", "to", "bytes", "-1", "0", "+1", "scale", "error"]
    rows = [head, *(_cells(row) for row in report.rows)]
    counts = [sum(getattr(row, name) for row in report.rows) for name in ("minus", "zero", "plus")]
    parts = [
        output.table(rows, right=[1, 4, 5, 6, 7]),
        f"{sum(counts):,} ternary weights: {counts[0]:,} are -1, {counts[1]:,} are 0, "
        f"{counts[2]:,} are +1",
        f"{output.printable(str(report.path))}: {size(report.nbytes)}, every tensor compared with "
        "its source",
    ]
    return "\n".join([*parts, *(f"note: {output.printable(note)}" for note in report.notes)])


def _cells(row: Row) -> list[str]:
    counts = [row.minus, row.zero, row.plus]
    total = sum(counts)
    shares = [f"{count / total:.1%}" if total else "" for count in counts]
    scale = ""
    if row.scales is not None:
        low, high = (f"{value:.4g}" for value in row.scales)
        scale = low if low == high else f"{low} to {high}"
    return [
        row.part,
        str(row.tensors),
        row.source,
        row.written,
        f"{row.nbytes:,}",
        *shares,
        scale,
        f"{row.error:.1e}" if row.error else "exact",
    ]
