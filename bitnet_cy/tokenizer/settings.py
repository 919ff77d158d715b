"""What the small files beside a Hugging Face vocabulary say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnet_cy.errors import FormatError
from bitnet_cy.tokenizer.special import SpecialToken

_LARGEST = 1 << 26


@dataclass(frozen=True)
class Settings:
    """Names and switches from `tokenizer_config.json` and its neighbours; None = not said.

    bos, eos: texts of tokens. end_ids: ids that end a generation. added: tokens that
    the vocabulary file itself may lack, by text.
    """

    bos: str | None = None
    eos: str | None = None
    add_bos: bool | None = None
    add_eos: bool | None = None
    chat_template: str | None = None
    end_ids: frozenset[int] = frozenset()
    added: Mapping[str, SpecialToken] = field(default_factory=dict)

    @classmethod
    def beside(cls, folder: Path) -> Settings:
        """Read a checkpoint folder. Raises FormatError for files that are not what they claim."""
        config = _object(folder / "tokenizer_config.json")
        names = _object(folder / "special_tokens_map.json") | config
        template = _template(config)
        jinja = folder / "chat_template.jinja"
        if jinja.is_file():
            template = _text(jinja)
        return cls(
            bos=_token(names.get("bos_token")),
            eos=_token(names.get("eos_token")),
            add_bos=_flag(config.get("add_bos_token")),
            add_eos=_flag(config.get("add_eos_token")),
            chat_template=template,
            end_ids=_ids(_object(folder / "generation_config.json").get("eos_token_id")),
            added=_added(config, _object(folder / "added_tokens.json")),
        )


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise FormatError(f"{path.name} is larger than {_LARGEST} bytes; it is damaged")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FormatError(f"{path.name} is not UTF-8; it is damaged") from None


def _object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path.name} holds no JSON object; it is damaged")
    return value


def _token(value: Any) -> str | None:
    """A token is written as its text, or as an object with a `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _ids(value: Any) -> frozenset[int]:
    values = value if isinstance(value, list) else [value]
    return frozenset(number for number in values if type(number) is int)


def _template(config: Mapping[str, Any]) -> str | None:
    """`chat_template` is one template, or a list of named ones of which one is the default."""
    value = config.get("chat_template")
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict)]
        value = next((e.get("template") for e in named if e.get("name") == "default"), None)
    return value if isinstance(value, str) else None


def _added(config: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, SpecialToken]:
    added = {
        text: SpecialToken(number, control=False)
        for text, number in extra.items()
        if type(number) is int
    }
    decoder = config.get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        text = _token(entry)
        if text and key.isdecimal():
            added[text] = SpecialToken(
                int(key),
                control=entry.get("special") is True,
                strip_left=entry.get("lstrip") is True,
                strip_right=entry.get("rstrip") is True,
            )
    return added
