"""`tokenizer.json`, the format of the `tokenizers` library."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bitnet_cy.errors import BitNetError, FormatError, UnsupportedError
from bitnet_cy.tokenizer import byte_level
from bitnet_cy.tokenizer.sentencepiece_model import byte_value
from bitnet_cy.tokenizer.settings import Settings
from bitnet_cy.tokenizer.special import SpecialToken
from bitnet_cy.tokenizer.tokenizer import Tokenizer, Vocabulary

if TYPE_CHECKING:
    import tokenizers

_START = re.compile(rb"\s*\{\s*\"")
_SPACE = "\u2581"


def looks_like(head: bytes) -> bool:
    """Whether a file that starts so is a JSON object."""
    return _START.match(head) is not None


def read(data: bytes, settings: Settings) -> Tokenizer:
    """A `tokenizer.json` with a BPE model, byte-level or of the SentencePiece kind."""
    import tokenizers

    with _library("is not a tokenizer.json the tokenizers library reads"):
        library = tokenizers.Tokenizer.from_buffer(data)
    if not isinstance(library.model, tokenizers.models.BPE):
        raise UnsupportedError(
            f"holds a {type(library.model).__name__} model; bitnet_cy reads BPE vocabularies"
        )
    library.model.dropout = None  # for training only: it makes ids random
    with _library("has a step the tokenizers library fails at"):
        merger = LibraryMerger(library)
    tokens = _tokens(library.get_vocab(with_added_tokens=True))
    special = _special(library)
    before, after = _added_ids(library)
    bos_id = _id(tokens, special, settings.bos, before)
    eos_id = _id(tokens, special, settings.eos, after)
    silent = {token.id for token in special.values() if token.control}
    silent |= {index for index, token in enumerate(tokens) if not token}
    return Tokenizer(
        Vocabulary(
            tokens=tokens,
            special=special,
            silent=frozenset(silent),
            bos_id=bos_id,
            eos_id=eos_id,
            end_ids=settings.end_ids,
            add_bos=bool(before) if settings.add_bos is None else settings.add_bos,
            add_eos=bool(after) if settings.add_eos is None else settings.add_eos,
            chat_template=settings.chat_template,
            byte_values=_byte_values(tokens) if library.model.byte_fallback else {},
        ),
        merger,
    )


@contextmanager
def _library(what: str) -> Iterator[None]:
    """Errors of the library as FormatError."""
    try:
        yield
    except BaseException as error:
        raise _refusal(error, what) from None


def _refusal(error: BaseException, what: str) -> BaseException:
    """What to raise instead of an error of the library, whose panics are no `Exception`."""
    if isinstance(error, (BitNetError, KeyboardInterrupt, SystemExit, GeneratorExit)):
        return error
    return FormatError(f"{what}: {str(error)[:200]}")


class LibraryMerger:
    """Normalizer, pre-tokenizer and model of a `tokenizer.json`, without its added tokens.

    Those are found by `SpecialSplitter`, because the library cannot be told per call, and per
    piece of text, which of them to see.
    """

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self._byte_level = _mentions(library, "ByteLevel")
        self._first = _bare(library)
        self._later = self._first
        scheme = getattr(library.pre_tokenizer, "prepend_scheme", None)
        if scheme == "first":
            step = copy.deepcopy(library.pre_tokenizer)
            step.prepend_scheme = "never"
            self._later = _bare(library)
            self._later.pre_tokenizer = step
        elif scheme is None and _mentions(library, "Metaspace", '"first"'):
            raise UnsupportedError(
                "has a Metaspace step inside a sequence; bitnet_cy reads it only on its own"
            )
        decoder = library.decoder
        self.prefixes_space = (
            not self._byte_level and decoder is not None and decoder.decode([f"{_SPACE}a"]) == "a"
        )

    def encode(self, text: str, is_first: bool) -> list[int]:
        library = self._first if is_first else self._later
        try:
            ids: list[int] = library.encode(text, add_special_tokens=False).ids
        except BaseException as error:
            raise _refusal(error, "the tokenizers library fails at this text") from None
        return ids

    def token_bytes(self, token: str) -> bytes:
        if self._byte_level:
            return byte_level.to_bytes(token)
        return token.replace(_SPACE, " ").encode("utf-8", "replace")


def _bare(library: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A second tokenizer around the same model; the vocabulary is not copied."""
    import tokenizers

    bare = tokenizers.Tokenizer(library.model)
    if library.normalizer is not None:
        bare.normalizer = library.normalizer
    if library.pre_tokenizer is not None:
        bare.pre_tokenizer = library.pre_tokenizer
    return bare


def _mentions(library: tokenizers.Tokenizer, *words: str) -> bool:
    """Whether the pre-tokenizer or the decoder is, or contains, a step of this kind."""
    states = [
        step.__getstate__().decode() for step in (library.pre_tokenizer, library.decoder) if step
    ]
    return any(all(word in state for word in words) for state in states)


def _tokens(vocabulary: Mapping[str, int]) -> list[str]:
    """Entries by id; gaps become empty entries."""
    count = max(vocabulary.values(), default=-1) + 1
    if not 0 < count <= 2 * len(vocabulary) + 65536:
        raise FormatError(f"numbers {len(vocabulary)} tokens up to {count}; the file is damaged")
    tokens = [""] * count
    for token, index in vocabulary.items():
        if tokens[index]:
            raise FormatError(
                f"gives id {index} to {tokens[index][:80]!r} and {token[:80]!r}; "
                "the vocabulary is damaged"
            )
        tokens[index] = token
    return tokens


def _special(library: tokenizers.Tokenizer) -> dict[str, SpecialToken]:
    special = {}
    for index, token in library.get_added_tokens_decoder().items():
        if token.single_word:
            raise UnsupportedError(
                f"finds the added token {token.content!r} as a whole word only, which bitnet_cy "
                "does not do; remove single_word from it"
            )
        special[token.content] = SpecialToken(index, token.special, token.lstrip, token.rstrip)
    return special


def _added_ids(library: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the post-processor puts before and after a text, at most one each."""
    if library.post_processor is None:
        return [], []
    state = json.loads(library.post_processor.__getstate__())
    steps = [step for step in state.get("processors", [state]) if step["type"] != "ByteLevel"]
    if not steps:
        return [], []
    if len(steps) > 1 or steps[0]["type"] != "TemplateProcessing":
        raise UnsupportedError(
            f"adds tokens by {' and '.join(step['type'] for step in steps)}; bitnet_cy knows "
            "TemplateProcessing"
        )
    before: list[int] = []
    after: list[int] = []
    side = before
    for piece in steps[0]["single"]:
        if "Sequence" in piece:
            side = after
        else:
            name = piece["SpecialToken"]["id"]
            side += steps[0]["special_tokens"].get(name, {"ids": []})["ids"]
    if len(before) > 1 or len(after) > 1:
        raise UnsupportedError(
            "puts several special tokens before or after a text; bitnet_cy adds a BOS and an EOS"
        )
    return before, after


def _id(
    tokens: list[str], special: Mapping[str, SpecialToken], name: str | None, ids: list[int]
) -> int | None:
    """The id of a named token, else the one the post-processor adds."""
    if name and name in special:
        return special[name].id
    if name and name in tokens:
        return tokens.index(name)
    if ids and not 0 <= ids[0] < len(tokens):
        raise FormatError(
            f"adds token id {ids[0]}, which is not in the vocabulary; the file is damaged"
        )
    return ids[0] if ids else None


def _byte_values(tokens: list[str]) -> dict[int, int]:
    return {
        index: byte_value(token)
        for index, token in enumerate(tokens)
        if re.fullmatch("<0x[0-9A-Fa-f]{2}>", token)
    }
