"""bitnet-cy inspect: what a GGUF file holds, whether or not it can be run."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bitnet_cy.cli import options, output
from bitnet_cy.memory import size

if TYPE_CHECKING:
    from bitnet_cy.formats.gguf import GGUFFile

SHOWN = 5
"""Elements of a long array that are shown."""


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser("inspect", help="show what a file holds", description=__doc__)
    parser.add_argument("file", nargs="?", metavar="FILE", help="a GGUF file, or ORG/NAME")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from bitnet_cy.formats import gguf
    from bitnet_cy.hub import locate

    if arguments.file is None:
        from bitnet_cy.model import embedded_model

        arguments.file = embedded_model()
    with gguf.read(locate(arguments.file)) as file:
        if arguments.json:
            output.write_json(as_json(file))
        else:
            print(as_text(file))
    return 0


def as_json(file: GGUFFile) -> dict[str, Any]:
    """The file's content; an array longer than `SHOWN` becomes its length and its beginning."""
    return {
        "path": str(file.path),
        "nbytes": file.nbytes,
        "version": file.version,
        "alignment": file.alignment,
        "metadata": {key: _short(file.metadata[key]) for key in file.metadata},
        "tensors": [asdict(tensor) for tensor in file.tensors.values()],
    }


def as_text(file: GGUFFile) -> str:
    """The same for people, with long strings cut."""
    name = output.printable(file.path.name)
    keys = [[output.printable(key), _as_cell(file.metadata[key])] for key in file.metadata]
    rows = [["tensor", "type", "shape", "bytes", "offset"]]
    rows += [
        [
            output.printable(tensor.name),
            tensor.type_name,
            " x ".join(map(str, tensor.shape)),
            str(tensor.nbytes),
            str(tensor.offset),
        ]
        for tensor in file.tensors.values()
    ]
    parts = [
        f"{name}: GGUF v{file.version}, {size(file.nbytes)}, "
        f"{len(file.metadata)} keys, {len(file.tensors)} tensors"
    ]
    parts += [output.table(keys)] if keys else []
    parts += [output.table(rows, right=[3, 4])] if file.tensors else []
    return "\n\n".join(parts)


def _short(value: Any) -> Any:
    if not _is_array(value) or len(value) <= SHOWN:
        return value
    return {"length": len(value), "first": list(value[:SHOWN])}


def _as_cell(value: Any) -> str:
    if not _is_array(value):
        return _one(value)
    inside = ", ".join(_one(item) for item in value[:SHOWN])
    return f"[{inside}]" if len(value) <= SHOWN else f"[{inside}, ...] ({len(value)} in all)"


def _one(value: Any) -> str:
    plain = value.item() if hasattr(value, "item") else value
    text = f"{plain:.7g}" if isinstance(plain, float) else repr(plain)  # float32's own digits
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_array(value: Any) -> bool:
    return isinstance(value, list) or getattr(value, "ndim", 0) == 1
