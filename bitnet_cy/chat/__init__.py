"""A conversation as the prompt its model was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from bitnet_cy.chat.templates import choose
from bitnet_cy.errors import OptionError

if TYPE_CHECKING:
    from bitnet_cy.tokenizer import Tokenizer

__all__ = ["ROLES", "encode", "render", "stop_ids"]

ROLES = ("system", "user", "assistant", "developer", "tool")
_PRIVATE_USE = range(0xF0000, 0xFFFFE)


def render(
    messages: Sequence[Mapping[str, str]],
    tokenizer: Tokenizer,
    architecture: str,
    add_generation_prompt: bool = True,
) -> str:
    """The prompt as text, by the model's chat template.

    messages: each with a `role` (one of ROLES) and a `content`, both str. Raises OptionError for
    other messages or if the template refuses them, UnsupportedError if the model cannot chat,
    FormatError if its template does not work.
    """
    source = choose(tokenizer, architecture)
    return _render(source, _checked(messages), tokenizer, add_generation_prompt)


def encode(
    messages: Sequence[Mapping[str, str]],
    tokenizer: Tokenizer,
    architecture: str,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The prompt as token ids; errors as in `render`.

    Special tokens come from the template only: where a message spells one, it is text. BOS is
    there once, whether or not the template writes it.
    """
    source = choose(tokenizer, architecture)
    checked = _checked(messages)
    guard = _Guard(tokenizer.special_tokens, [source, *(m["content"] for m in checked)])
    guarded = [message | {"content": guard.hide(message["content"])} for message in checked]
    text = _render(source, guarded, tokenizer, add_generation_prompt)
    pieces = [
        guard.show(piece) if isinstance(piece, str) else piece
        for piece in tokenizer.split(text, parse_special=True)
    ]
    ids = tokenizer.encode_pieces(pieces)
    if tokenizer.add_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
        ids.insert(0, tokenizer.bos_id)
    return ids


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end the assistant's turn."""
    return tokenizer.stop_ids


def _render(
    source: str, messages: list[dict[str, str]], tokenizer: Tokenizer, add_generation_prompt: bool
) -> str:
    from bitnet_cy.chat import sandbox

    return sandbox.render(
        source,
        {
            "messages": messages,
            "add_generation_prompt": bool(add_generation_prompt),
            "bos_token": _name(tokenizer, tokenizer.bos_id),
            "eos_token": _name(tokenizer, tokenizer.eos_id),
        },
    )


def _name(tokenizer: Tokenizer, index: int | None) -> str:
    return "" if index is None else tokenizer.token_text(index)


def _checked(messages: Any) -> list[dict[str, str]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise OptionError(
            f"messages must be a list of dicts with role and content, not {type(messages).__name__}"
        )
    checked = [_message(index, message) for index, message in enumerate(messages)]
    if not checked:
        raise OptionError("messages is empty; give at least one message from the user")
    return checked


def _message(index: int, message: Any) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise OptionError(
            f"message {index} is {type(message).__name__}; a dict with role and content is expected"
        )
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise OptionError(f"message {index} has role {role!r}; roles are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise OptionError(
            f"the content of message {index} is {type(content).__name__}; it must be a str"
        )
    return {"role": role, "content": content}


class _Guard:
    """Hides special tokens in messages while the template runs.

    One character of every special token that a message spells, wholly or where it could be
    completed by what the template puts beside it, is replaced by a character that appears
    nowhere else; `show` puts it back into what turned out to be text.
    """

    def __init__(self, special: Iterable[str], texts: list[str]) -> None:
        self._special = sorted(special)
        used = set(chain.from_iterable(texts))
        self._free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
        self._hidden: dict[str, str] = {}

    def hide(self, text: str) -> str:
        for token in self._special:
            text = text.replace(token, self._stand_in(token[0]) + token[1:])
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        for token in self._special if start < end else ():
            for cut in range(1, len(token)):
                if text.startswith(token[cut:], start, end):
                    text = self._hide_at(text, start)
                if text.endswith(token[:cut], start, end):
                    text = self._hide_at(text, end - cut)
        return text

    def show(self, text: str) -> str:
        return text.translate({ord(hidden): shown for shown, hidden in self._hidden.items()})

    def _hide_at(self, text: str, place: int) -> str:
        return text[:place] + self._stand_in(text[place]) + text[place + 1 :]

    def _stand_in(self, character: str) -> str:
        if character not in self._hidden:
            self._hidden[character] = next(self._free)
        return self._hidden[character]
