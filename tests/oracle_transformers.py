"""Hugging Face checkpoints of tiny models, and transformers running them in float32.

transformers compiles some functions of its BitNet layers with torch.compile. Here they run as
the plain Python they are: the compiler would take longer than all the tests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracle_models import Weights
from safetensors.torch import save_file
from transformers import BitNetConfig, BitNetForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitnet import ActQuant, pack_weights

NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm", "token_embd": "model.embed_tokens",
    "output_norm": "model.norm", "output": "lm_head",
}  # fmt: skip

#: quantization_config of the published checkpoints: packed trits times weight_scale
#: (BitNet-b1.58-2B-4T), trits divided by it (Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E), and
#: master weights that are quantized at every step.
AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
BITLINEAR = {"quant_method": "bitnet"}
ONLINE = AUTO | {"quantization_mode": "online"}


def load(folder: Path, weights: Weights, quantization: dict[str, str]) -> Any:
    """Write a checkpoint of the weights and open it through transformers' BitNet quantizer."""
    folder.mkdir()
    is_bitnet = weights.shape.sub_norms
    config = _config(weights) | {
        "architectures": ["BitNetForCausalLM" if is_bitnet else "LlamaForCausalLM"],
        "quantization_config": quantization,
    }
    kind = BitNetConfig if is_bitnet else LlamaConfig
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind.model_type}))
    tensors = {name: t.contiguous() for name, t in _tensors(weights, quantization).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found: Any = BitNetForCausalLM if is_bitnet else LlamaForCausalLM
    return found.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


def _config(weights: Weights) -> dict[str, Any]:
    model = weights.shape
    return {
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": weights.activation,
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_base,
        "tie_word_embeddings": model.tied,
        "bos_token_id": model.bos,
        "eos_token_id": model.eos,
        "pad_token_id": model.eos,
    }


def _tensors(weights: Weights, quantization: dict[str, str]) -> dict[str, torch.Tensor]:
    found = {
        f"{checkpoint_name(name)}.weight": torch.from_numpy(values)
        for name, values in (weights.vectors | weights.matrices).items()
    }
    for name, linear in weights.linears.items():
        layer = checkpoint_name(name)
        if quantization == ONLINE:
            found[f"{layer}.weight"] = torch.from_numpy(linear.masters)
            continue
        scale = linear.scale if quantization == AUTO else np.float32(1) / linear.scale
        found[f"{layer}.weight"] = pack_weights(torch.from_numpy(linear.trits.copy()))
        found[f"{layer}.weight_scale"] = torch.tensor([scale])
    return found


def checkpoint_name(name: str) -> str:
    """`blk.0.attn_q` to `model.layers.0.self_attn.q_proj`."""
    if not name.startswith("blk."):
        return NAMES[name]
    _, index, part = name.split(".")
    return f"model.layers.{index}.{NAMES[part]}"


def logits(model: Any, ids: Sequence[int]) -> np.ndarray:
    """float32 [T, vocab]."""
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0].numpy()


def generate(model: Any, ids: Sequence[int], count: int) -> tuple[list[int], np.ndarray]:
    """Greedy tokens, and the logits [count, vocab] they were chosen by."""
    found = model.generate(
        torch.tensor([list(ids)]), do_sample=False, max_new_tokens=count, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    return found.sequences[0, len(ids) :].tolist(), torch.cat(found.logits).numpy()


def quantize(layer: Any, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A layer's quantization of x [T, K]: int8 [T, K], and the factors float32 [T, 1]."""
    if hasattr(layer, "activation_quant"):
        q, scale = layer.activation_quant(x)
        return q.numpy(), scale.numpy()
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return (ActQuant.apply(x) * scale).round().numpy().astype(np.int8), scale.numpy()


def inputs_and_outputs(
    model: Any, ids: Sequence[int]
) -> dict[str, tuple[Any, torch.Tensor, torch.Tensor]]:
    """Each BitNet layer by name, with its float32 input [T, K] and output [T, M]."""
    found: dict[str, tuple[Any, torch.Tensor, torch.Tensor]] = {}

    def watch(name: str, layer: Any) -> Any:
        def keep(layer: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            found[name] = layer, inputs[0][0], output[0]

        return layer.register_forward_hook(keep)

    layers = [item for item in model.named_modules() if hasattr(item[1], "rms_norm")]
    hooks = [watch(name, layer) for name, layer in layers]
    logits(model, ids)
    for hook in hooks:
        hook.remove()
    return found
