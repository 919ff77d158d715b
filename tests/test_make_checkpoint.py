"""Checkpoints with random weights: the shape of the published ones, and they convert."""

from __future__ import annotations

import json
import math
from pathlib import Path

import make_checkpoint
import pytest
from presets import PRESETS

from bitnet_cy.convert import convert
from bitnet_cy.convert.shape import from_config
from bitnet_cy.convert.tensors import slots
from bitnet_cy.errors import OptionError

SMALL = {"layers": 1, "hidden": 256, "ffn": 512, "vocab_size": 320}


@pytest.mark.parametrize("preset", ["bitnet-2b-4t", "bitnet-large", "llama3-8b"])
@pytest.mark.parametrize("form", ["packed", "masters"])
def test_a_random_checkpoint_converts(preset: str, form: str, tmp_path: Path) -> None:
    heads = {"heads": 4, "kv_heads": 2, "head_dim": 64}
    path = make_checkpoint.make(preset, tmp_path / "hf", form, shard_size=300_000, **SMALL, **heads)
    assert len(list(path.glob("*.safetensors"))) > 1
    report = convert(path, tmp_path / "out.gguf", with_vocabulary=False)
    down = next(row for row in report.rows if row.part == "ffn_down")
    assert down.source == ("packed uint8" if form == "packed" else "BF16")
    counts = (down.minus, down.zero, down.plus)
    assert sum(counts) == 256 * 512
    assert min(counts) > 0.2 * sum(counts)


def test_sizes_are_those_of_the_published_model(tmp_path: Path) -> None:
    config = make_checkpoint.config(PRESETS["llama3-8b"], "masters")
    count = sum(math.prod(slot.shape) for slot in slots(from_config(config, ""), tied=False))
    assert count == 8_030_261_248


def test_one_seed_gives_the_same_checkpoint_and_another_does_not(tmp_path: Path) -> None:
    written = []
    for number, seed in enumerate((0, 0, 1)):
        path = make_checkpoint.make("tiny", tmp_path / str(number), seed=seed)
        written.append((path / "model.safetensors").read_bytes())
        assert json.loads((path / "config.json").read_text())["hidden_size"] == 256
    assert written[0] == written[1] != written[2]


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    for preset, out, form in (("x", "a", "packed"), ("tiny", "a", "x"), ("tiny", ".", "packed")):
        with pytest.raises(OptionError):
            make_checkpoint.make(preset, tmp_path / out, form)
    assert make_checkpoint.main(["--preset", "tiny", "--out", str(tmp_path)]) == 1
