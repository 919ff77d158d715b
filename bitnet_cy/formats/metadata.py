"""The key-value part of a GGUF file (GGUF v2 and v3): reading it lazily, writing it."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitnet_cy.errors import BitNetError, FormatError, OptionError

DEFAULT_ALIGNMENT = 32
MAX_STRINGS = 1 << 22
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: ("u8", "<B"), 1: ("i8", "<b"), 2: ("u16", "<H"), 3: ("i16", "<h"), 4: ("u32", "<I"),
    5: ("i32", "<i"), 6: ("f32", "<f"), 7: ("bool", "<B"), 10: ("u64", "<Q"), 11: ("i64", "<q"),
    12: ("f64", "<d"),
}  # fmt: skip
_TYPE_NAMES = {number: name for number, (name, _) in _SCALARS.items()} | {_STRING: "str"}
_TYPE_IDS = {name: number for number, name in _TYPE_NAMES.items()}
_DTYPES = {
    name: np.dtype(code.replace("<B", "<u1").replace("<b", "<i1"))
    for name, code in _SCALARS.values()
}


@dataclass(frozen=True)
class Typed:
    """A value with its stored type: `u8 … i64`, `f32`, `f64`, `bool` or `str`.

    A list or an array stands for an array of that element type.
    """

    value: Any
    type: str


def is_alignment(value: Any) -> bool:
    """Whether `value` may stand under `general.alignment`: a power of two from 8 to 65536."""
    return type(value) is int and 8 <= value <= 1 << 16 and value & (value - 1) == 0


class Cursor:
    """Reads little-endian fields from a buffer and refuses to read past its end."""

    def __init__(self, data: Any, size: int) -> None:
        self.data, self.size, self.position = data, size, 0

    def take(self, count: int, what: str) -> int:
        """Move past `count` bytes and give the position before them."""
        start = self.position
        if count > self.size - start:
            raise FormatError(
                f"file ends inside {what}: {count} bytes are needed at offset {start}, "
                f"the file has {self.size}; download it again"
            )
        self.position = start + count
        return start

    def scalar(self, code: str, what: str) -> Any:
        """One value of struct format `code`."""
        return struct.unpack_from(code, self.data, self.take(struct.calcsize(code), what))[0]

    def string(self, what: str, longest: int) -> str:
        """A length-prefixed UTF-8 string of at most `longest` bytes."""
        length = self.scalar("<Q", what)
        if length > longest:
            raise FormatError(f"{what} claims {length} bytes; at most {longest} are possible")
        start = self.take(length, what)
        return _decode(self.data[start : start + length], what)


def _decode(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{what} is not UTF-8; the file is damaged") from None


@dataclass(frozen=True)
class _Array:
    """A validated array that still lies in the file."""

    type: str
    count: int
    start: int
    ends: np.ndarray | None  # string arrays: where each string ends, int64 [count]

    def load(self, data: Any, key: str) -> list[str] | np.ndarray:
        if self.ends is None:
            dtype = _DTYPES[self.type]
            raw = data[self.start : self.start + self.count * dtype.itemsize]
            values = np.frombuffer(raw, dtype)
            return values != 0 if self.type == "bool" else values
        try:
            return _split_strings(data, self.start, self.ends)
        except UnicodeDecodeError:
            raise FormatError(f"array {key} holds text that is not UTF-8") from None


def _split_strings(data: Any, start: int, ends: np.ndarray) -> list[str]:
    """The strings that end at `ends`. Decoding all at once beats one by one several times."""
    if not ends.size:
        return []
    blob = np.frombuffer(data[start : int(ends[-1])], np.uint8).copy()
    stops = ends - start
    prefixes = np.concatenate([[0], stops[:-1]])
    blob[prefixes] = 0
    keep = np.ones(blob.size, np.bool_)
    for byte in range(1, 8):
        keep[prefixes + byte] = False
    strings = str(blob[keep].tobytes(), "utf-8").split("\0")[1:]
    if len(strings) == ends.size:
        return strings
    raw = blob.tobytes()  # some string holds a zero byte
    bounds = zip(prefixes.tolist(), stops.tolist(), strict=True)
    return [str(raw[first + 8 : last], "utf-8") for first, last in bounds]


class Metadata(Mapping[str, Any]):
    """Keys and values of a GGUF file.

    Scalars are Python values, arrays of strings `list[str]`, other arrays read-only NumPy arrays.
    Arrays are decoded when first asked for.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._types: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        if isinstance(value, _Array):
            if self._data.closed:
                raise BitNetError(f"metadata {key} was not read before the file was closed")
            value = self._values[key] = value.load(self._data, key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def typed(self, key: str) -> Typed:
        """The value with its stored type, so that it can be written again unchanged."""
        return Typed(self[key], self._types[key])

    def length(self, key: str) -> int:
        """Number of elements of the array `key`, without decoding it."""
        value = self._values[key]
        return value.count if isinstance(value, _Array) else len(value)

    def load_all(self) -> None:
        """Decode every array, so that the file may be closed."""
        for key in self:
            self[key]

    def parse(self, cursor: Cursor, count: int) -> None:
        """Read `count` pairs at the cursor."""
        for index in range(count):
            key = cursor.string(f"metadata key {index}", 65535)
            if not key:
                raise FormatError(f"metadata key {index} is empty; the file is damaged")
            if key in self._values:
                raise FormatError(f"metadata key {key} appears twice; the file is damaged")
            self._types[key], self._values[key] = _read_value(cursor, f"metadata value {key}")


def _read_value(cursor: Cursor, what: str) -> tuple[str, Any]:
    number = cursor.scalar("<I", what)
    if number == _STRING:
        return "str", cursor.string(what, cursor.size)
    if number == _ARRAY:
        array = _read_array(cursor, what)
        return array.type, array
    if number not in _SCALARS:
        raise FormatError(f"{what} has type {number}; GGUF v3 defines 0 to 12")
    name, code = _SCALARS[number]
    value = cursor.scalar(code, what)
    return name, bool(value) if name == "bool" else value


def _read_array(cursor: Cursor, what: str) -> _Array:
    number = cursor.scalar("<I", what)
    count = cursor.scalar("<Q", what)
    if number == _ARRAY:
        raise FormatError(f"{what} is an array of arrays; only flat arrays are supported")
    if number not in _TYPE_NAMES:
        raise FormatError(f"{what} has elements of type {number}; GGUF v3 defines 0 to 12")
    name = _TYPE_NAMES[number]
    smallest = 8 if number == _STRING else _DTYPES[name].itemsize
    room = (cursor.size - cursor.position) // smallest
    if count > room or (number == _STRING and count > MAX_STRINGS):
        raise FormatError(f"{what} claims {count} elements; the file has room for {room}")
    start = cursor.position
    if number == _STRING:
        return _Array(name, count, start, _walk_strings(cursor, count, what))
    cursor.take(count * smallest, what)
    return _Array(name, count, start, None)


def _walk_strings(cursor: Cursor, count: int, what: str) -> np.ndarray:
    """Move past `count` strings; the end position of each, int64 [count]."""
    start = cursor.position
    ends = _guess_ends(cursor, count)
    if ends is None:
        ends = np.empty(count, np.int64)
        for index in range(count):
            cursor.take(cursor.scalar("<Q", what), what)
            ends[index] = cursor.position
    elif count:
        cursor.take(int(ends[-1]) - start, what)
    return ends


def _guess_ends(cursor: Cursor, count: int) -> np.ndarray | None:
    """Ends of `count` strings, or None if they are out of the ordinary.

    The lengths form a chain, and walking a vocabulary by it takes most of the time of opening a
    file. Text is short and has no zero bytes, so six of them after any two and before another
    mark a length; the chain through all marks is then checked at once.
    """
    window = np.frombuffer(cursor.data, np.uint8, offset=cursor.position)[: 24 * count + 4096]
    if not count or window.size < 16:
        return None
    zero = window == 0
    mark = ~zero[8:]
    for byte in range(2, 8):
        mark &= zero[byte : byte - 8]
    starts = np.flatnonzero(mark)[:count]
    if starts.size < count or starts[0] != 0:
        return None
    ends = starts + 8 + window[starts] + (window[starts + 1].astype(np.int64) << 8)
    if (ends[:-1] != starts[1:]).any():
        return None
    return ends + cursor.position


def encode_string(text: str) -> bytes:
    """A length-prefixed UTF-8 string."""
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def encode_pair(key: str, value: Any) -> bytes:
    """One key and value as GGUF stores them. Plain values get the types converters use:

    `int` u32, i32 if negative, u64 if large; `float` f32; arrays of `int` i32; NumPy arrays
    their own dtype.
    """
    typed = value if isinstance(value, Typed) else _infer(key, value)
    if typed.type not in _TYPE_IDS:
        raise OptionError(f"metadata type {typed.type!r}; known are {', '.join(_TYPE_IDS)}")
    head = encode_string(key)
    try:
        if isinstance(typed.value, (list, tuple, np.ndarray)):
            prefix = struct.pack("<IIQ", _ARRAY, _TYPE_IDS[typed.type], len(typed.value))
            return head + prefix + _encode_elements(typed.value, typed.type)
        return head + struct.pack("<I", _TYPE_IDS[typed.type]) + _encode_scalar(typed)
    except (struct.error, OverflowError, ValueError, TypeError, AttributeError) as error:
        raise OptionError(f"metadata {key} does not fit type {typed.type}: {error}") from None


def _encode_scalar(typed: Typed) -> bytes:
    if typed.type == "str":
        return encode_string(typed.value)
    return struct.pack(_SCALARS[_TYPE_IDS[typed.type]][1], typed.value)


def _encode_elements(values: Sequence[Any] | np.ndarray, name: str) -> bytes:
    if name == "str":
        return b"".join(map(encode_string, values))
    return np.asarray(values).astype(_DTYPES[name]).tobytes()


def _infer(key: str, value: Any) -> Typed:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        for name, dtype in _DTYPES.items():
            if name != "bool" and dtype == value.dtype:
                return Typed(value, name)
        if value.dtype == np.bool_:
            return Typed(value, "bool")
    elif isinstance(value, (list, tuple)) and value:
        inner = _infer(key, value[0]).type
        return Typed(value, "i32" if inner == "u32" else inner)
    elif isinstance(value, (bool, np.bool_)):
        return Typed(bool(value), "bool")
    elif isinstance(value, (int, np.integer)):
        number = int(value)
        if number < 0:
            return Typed(number, "i32" if number >= -(1 << 31) else "i64")
        return Typed(number, "u32" if number < 1 << 32 else "u64")
    elif isinstance(value, (float, np.floating)):
        return Typed(float(value), "f32")
    elif isinstance(value, str):
        return Typed(value, "str")
    raise OptionError(
        f"metadata {key} is {type(value).__name__}; wrap it in Typed(value, type) to say how it "
        "is stored"
    )
