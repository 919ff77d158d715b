"""SentencePiece's own files (`tokenizer.model`), as Llama 2 checkpoints carry them."""

from __future__ import annotations

from bitnet_cy.errors import FormatError
from bitnet_cy.tokenizer.sentencepiece_model import (
    BYTE,
    CONTROL,
    UNKNOWN,
    UNUSED,
    SentencePieceMerger,
    byte_value,
)
from bitnet_cy.tokenizer.settings import Settings
from bitnet_cy.tokenizer.special import SpecialToken
from bitnet_cy.tokenizer.tokenizer import Tokenizer, Vocabulary

_MOST_ADDED = 1 << 16


def read(data: bytes, settings: Settings) -> Tokenizer:
    """A serialized `ModelProto`, with the tokens a checkpoint adds to it.

    BOS is put in front unless the settings say otherwise, as Llama 2 wants it.
    """
    merger = SentencePieceMerger(data)
    tokens, kinds = merger.pieces(), merger.kinds()
    special = {
        token: SpecialToken(index)
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, UNKNOWN)
    }
    silent = {index for index, kind in enumerate(kinds) if kind in (CONTROL, UNKNOWN, UNUSED)}
    for text, token in settings.added.items():
        if token.id >= len(kinds):
            _append(tokens, text, token.id, len(kinds) + _MOST_ADDED)
            special[text] = token
    silent |= {token.id for token in special.values() if token.control}
    silent |= {index for index, token in enumerate(tokens) if not token}
    bos, eos = special.get(settings.bos or ""), special.get(settings.eos or "")
    return Tokenizer(
        Vocabulary(
            tokens=tokens,
            special=special,
            silent=frozenset(silent),
            bos_id=bos.id if bos else merger.bos_id(),
            eos_id=eos.id if eos else merger.eos_id(),
            end_ids=settings.end_ids,
            add_bos=settings.add_bos is not False,
            add_eos=settings.add_eos is True,
            chat_template=settings.chat_template,
            byte_values={
                index: byte_value(tokens[index]) for index, kind in enumerate(kinds) if kind == BYTE
            },
        ),
        merger,
    )


def _append(tokens: list[str], text: str, index: int, limit: int) -> None:
    """Put a token behind the others; gaps are filled with empty entries."""
    if index >= limit or (index < len(tokens) and tokens[index]):
        raise FormatError(
            f"added token {text[:80]!r} has id {index}, which is taken or out of range; "
            "the checkpoint's files do not belong together"
        )
    tokens += [""] * (index + 1 - len(tokens))
    tokens[index] = text
