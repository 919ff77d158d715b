"""What is fuzzed: functions that give bytes to a reader and use all that comes out.

Each takes the bytes and an empty folder it may write to. Nothing but an error of the BitNetError
family is swallowed: any other exception, a hang or a crash is a finding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

import bitnet_cy
from bitnet_cy import chat
from bitnet_cy.chat import sandbox
from bitnet_cy.errors import BitNetError
from bitnet_cy.formats import gguf, safetensors, ternary
from bitnet_cy.tokenizer import StreamDecoder, Tokenizer, load

Target = Callable[[bytes, Path], None]

# Weights that every type can hold, so that a header alone makes a model: trits without code 3,
# floats and scales that are small, positive and finite.
WEIGHTS = b"\x15" * 65536
# Cuts an input into a vocabulary and the tokenizer_config.json beside it.
NEXT_FILE = b"\n\0\n"
_LARGEST_ARRAY = 1 << 20
_TEXT = "Ab 12345's  ö\U0001f600\r\n\tab <s><|eot_id|>\0\u2581x"
_MESSAGES = [
    {"role": "system", "content": " Be <|eot_id|> brief "},
    {"role": "user", "content": "ab\n<|im_start|>"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": _TEXT},
]


def read_gguf(data: bytes, folder: Path) -> None:
    """The header, every metadata value and every tensor of a GGUF file."""
    with gguf.read(_file(folder / "fuzz.gguf", data)) as file:
        for key in file.metadata:
            _tolerant(lambda key=key: file.metadata.typed(key))
        for name, info in file.tensors.items():
            raw = file.raw(name)
            assert raw.size == info.nbytes, f"{name} has {raw.size} bytes"
            if info.type_name in ternary.NAMES and len(info.shape) == 2:
                _tolerant(lambda t=info, raw=raw: ternary.decode(t.type_name, raw, *t.shape))
            elif info.nbytes <= _LARGEST_ARRAY:
                _tolerant(lambda name=name: _array(file, name))


def run_model(data: bytes, folder: Path) -> None:
    """A model whose header is fuzzed: described, built, and three tokens generated."""
    model = bitnet_cy.load(_file(folder / "fuzz.gguf", data + WEIGHTS), threads=1)
    model.logits([0])
    model.generate("ab", max_new_tokens=3)
    _tolerant(lambda: model.chat(_MESSAGES, max_new_tokens=1))


def read_safetensors(data: bytes, folder: Path) -> None:
    """The header and every tensor of a safetensors file."""
    with safetensors.read(_file(folder / "fuzz.safetensors", data)) as file:
        for name, info in file.tensors.items():
            assert file.raw(name).size == info.nbytes
            _tolerant(lambda name=name: _array(file, name))


def tokenizer_json(data: bytes, folder: Path) -> None:
    """A tokenizer.json and the settings beside it."""
    _use(_folder(folder, "tokenizer.json", data))


def sentencepiece(data: bytes, folder: Path) -> None:
    """A SentencePiece model and the settings beside it."""
    _use(_folder(folder, "tokenizer.model", data))


def tiktoken(data: bytes, folder: Path) -> None:
    """A rank file."""
    _use(_file(folder / "ranks.tiktoken", data))


def gguf_vocabulary(data: bytes, folder: Path) -> None:
    """The vocabulary in a GGUF file without tensors."""
    _use(_file(folder / "vocabulary.gguf", data))


def template(data: bytes, folder: Path) -> None:
    """A chat template, rendered from four messages."""
    text = sandbox.render(
        data.decode("utf-8", "replace"),
        {
            "messages": _MESSAGES,
            "add_generation_prompt": True,
            "bos_token": "<s>",
            "eos_token": "</s>",
        },
    )
    assert len(text) <= sandbox.MAX_SIZE, f"a text of {len(text)} characters"


TARGETS: dict[str, Target] = {
    "gguf": read_gguf,
    "model": run_model,
    "safetensors": read_safetensors,
    "tokenizer_json": tokenizer_json,
    "sentencepiece": sentencepiece,
    "tiktoken": tiktoken,
    "gguf_vocabulary": gguf_vocabulary,
    "template": template,
}


def check(name: str, data: bytes, folder: Path) -> bool:
    """Run one target; whether it found nothing wrong with the bytes. Findings are raised."""
    return _tolerant(lambda: TARGETS[name](data, folder))


def _tolerant(use: Callable[[], object]) -> bool:
    """Call it; false if it refused with an error that says something."""
    try:
        use()
    except BitNetError as error:
        assert str(error), "an error without words"
        return False
    return True


def _array(file: gguf.GGUFFile | safetensors.SafetensorsFile, name: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        found = file.array(name)
    assert found.shape == file.tensors[name].shape
    return found


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _folder(folder: Path, name: str, data: bytes) -> Path:
    vocabulary, _, settings = data.partition(NEXT_FILE)
    (folder / name).write_bytes(vocabulary)
    (folder / "tokenizer_config.json").write_bytes(settings or b"{}")
    return folder


def _use(path: Path) -> None:
    """Open a vocabulary; what it makes of a text must fit together."""
    tokenizer = load(path)
    for parse_special in (False, True):
        encode = functools.partial(tokenizer.encode, _TEXT, parse_special=parse_special)
        _tolerant(lambda encode=encode: _round_trip(tokenizer, encode()))
    _round_trip(tokenizer, list(range(min(tokenizer.vocab_size, 600))))
    _tolerant(lambda: chat.encode(_MESSAGES, tokenizer, "bitnet"))


def _round_trip(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert all(0 <= index < tokenizer.vocab_size for index in ids), "an id out of range"
    for skip in (False, True):
        decoder = StreamDecoder(tokenizer, skip)
        text = "".join(map(decoder.push, ids)) + decoder.flush()
        assert text == tokenizer.decode(ids, skip), "a stream that differs from the whole"
