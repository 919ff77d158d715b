"""Byte-level BPE vocabulary of the tales, with the split rules GGUF files name `llama-bpe`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """A vocabulary of `size` entries: BOS, EOS, the 256 bytes, and merges learned from texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = with_rules(Tokenizer(models.BPE(ignore_merges=True)))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def with_rules(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, now splitting text as `llama-bpe` and decoding bytes."""
    from tokenizers import Regex, decoders, pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def load(path: Path) -> Tokenizer:
    """The vocabulary saved at path (tokenizer.json)."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def document(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of one whole tale, with BOS before and EOS after it."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return [tokenizer.token_to_id(BOS), *ids, tokenizer.token_to_id(EOS)]
