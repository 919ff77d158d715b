"""bitnet-cy embed: vectors of texts, one line of numbers for each."""

from __future__ import annotations

import argparse

from bitnet_cy.cli import options, output
from bitnet_cy.errors import OptionError


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser(
        "embed", help="vectors of texts, by an embedding model", description=__doc__
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text; may be several")
    parser.add_argument(
        "-f", "--file", metavar="FILE", help="a file with a text on each line; - for standard input"
    )
    options.add_model(parser)
    group = parser.add_argument_group("embedding")
    group.add_argument(
        "--pooling", metavar="NAME", help="mean, cls or last; default: what the file names"
    )
    group.add_argument(
        "--no-normalize", action="store_true", help="do not scale vectors to length 1"
    )
    group.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="texts at once; default: 32"
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    texts = list(arguments.texts)
    if arguments.file is not None:
        texts += output.read_text(arguments.file).splitlines()
    if not texts:
        raise OptionError("there is no text; give some as arguments, or -f FILE")
    vectors = options.load_model(arguments).embed(
        texts,
        pooling=arguments.pooling,
        normalize=not arguments.no_normalize,
        batch_size=arguments.batch_size,
    )
    if arguments.json:
        output.write_json(vectors)
    else:
        for vector in vectors:
            print(" ".join(f"{value:.9g}" for value in vector))
    return 0
