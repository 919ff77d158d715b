"""The byte alphabet of GPT-2: every byte as one printable character (Radford et al., 2019)."""

from __future__ import annotations


def _alphabet() -> dict[int, str]:
    """Byte -> character: printable Latin-1 stands for itself, the rest from U+0100 upwards."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + index) for index, byte in enumerate(others)
    }


_TO_CHARACTER = _alphabet()
_TO_BYTE = {ord(character): byte for byte, character in _TO_CHARACTER.items()}


def to_text(raw: bytes) -> str:
    """Bytes as they are written in a byte-level vocabulary: b" a" -> "Ġa"."""
    return raw.decode("latin-1").translate(_TO_CHARACTER)


def to_bytes(token: str) -> bytes:
    """The bytes a vocabulary entry stands for; an entry outside the alphabet is plain text."""
    try:
        return bytes([_TO_BYTE[ord(character)] for character in token])
    except KeyError:
        return token.encode("utf-8", "replace")
