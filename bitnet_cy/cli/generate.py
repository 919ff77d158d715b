"""bitnet-cy generate: continue a text."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from bitnet_cy.cli import options, output

if TYPE_CHECKING:
    from bitnet_cy.generation import Chunk
    from bitnet_cy.model import Model


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser("generate", help="continue a text", description=__doc__)
    options.add_text(parser, "PROMPT")
    parser.add_argument("--echo", action="store_true", help="print the prompt before the text")
    parser.add_argument("-v", "--verbose", action="store_true", help="print numbers to stderr")
    options.add_json(parser)
    options.add_model(parser)
    options.add_generation(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    prompt = options.text(arguments, "prompt")
    config = options.generation_config(arguments)
    model = options.load_model(arguments)
    if arguments.json:
        output.write_json({"prompt": prompt, **asdict(model.generate(prompt, config))})
        return 0
    chunks = model.stream(prompt, config)
    if arguments.echo:
        output.write(prompt)
    try:
        for chunk in chunks:
            output.write(chunk.text)
    finally:
        output.write("\n")
    if arguments.verbose:
        print(numbers(model, chunk), file=sys.stderr)
    return 0


def numbers(model: Model, last: Chunk) -> str:
    """One line on how fast a generation was and why it ended."""
    return (
        f"prompt {last.prompt_tokens} tokens, {last.prompt_tokens_per_second:.1f} tok/s; "
        f"text {last.new_tokens} tokens, {last.decode_tokens_per_second:.1f} tok/s; "
        f"ended by {last.finish_reason}; threads {model.threads}"
    )
