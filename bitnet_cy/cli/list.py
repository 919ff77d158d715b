"""bitnet-cy list: the models on this machine.

The embedded one, those in the cache of the Hugging Face Hub, and those in the folders given (by
default this one). "runs" says whether the type and the architecture are ones that bitnet_cy runs;
a checkpoint has to be converted first.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_cy.cli import options, output
from bitnet_cy.errors import OptionError

if TYPE_CHECKING:
    from bitnet_cy.hub.inventory import Found


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser(
        "list",
        help="show the models on this machine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="files and folders to look in; default: this one"
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from bitnet_cy.hub import cache, inventory
    from bitnet_cy.model import embedded_model

    paths = [Path(path) for path in arguments.paths]
    for path in paths:
        if not path.exists():
            raise OptionError(f"no such file or folder: {path}; give ones that are there")
    embedded = [replace(m, name="(embedded)") for m in inventory.on_disk([embedded_model()])]
    found = [*embedded, *inventory.cached(), *inventory.on_disk(paths or [Path()])]
    if arguments.json:
        output.write_json([as_json(model) for model in found])
        return 0
    print(as_text(found))
    print(f"cache: {output.printable(str(cache.folder()))}")
    return 0


def as_json(model: Found) -> dict[str, Any]:
    """One model, with the keys of `--json`."""
    return {
        "name": model.name,
        "path": str(model.path),
        "bytes": model.nbytes,
        "architecture": model.architecture,
        "quantization": model.quantization,
        "runs": runs(model),
        "problem": model.problem,
    }


def as_text(found: list[Found]) -> str:
    """The models for people, a line each, and why some cannot be read."""
    from bitnet_cy.memory import size

    rows = [["model", "size", "architecture", "quantization", "runs", "path"]]
    for model in found:
        kind = [model.architecture or "?", model.quantization or "?", runs(model)]
        row = [model.name, size(model.nbytes), *kind, str(model.path)]
        rows.append([output.printable(cell) for cell in row])
    problems = [output.printable(model.problem) for model in found if model.problem]
    return "\n".join([output.table(rows, right=[1]), *problems])


def runs(model: Found) -> str:
    """Whether bitnet_cy runs a model: "yes", "no", or "convert" for a checkpoint."""
    from bitnet_cy.architectures import FAMILIES
    from bitnet_cy.formats import ternary

    if model.is_checkpoint:
        return "convert"
    able = model.architecture in FAMILIES and model.quantization in ternary.NAMES
    return "yes" if able else "no"
