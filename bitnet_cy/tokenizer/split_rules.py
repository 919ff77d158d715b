"""Named rules that cut text into the words byte-pair merges stay within.

The names are the values of `tokenizer.ggml.pre` in GGUF files; the rules are those of the
checkpoints' own `tokenizer.json`, or llama.cpp's where the name is llama.cpp's invention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitnet_cy.errors import UnsupportedError

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

KEY = "tokenizer.ggml.pre"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class SplitRule:
    """How a vocabulary wants its text cut, and what llama.cpp does when the file does not say.

    ignore_merges: a word that is itself in the vocabulary is one token, whatever the merges say.
    add_bos: whether a BOS id is put in front if `tokenizer.ggml.add_bos_token` is missing.
    compose: whether text is brought to Unicode NFC first.
    """

    build: Callable[[], PreTokenizer]
    ignore_merges: bool = False
    add_bos: bool = False
    compose: bool = False

    def normalizer(self) -> Normalizer | None:
        if not self.compose:
            return None
        from tokenizers import normalizers

        return normalizers.NFC()


def _regex(pattern: str) -> Callable[[], PreTokenizer]:
    return lambda: _sequence(_split(pattern))


def _split(pattern: str) -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _sequence(*steps: PreTokenizer) -> PreTokenizer:
    from tokenizers import pre_tokenizers

    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*steps, last])


def _gpt2() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _falcon() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"),
            _gpt2(),
            pre_tokenizers.Digits(individual_digits=False),
            _split("[0-9][0-9][0-9]"),
        ]
    )


def _default() -> PreTokenizer:
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
    steps = [r"[\p{P}\$\+<=>\^~\|]+", gpt2, r"\p{N}+", r"[0-9][0-9][0-9]"]
    return _sequence(*map(_split, steps))


_LLAMA_BPE = SplitRule(_regex(LLAMA3), ignore_merges=True, add_bos=True)
RULES: dict[str, SplitRule] = {
    "llama-bpe": _LLAMA_BPE,
    "falcon3": SplitRule(_regex(LLAMA3), ignore_merges=True),
    "qwen2": SplitRule(_regex(_QWEN2), compose=True),
    "gpt-2": SplitRule(_gpt2),
    "olmo": SplitRule(_gpt2, compose=True),  # GPT-NeoX's, which TriLM has too
    "falcon": SplitRule(_falcon),
    "default": SplitRule(_default),
    "llama3": _LLAMA_BPE,
    "llama-v3": _LLAMA_BPE,
}

# Vocabularies whose files are known to lack the key, by a token that gives them away.
_KNOWN = {
    ("<|begin_of_text|>", 128000): "llama-bpe",
    ("<|endoftext|>", 151643): "qwen2",
    ("<|endoftext|>", 50256): "gpt-2",
}
_LLAMA3_SIZE = 128256


def choose(name: str | None, tokens: Sequence[str]) -> str:
    """The rule for a byte-level vocabulary whose file says `name`, or says nothing.

    The official BitNet-b1.58-2B-4T file and some others lack the key, and llama.cpp then cuts
    digits and punctuation differently from how the model was trained. A vocabulary of 128256
    tokens is Llama 3's; Qwen 2's and GPT-2's are known by their end-of-text token. Any other
    vocabulary without the key is refused. `default`, where the file says so, is the rule
    llama.cpp gives that name, unless the vocabulary is Llama 3's.
    """
    if name not in (None, "default"):
        return _checked(name)
    if len(tokens) == _LLAMA3_SIZE:
        return "llama-bpe"
    if name is not None:
        return name
    for (token, index), known in _KNOWN.items():
        if index < len(tokens) and tokens[index] == token:
            return known
    raise UnsupportedError(
        f"{KEY} is missing and the vocabulary of {len(tokens)} tokens is not one bitnet_cy "
        f"recognises; {_remedy()}"
    )


def _checked(name: object) -> str:
    if not isinstance(name, str) or name not in RULES:
        raise UnsupportedError(f"{KEY} is {name!r}, which bitnet_cy does not know; {_remedy()}")
    return name


def _remedy() -> str:
    return f"supported are {', '.join(RULES)}: pass the right one as pre="
