"""Every seed of the fuzzers is read without complaint, and what they found is refused in words."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from fuzz import seeds, targets

from bitnet_cy.chat import sandbox
from bitnet_cy.errors import FormatError
from bitnet_cy.tokenizer import load, tiktoken_file
from bitnet_cy.tokenizer.bpe import ByteLevelMerger
from bitnet_cy.tokenizer.split_rules import RULES


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_seed_is_a_valid_input(name: str, tmp_path: Path) -> None:
    for seed in seeds.SEEDS[name]():
        targets.TARGETS[name](seed, tmp_path)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_seed_cut_anywhere_or_with_a_byte_changed_is_used_or_refused(
    name: str, tmp_path: Path
) -> None:
    for seed in seeds.SEEDS[name]():
        for place in range(1, len(seed), max(1, len(seed) // 40)):
            targets.check(name, seed[:place], tmp_path)
            targets.check(name, seed[:place] + b"\xff" + seed[place + 1 :], tmp_path)


def refused(name: str, data: bytes, folder: Path) -> bool:
    """Whether the input gets an error of the family; anything else is raised."""
    return not targets.check(name, data, folder)


# What fuzzing and reading found.


def test_a_key_that_appears_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    keys = ",".join(f'"{number}":0' for number in range(200_000))
    header = f'{{{keys},"199999":1}}'.encode()
    assert refused("safetensors", struct.pack("<Q", len(header)) + header, tmp_path)


@pytest.mark.parametrize("dtype", ["F32", "F64", "I64"])
def test_an_empty_tensor_of_absurd_shape_is_refused(dtype: str, tmp_path: Path) -> None:
    entry = {"dtype": dtype, "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}
    header = json.dumps({"a": entry}).encode()
    assert refused("safetensors", struct.pack("<Q", len(header)) + header, tmp_path)


def library_file(**changes: Any) -> dict[str, Any]:
    first = next(iter(seeds.tokenizer_jsons())).split(targets.NEXT_FILE)[0]
    found: dict[str, Any] = json.loads(first)
    model = changes.pop("model", {})
    return found | changes | {"model": found["model"] | model}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"continuing_subword_prefix": "#" * 200}},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 100}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////9hYmM="}},
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(.*)*(.*)*(.*)*[^\\s\\S]"},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        {"model": {"unk_token": "not there", "ignore_merges": False}},
    ],
    ids=["prefix", "replace", "precompiled", "regex", "unknown"],
)
def test_a_step_at_which_the_library_panics_is_an_error(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(library_file(**changes)))
    with pytest.raises(FormatError, match="tokenizers library"):
        load(path).encode("ab \u00e9\U0001f600 12345's " * 4, parse_special=True)


def test_a_merge_longer_than_every_token_is_an_error() -> None:
    merges = [("a", "b"), ("ab", "a")]
    with pytest.raises(FormatError, match="merge 1 needs the token 'aba'"):
        ByteLevelMerger({"a": 0, "b": 1, "ab": 2}, merges, RULES["llama-bpe"])


def test_dropout_of_a_checkpoint_in_training_is_off(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(library_file(model={"dropout": 1.0, "ignore_merges": False})))
    assert len(load(path).encode("ab", add_special_tokens=False)) == 1


def test_chat_templates_with_names_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    templates = [{"name": [], "template": "a"}, {"name": "default", "template": "b"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(library_file()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert load(tmp_path).chat_template == "b"


def test_a_special_token_as_long_as_a_book_is_refused(tmp_path: Path) -> None:
    model = next(iter(seeds.sentencepiece_files())).split(targets.NEXT_FILE)[0]
    settings = {"added_tokens_decoder": {"264": {"content": "a" * 300_000, "special": True}}}
    assert refused("sentencepiece", model + targets.NEXT_FILE + json.dumps(settings).encode(),
                   tmp_path)  # fmt: skip


def ranks(tokens: list[bytes]) -> bytes:
    lines = [base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens)]
    return b"".join(lines)


def test_a_rank_of_a_long_token_is_refused(tmp_path: Path) -> None:
    assert refused("tiktoken", ranks([b"a", b"a" * 300_000]), tmp_path)


def test_ranks_with_millions_of_merges_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiktoken_file, "_MOST_MERGES", 1000)
    tokens = [bytes([letter]) * length for letter in b"abc" for length in range(1, 32)]
    assert refused("tiktoken", ranks(tokens), tmp_path)


def test_rounding_to_millions_of_digits_takes_no_time() -> None:
    assert sandbox.render("{{ 1.5 | round(30000000) }}", {}) == "1.5"
    assert sandbox.render("{% set n = -30000000 %}{{ 1.5 | round(n, 'floor') }}", {}) == "0.0"


@pytest.mark.parametrize(
    "source",
    [
        "".join(f"{{% set a{number} = 'x' * 4000000 %}}" for number in range(100)),
        "{% set s = 'x ' * 1000000 %}"
        + "".join(f"{{% set a{number} = s.split(' ') %}}" for number in range(100)),
        "{% set s = [0] * 4000000 %}"
        + "".join(f"{{% set a{number} = s[1:] %}}" for number in range(100)),
        "{% set s = 'x' * 4000000 %}"
        + "".join(f"{{% set a{number} = s | upper %}}" for number in range(100)),
        "{% macro m(n) %}{% set x = 'y' * 4000000 %}{{ m(n - 1) if n else '' }}{% endmacro %}"
        "{{ m(90) }}",
        "{{ strftime_now('%999999Y' * 400000) }}",
    ],
    ids=["texts", "lists", "slices", "filters", "macros", "pattern"],
)
def test_a_template_cannot_take_much_time_or_memory(source: str, tmp_path: Path) -> None:
    assert refused("template", source.encode(), tmp_path)
