"""Write a Hugging Face folder of a published shape with random weights.

    python tools/make_checkpoint.py --preset llama3-8b --form masters --out 8b

It has the names, types, sizes and scales of a real checkpoint but no vocabulary, so converting it
can be measured at full size without a download.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from presets import PRESETS, Shape
from random_weights import packed_bytes

from bitnet_cy.convert import shape as shapes
from bitnet_cy.convert.folder_target import write_tensors
from bitnet_cy.convert.space import require
from bitnet_cy.convert.tensors import slots
from bitnet_cy.errors import BitNetError, OptionError
from bitnet_cy.formats import floats
from bitnet_cy.formats.safetensors import TensorSource

FORMS = ("packed", "masters")
_POOL = 1 << 23


class RandomBytes:
    """Random data drawn once and then cut at random places, which is as fast as copying."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        spread = self._generator.standard_normal(_POOL, np.float32) * np.float32(0.02)
        self._floats = floats.encode("BF16", spread).view(np.uint16)
        self._codes = packed_bytes()[self._generator.integers(0, 1 << 16, _POOL, np.uint16)]

    def floats(self, count: int) -> Iterator[np.ndarray]:
        """`count` values of spread 0.02 as BF16."""
        return self._cut(self._floats, count)

    def codes(self, count: int) -> Iterator[np.ndarray]:
        """`count` bytes of four trits each."""
        return self._cut(self._codes, count)

    def _cut(self, pool: np.ndarray, count: int) -> Iterator[np.ndarray]:
        while count:
            piece = pool[int(self._generator.integers(_POOL // 2)) :][:count]
            yield piece
            count -= len(piece)


def make(
    preset: str,
    out: str | os.PathLike[str],
    form: str = "packed",
    *,
    seed: int = 0,
    shard_size: int = 5_000_000_000,
    **changes: Any,
) -> Path:
    """Write a folder, which must not exist, and give its path.

    form: "packed", or "masters" in BF16. `changes` replace fields of the preset's `Shape`.
    """
    if preset not in PRESETS or form not in FORMS:
        raise OptionError(f"preset {preset!r}, form {form!r}; known are {[*PRESETS]}, {FORMS}")
    shape, folder = PRESETS[preset], Path(out)
    values = config(Shape(**vars(shape) | changes), form)
    sources = list(tensors(values, form, RandomBytes(seed)))
    require(folder, sum(source.nbytes for source in sources))
    try:
        folder.mkdir()
    except FileExistsError:
        raise OptionError(f"{folder} already exists; choose another name") from None
    write_tensors(folder, sources, shard_size)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    return folder


def config(shape: Shape, form: str) -> dict[str, Any]:
    """The content of config.json, with the activation that the published model has."""
    is_relu2 = shape.architecture == "bitnet-b1.58"
    found = shapes.Shape(
        "bitnet" if shape.sub_norms else "llama", shape.name, shape.vocab_size, shape.hidden,
        shape.ffn, shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.context,
        shape.rope_base, shape.norm_eps, "relu2" if is_relu2 else "silu",
    )  # fmt: skip
    linear_class = "autobitlinear" if shape.sub_norms else "bitlinear"
    mode = "offline" if form == "packed" else "online"
    return shapes.to_config(found, shape.tied) | {
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": mode,
        }
    }  # fmt: skip


def tensors(values: dict[str, Any], form: str, random: RandomBytes) -> Iterator[TensorSource]:
    """Every tensor of the model whose config.json this is."""
    found, tied = shapes.from_config(values, "random"), values["tie_word_embeddings"]
    for slot in slots(found, tied):
        name = (
            slot.aliases[0] if slot.aliases[0].startswith("lm_head") else f"model.{slot.aliases[0]}"
        )
        count = int(np.prod(slot.shape))
        if slot.is_ternary and form == "packed":
            rows, cols = slot.shape
            data = random.codes(count // 4)
            yield TensorSource(name, (rows // 4, cols), "U8", lambda data=data: data)
            scale = floats.encode("BF16", np.array([0.025 if found.family == "bitnet" else 40.0]))
            yield TensorSource(f"{name}_scale", (1,), "BF16", scale)
        elif len(slot.shape) == 1:
            yield TensorSource(name, slot.shape, "BF16", floats.encode("BF16", np.ones(count)))
        else:
            data = random.floats(count)
            yield TensorSource(name, slot.shape, "BF16", lambda data=data: data)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", required=True, choices=list(PRESETS))
    parser.add_argument("--form", default="packed", choices=FORMS)
    parser.add_argument("--out", required=True, help="the folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        path = make(options.preset, options.out, options.form, seed=options.seed)
    except BitNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {sum(file.stat().st_size for file in path.iterdir()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
