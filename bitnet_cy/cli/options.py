"""The options that several verbs share, and what they make of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bitnet_cy.cli import output
from bitnet_cy.errors import OptionError

if TYPE_CHECKING:
    from bitnet_cy.generation import GenerationConfig
    from bitnet_cy.model import Model

Verbs = Any  # argparse gives its subparsers no public type

TEMPERATURE, TOP_K, TOP_P, SEED = 0.8, 40, 0.95, 0
"""What the command line draws with unless told: small models repeat themselves when they always
take the likeliest token, and a fixed seed still gives the same text each time."""


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and how to run it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        metavar="FILE",
        help="a GGUF file, or ORG/NAME[@REVISION][:FILE] of the Hugging Face Hub",
    )
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of ORG/NAME")
    group.add_argument("-t", "--threads", type=int, metavar="N", help="default: see info")
    group.add_argument(
        "-c",
        "--context-length",
        type=int,
        metavar="N",
        help="most tokens of prompt and text together; default: the model's, at most 4096",
    )
    group.add_argument(
        "--kv-dtype", default="float16", metavar="TYPE", help="float16 (default), float32 or int8"
    )
    group.add_argument(
        "--head",
        default="auto",
        metavar="HOW",
        help="output head: full, screened (the same tokens, fewer bytes), or auto (default)",
    )
    group.add_argument(
        "--weights",
        default="auto",
        metavar="LAYOUT",
        help="2bit, 1.6bit, or auto (default): what the file holds, or the faster one as measured",
    )
    group.add_argument(
        "--activation",
        metavar="NAME",
        help="relu2, silu or gelu, for a file that does not say (errors ask for it)",
    )
    add_activation_dtype(group)
    add_pre(group)


def add_activation_dtype(parser: Any) -> None:
    parser.add_argument(
        "--activation-dtype",
        metavar="TYPE",
        help="int8, or float32 for a model whose weights alone are ternary; default: by the file",
    )


def add_pre(parser: Any) -> None:
    parser.add_argument(
        "--pre", metavar="RULE", help="rule that splits text, for a file that names none"
    )


def add_generation(parser: argparse.ArgumentParser) -> None:
    """How to generate; other unset options keep the defaults of GenerationConfig."""
    group = parser.add_argument_group("generation")
    group.add_argument("-n", "--max-new-tokens", type=int, metavar="N", help="default: 256")
    group.add_argument(
        "--temperature",
        type=float,
        default=TEMPERATURE,
        metavar="X",
        help=f"default: {TEMPERATURE}; 0: always the likeliest token",
    )
    group.add_argument(
        "--top-k",
        type=int,
        default=TOP_K,
        metavar="N",
        help=f"draw from the N likeliest; 0: all; default: {TOP_K}",
    )
    group.add_argument(
        "--top-p",
        type=float,
        default=TOP_P,
        metavar="X",
        help=f"draw from this share of probability; default: {TOP_P}",
    )
    group.add_argument(
        "--min-p", type=float, metavar="X", help="nothing rarer than this part of the likeliest"
    )
    group.add_argument("--repetition-penalty", type=float, metavar="X", help="default: 1, none")
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be repeated"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=SEED,
        metavar="N",
        help=f"another number, another text; default: {SEED}",
    )
    group.add_argument(
        "--prompt-lookup-num-tokens",
        type=int,
        metavar="N",
        help="check up to N guessed tokens at once where the text repeats itself; 0 (default): off",
    )


def add_text(parser: argparse.ArgumentParser, name: str) -> None:
    """A text given on the command line, in a file, or on standard input."""
    parser.add_argument(
        "text", nargs="?", metavar=name, help=f"the {name.lower()}; - reads standard input"
    )
    parser.add_argument("-f", "--file", metavar="FILE", help=f"read the {name.lower()} from a file")


def text(arguments: argparse.Namespace, name: str) -> str:
    """The text that add_text's arguments name; one line end at a file's end is not part of it."""
    if (arguments.text is None) == (arguments.file is None):
        found = "both" if arguments.file is not None else "neither"
        raise OptionError(
            f"give the {name} as an argument, or - to read standard input, or -f FILE; "
            f"there is {found}"
        )
    path = arguments.file or ("-" if arguments.text == "-" else None)
    if path is None:
        return str(arguments.text)
    return output.read_text(path).removesuffix("\n").removesuffix("\r")


def generation_config(arguments: argparse.Namespace) -> GenerationConfig:
    """The GenerationConfig that add_generation's arguments ask for."""
    from dataclasses import fields

    from bitnet_cy.generation import GenerationConfig

    names = [field.name for field in fields(GenerationConfig)]
    given = {name: getattr(arguments, name) for name in names}
    return GenerationConfig(**{name: value for name, value in given.items() if value is not None})


def load_model(arguments: argparse.Namespace) -> Model:
    """The Model that add_model's arguments ask for."""
    from bitnet_cy.model import load

    return load(
        arguments.model,
        revision=arguments.revision,
        threads=arguments.threads,
        context_length=arguments.context_length,
        kv_dtype=arguments.kv_dtype,
        weights=arguments.weights,
        activation=arguments.activation,
        activation_dtype=arguments.activation_dtype,
        pre=arguments.pre,
        head=arguments.head,
    )
