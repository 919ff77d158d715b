"""bitnet-cy tokenize: show the tokens of a text. Part of a character is written \\xNN."""

from __future__ import annotations

import argparse

from bitnet_cy.cli import options, output


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser("tokenize", help="show the tokens of a text", description=__doc__)
    options.add_text(parser, "TEXT")
    parser.add_argument(
        "-m",
        "--model",
        metavar="FILE",
        help="a GGUF file (one with a vocabulary only will do), tokenizer.json, tokenizer.model, "
        "or tiktoken rank file",
    )
    options.add_pre(parser)
    parser.add_argument("--no-special", action="store_true", help="add no BOS or EOS")
    parser.add_argument(
        "--parse-special", action="store_true", help="read special tokens in the text as such"
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from bitnet_cy import tokenizer
    from bitnet_cy.hub import locate

    text = options.text(arguments, "text")
    if arguments.model is None:
        from bitnet_cy.model import embedded_model

        arguments.model = embedded_model()
    vocabulary = tokenizer.load(locate(arguments.model), arguments.pre)
    ids = vocabulary.encode(
        text,
        add_special_tokens=not arguments.no_special,
        parse_special=arguments.parse_special,
    )
    raw = [vocabulary.piece_bytes(token, skip_special_tokens=False) for token in ids]
    pieces = [piece.decode("utf-8", errors="backslashreplace") for piece in raw]
    if arguments.json:
        output.write_json({"ids": ids, "pieces": pieces})
    elif ids:
        rows = [[str(token), repr(piece)] for token, piece in zip(ids, pieces, strict=True)]
        print(output.table(rows, right=[0]))
    return 0
