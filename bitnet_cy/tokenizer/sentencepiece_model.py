"""Vocabularies of the SentencePiece kind, such as Llama 2's, through `sentencepiece`."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from bitnet_cy.errors import FormatError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_SPACE = "\u2581"


class SentencePieceMerger:
    """Merges the best-scored pair first, anywhere in the text, with bytes as the last resort."""

    def __init__(self, model: bytes) -> None:
        """model: a serialized `ModelProto`. Raises FormatError if it is not a valid one."""
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            self.prefixes_space = str(self._processor.normalize("a")).startswith(_SPACE)
        except (RuntimeError, TypeError, ValueError, UnicodeDecodeError) as error:
            raise FormatError(f"the SentencePiece vocabulary is damaged: {error}") from None

    def encode(self, text: str, is_first: bool) -> list[int]:
        """Every piece gets its space in front, as llama.cpp does, also behind a special token."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def token_bytes(self, token: str) -> bytes:
        return token.replace(_SPACE, " ").encode("utf-8", "replace")

    def pieces(self) -> list[str]:
        """All vocabulary entries."""
        names: list[str] = self._processor.id_to_piece(list(range(len(self._processor))))
        return names

    def kinds(self) -> list[int]:
        """The type of every entry, numbered as in GGUF; user-defined ones count as normal."""
        processor = self._processor
        return [
            CONTROL
            if processor.is_control(index)
            else UNKNOWN
            if processor.is_unknown(index)
            else UNUSED
            if processor.is_unused(index)
            else BYTE
            if processor.is_byte(index)
            else NORMAL
            for index in range(len(processor))
        ]

    def bos_id(self) -> int | None:
        return _present(self._processor.bos_id())

    def eos_id(self) -> int | None:
        return _present(self._processor.eos_id())


def byte_value(token: str) -> int:
    """The value of a byte token, written <0x0A>."""
    match = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token)
    if match:
        return int(match.group(1), 16)
    raise FormatError(f"byte token {token[:80]!r} is not of the form <0x0A>; the file is damaged")


def _present(index: int) -> int | None:
    return index if index >= 0 else None


def build_model(
    tokens: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    unknown: int | None,
    prefix_space: bool,
) -> bytes:
    """The `ModelProto` (sentencepiece_model.proto) of a vocabulary whose parts are given.

    types: as in GGUF and SentencePiece, 1 normal, 2 unknown, 3 control, 4 user-defined,
    5 unused, 6 byte; exactly one entry stays unknown. Text is taken as it is, except that spaces
    are escaped and, with `prefix_space`, one is put in front.
    """
    if unknown is None:
        if UNKNOWN not in types:
            raise FormatError("the vocabulary has no unknown token; the file is damaged")
        unknown = list(types).index(UNKNOWN)
    parts = []
    for index, (token, score, kind) in enumerate(zip(tokens, scores, types, strict=True)):
        if index == unknown:
            kind = UNKNOWN
        elif kind == UNKNOWN:
            kind = CONTROL
        elif not token:
            token, kind = f"<empty {index}>", UNUSED
        piece = _field(1, token.encode("utf-8")) + struct.pack("<Bf", 0x15, score)
        parts.append(_field(1, piece + _number(3, kind or NORMAL)))
    has_bytes = BYTE in types
    parts.append(_field(2, _number(3, 2) + _number(35, has_bytes) + _number(40, unknown)))
    spec = _number(3, prefix_space) + _number(4, 0) + _number(5, 1)
    parts.append(_field(3, _field(1, b"identity") + spec))
    return b"".join(parts)


def _number(field: int, value: int) -> bytes:
    """A protocol-buffer field of varint type."""
    return _varint(field << 3) + _varint(int(value))


def _field(field: int, value: bytes) -> bytes:
    """A protocol-buffer field of bytes, string or message type."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
