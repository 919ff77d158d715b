"""bitnet-cy pull: a model of the Hugging Face Hub into the cache.

Downloads what is not there yet and continues what was interrupted; prints the path. A repository
that has no GGUF file but a checkpoint in safetensors is downloaded as a folder, to be converted.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from bitnet_cy.cli import options, output

if TYPE_CHECKING:
    from bitnet_cy.hub import Pulled


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser(
        "pull",
        help="download a model of the Hugging Face Hub",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("repository", metavar="REPO[:FILE]", help="ORG/NAME[@REVISION][:FILE]")
    parser.add_argument("--revision", metavar="REV", help="a branch, a tag or a commit")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from bitnet_cy.hub import pull

    pulled = pull(arguments.repository, arguments.revision)
    if arguments.json:
        checkpoint = {"is_checkpoint": pulled.is_checkpoint}
        output.write_json(asdict(pulled) | {"path": str(pulled.path)} | checkpoint)
    else:
        print(pulled.path)
        print(hint(arguments.repository, pulled), file=sys.stderr)
    return 0


def hint(name: str, pulled: Pulled) -> str:
    """What can be done with it now, and whether it may be old."""
    old = "" if pulled.from_network else "The Hub was not reached; this is what the cache holds. "
    if pulled.is_checkpoint:
        name = pulled.repo.split("/")[1]
        return f"{old}Convert it: bitnet-cy convert {pulled.path} -o {name}.gguf"
    return f"{old}Run it: bitnet-cy generate -m {name} PROMPT"
