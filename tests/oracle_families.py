"""Tiny random Qwen3 and Gemma 3 models of transformers, ternary, saved as checkpoints are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.bitnet import pack_weights

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 1, "tie_word_embeddings": True,
}  # fmt: skip
GEMMA: dict[str, Any] = {"sliding_window": 8, "query_pre_attn_scalar": 50}
_LINEARS = ("_proj.weight",)


def qwen3(**changes: Any) -> Any:
    return _random(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES | changes)))


def gemma3(**changes: Any) -> Any:
    sizes = SIZES | {"num_hidden_layers": 7} | GEMMA
    return _random(transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**sizes | changes)))


def _random(model: Any) -> Any:
    """Weights with which every part matters; those of norms are not what they start as."""
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        with torch.no_grad():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.3)
            elif name.endswith(_LINEARS):
                value.copy_(torch.randn_like(value) / value.shape[1] ** 0.5)
            else:
                value.copy_(torch.randn_like(value) * 0.05)
    return model.eval()


def make_ternary(model: Any, group: int = 0, everything: bool = False) -> Any:
    """Every matrix to trits times one float16 scale, or one for each `group` columns.

    everything: embedding and head, too.
    """
    for name, value in model.named_parameters():
        if name.endswith(_LINEARS) or (everything and value.ndim == 2):
            parts = value.data.reshape(len(value), -1, group) if group else value.data[None]
            scale = parts.abs().mean((-1,) if group else None, keepdim=True).half().float()
            value.data = ((parts / scale).round().clamp(-1, 1) * scale).reshape(value.shape)
    return model


def quantized(model: Any, folder: Path, quantization: dict[str, Any], masters: bool) -> Any:
    """The model as a BitNet checkpoint with norms inside its linear layers, and opened so."""
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    rng = torch.Generator().manual_seed(1)
    for name in [name for name in tensors if name.endswith(_LINEARS)]:
        value, layer = tensors[name], name.removesuffix(".weight")
        tensors[f"{layer}.rms_norm.weight"] = 1 + 0.3 * torch.randn(value.shape[1], generator=rng)
        if not masters:
            scale = 1 / value.abs().mean()
            trits = (value * scale).round().clamp(-1, 1)
            tensors[name] = pack_weights(trits)
            tensors[f"{layer}.weight_scale"] = scale.reshape(1)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization | {"use_rms_norm": True, "rms_norm_eps": 1e-6}
    (folder / "config.json").write_text(json.dumps(config))
    return (
        type(model)
        .from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        )
        .eval()
    )


def logits(model: Any, ids: Sequence[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0].numpy()


def hidden(model: Any, ids: Sequence[int]) -> np.ndarray:
    """What the head is given."""
    with torch.no_grad():
        return model.model(torch.tensor([list(ids)])).last_hidden_state[0].numpy()
