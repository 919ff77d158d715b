"""The command line: one module per verb, each with add_parser() and run()."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from bitnet_cy.cli import (
    bench,
    chat,
    convert,
    embed,
    generate,
    info,
    inspect,
    output,
    perplexity,
    pull,
    tokenize,
)
from bitnet_cy.cli import list as list_verb
from bitnet_cy.errors import BitNetError, OptionError

VERBS = (
    generate, chat, embed, pull, list_verb, tokenize, perplexity, bench, inspect, convert, info,
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line, as every other error does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        output.error(f"{message} (see {self.prog} --help)")
        self.exit(2)


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="bitnet-cy",
        description="Run ternary language models (BitNet b1.58) on the CPU.",
        epilog="Without -m the small model in the package is used.",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    return top


class _Version(argparse.Action):
    """Looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from bitnet_cy import __version__

        print(f"bitnet-cy {__version__}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code.

    0: done. 1: the error on stderr. 2: wrong usage. 130: Ctrl-C. 141: the reader went away.
    """
    output.prepare()
    try:
        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        output.discard()
        return 141
    except OptionError as error:
        return output.error(error, 2)
    except (BitNetError, OSError) as error:
        return output.error(error)
    except MemoryError:
        return output.error("out of memory; take a smaller model or a smaller --context-length")
    except ImportError as error:
        return output.error(f"{error}; install bitnet_cy again")
    return code
