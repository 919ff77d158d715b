"""bitnet-cy chat: talk with a model. /reset forgets the conversation, /exit or Ctrl-D ends it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from bitnet_cy.cli import options, output
from bitnet_cy.cli.generate import numbers
from bitnet_cy.errors import ContextError

if TYPE_CHECKING:
    from bitnet_cy.generation import Chunk, GenerationConfig
    from bitnet_cy.model import Model


def add_parser(verbs: options.Verbs) -> None:
    parser = verbs.add_parser("chat", help="talk with a model", description=__doc__)
    parser.add_argument("--system", metavar="TEXT", help="the system prompt")
    parser.add_argument("-v", "--verbose", action="store_true", help="print numbers to stderr")
    options.add_model(parser)
    options.add_generation(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    config = options.generation_config(arguments)
    model = options.load_model(arguments)
    if arguments.max_new_tokens is None:
        config = config.updated(max_new_tokens=model.context_length)  # the model ends its turn
    talk = Conversation(model, config, arguments.system, arguments.verbose)
    talk.check()
    while (line := _ask()) is not None and line.strip() != "/exit":
        if line.strip() == "/reset":
            talk.reset()
        elif line.strip():
            talk.answer(line)
    return 0


class Conversation:
    """The messages so far, and the model that answers them."""

    def __init__(
        self, model: Model, config: GenerationConfig, system: str | None, verbose: bool
    ) -> None:
        self._model, self._config, self._verbose = model, config, verbose
        self._opening = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Forget all but the system prompt."""
        self.messages = list(self._opening)

    def check(self) -> None:
        """Raise, before anything is typed, if the model cannot chat."""
        self._model.chat_stream([*self._opening, {"role": "user", "content": "?"}], self._config)

    def answer(self, line: str) -> None:
        """Print the reply to a line. Ctrl-C ends the reply; what was said of it is kept."""
        self.messages.append({"role": "user", "content": line})
        try:
            chunks = self._model.chat_stream(self.messages, self._config)
        except ContextError as error:
            self.messages.pop()
            output.error(f"{error}; or forget the conversation with /reset")
            return
        reply, notes = "", []
        try:
            for chunk in chunks:
                reply += chunk.text
                output.write(chunk.text)
            notes = self._notes(chunk)
        except KeyboardInterrupt:
            chunks.close()
        output.write("\n")
        self.messages.append({"role": "assistant", "content": reply})
        for note in notes:
            print(f"[{note}]", file=sys.stderr)

    def _notes(self, last: Chunk) -> list[str]:
        """What there is to say about a reply beside its text."""
        notes = [numbers(self._model, last)] if self._verbose else []
        if last.prompt_tokens + last.new_tokens > self._model.context_length:
            notes.append("the context is full: /reset forgets the conversation")
        return notes


def _ask() -> str | None:
    """The next line the user types, None at the end. Ctrl-C gives up the line, not the program."""
    interactive = sys.stdin.isatty()
    while True:
        try:
            if interactive:
                return input("> ")
            line = sys.stdin.readline()
            return line.removesuffix("\n") if line else None
        except EOFError:
            output.write("\n")
            return None
        except KeyboardInterrupt:
            if not interactive:
                raise
            output.write("\n(Ctrl-D or /exit ends the chat)\n")
