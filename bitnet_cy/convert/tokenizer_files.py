"""The vocabulary of a Model as the files of a Hugging Face folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bitnet_cy.convert.model import Model
from bitnet_cy.convert.vocabulary_files import CONTROL, USER_DEFINED
from bitnet_cy.errors import UnsupportedError
from bitnet_cy.formats.metadata import Typed
from bitnet_cy.tokenizer import Tokenizer, split_rules
from bitnet_cy.tokenizer.bpe import read_merges
from bitnet_cy.tokenizer.sentencepiece_model import build_model

_COPIED = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
_PREFIX = "tokenizer.ggml."


def write(model: Model, folder: Path) -> None:
    """Copy the files of a checkpoint, or make them from the keys of a GGUF file."""
    if model.path.is_dir():
        for name in _COPIED:
            if (model.path / name).is_file():
                shutil.copyfile(model.path / name, folder / name)
    elif f"{_PREFIX}model" in model.keys:
        if model.tokenizer is None:
            raise UnsupportedError(model.notes[-1])
        keys = {key: _plain(value) for key, value in model.keys.items()}
        if keys[f"{_PREFIX}model"] == "gpt2":
            _write_byte_level(keys, model.tokenizer, folder / "tokenizer.json")
        else:
            _write_sentencepiece(keys, folder / "tokenizer.model")
        _write_settings(keys, model.tokenizer, folder)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Typed) else value


def _write_byte_level(keys: dict[str, Any], tokenizer: Tokenizer, path: Path) -> None:
    import tokenizers
    from tokenizers import decoders, models, processors

    tokens, rule = keys[f"{_PREFIX}tokens"], split_rules.RULES[tokenizer.pre]
    library = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=read_merges(keys[f"{_PREFIX}merges"]),
            ignore_merges=rule.ignore_merges,
        )
    )
    normalizer = rule.normalizer()
    if normalizer is not None:
        library.normalizer = normalizer
    library.pre_tokenizer = rule.build()
    library.decoder = decoders.ByteLevel()
    types = keys.get(f"{_PREFIX}token_type")
    for index, token in enumerate(tokens):
        is_control = token in tokenizer.special_tokens
        if is_control or (types is not None and types[index] in (CONTROL, USER_DEFINED)):
            added = tokenizers.AddedToken(token, special=is_control, normalized=False)
            library.add_special_tokens([added]) if is_control else library.add_tokens([added])
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        bos = tokens[tokenizer.bos_id]
        library.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_id)]
        )
    library.save(str(path))


def _write_sentencepiece(keys: dict[str, Any], path: Path) -> None:
    path.write_bytes(
        build_model(
            keys[f"{_PREFIX}tokens"],
            keys[f"{_PREFIX}scores"].tolist(),
            keys[f"{_PREFIX}token_type"].tolist(),
            keys.get(f"{_PREFIX}unknown_token_id"),
            keys.get(f"{_PREFIX}add_space_prefix", True),
        )
    )


def _write_settings(keys: dict[str, Any], tokenizer: Tokenizer, folder: Path) -> None:
    is_byte_level = keys[f"{_PREFIX}model"] == "gpt2"
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast" if is_byte_level else "LlamaTokenizer",
        "bos_token": None if tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id),
        "eos_token": None if tokenizer.eos_id is None else tokenizer.token_text(tokenizer.eos_id),
        "add_bos_token": tokenizer.add_bos,
        "add_eos_token": tokenizer.add_eos,
        "chat_template": keys.get("tokenizer.chat_template"),
    }
    ends = [keys.get(f"{_PREFIX}{name}_token_id") for name in ("eos", "eot", "eom")]
    generation = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)),
    }
    for name, values in (
        ("tokenizer_config.json", settings),
        ("generation_config.json", generation),
    ):
        kept = {key: value for key, value in values.items() if value not in (None, [])}
        text = json.dumps(kept, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", "utf-8")
