"""Hugging Face folders of tiny random models, in every form that ternary checkpoints have."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import oracle_models
import vocabularies
from oracle_models import Linear, Weights

from bitnet_cy.formats import floats, safetensors
from bitnet_cy.formats.safetensors import TensorSource
from bitnet_cy.tokenizer.split_rules import RULES

NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm", "token_embd": "model.embed_tokens",
    "output_norm": "model.norm", "output": "lm_head",
}  # fmt: skip
NAMES_1BITLLM = NAMES | {
    "attn_sub_norm": "self_attn.inner_attn_ln", "ffn_sub_norm": "mlp.ffn_layernorm",
}  # fmt: skip
VOCABULARY = 860
AUTO = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
BITLINEAR = {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}


@dataclass
class Folder:
    """What to write. form: "packed", "masters" or "ternary" (float, but -a, 0 and +a only)."""

    weights: Weights
    form: str
    quantization: dict[str, Any] | None
    dtype: str = "F32"
    spelling: str = "BitNetForCausalLM"
    names: dict[str, str] = field(default_factory=lambda: NAMES)
    shards: int = 1
    changes: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, TensorSource]:
        found: dict[str, TensorSource] = {}
        for name, values in (self.weights.matrices | self.weights.vectors).items():
            self._add(found, f"{self._layer(name)}.weight", values)
        for name, linear in self.weights.linears.items():
            layer = self._layer(name)
            if self.form != "packed":
                dense = linear.masters if self.form == "masters" else linear.trits * linear.scale
                self._add(found, f"{layer}.weight", dense)
                continue
            packed = pack(linear.trits)
            found[f"{layer}.weight"] = TensorSource(f"{layer}.weight", packed.shape, "U8", packed)
            multiplies = (self.quantization or {}).get("linear_class") == "autobitlinear"
            scale = linear.scale if multiplies else np.float32(1) / linear.scale
            self._add(found, f"{layer}.weight_scale", np.array([scale]), "F32")
        return found

    def _layer(self, name: str) -> str:
        if not name.startswith("blk."):
            return self.names[name]
        _, index, part = name.split(".")
        return f"model.layers.{index}.{self.names[part]}"

    def _add(
        self, found: dict[str, TensorSource], name: str, values: Any, dtype: str | None = None
    ) -> None:
        kind = dtype or self.dtype
        raw = floats.encode(kind, np.asarray(values, np.float32))
        found[name] = TensorSource(name, values.shape, kind, raw)

    def write(self, path: Path, tensors: dict[str, TensorSource] | None = None) -> Path:
        """Write the folder; `tensors` replace those that `tensors()` gives."""
        path.mkdir(parents=True)
        model = self.weights.shape
        config = {
            "architectures": [self.spelling],
            "vocab_size": model.vocab_size,
            "hidden_size": model.hidden,
            "intermediate_size": model.ffn,
            "num_hidden_layers": model.layers,
            "num_attention_heads": model.heads,
            "num_key_value_heads": model.kv_heads,
            "head_dim": model.head_dim,
            "hidden_act": self.weights.activation,
            "max_position_embeddings": model.context,
            "rms_norm_eps": model.norm_eps,
            "rope_theta": model.rope_base,
            "rope_scaling": None,
            "tie_word_embeddings": model.tied,
        }
        if self.quantization is not None:
            config["quantization_config"] = self.quantization
        config |= self.changes
        text = json.dumps({key: value for key, value in config.items() if value != "absent"})
        (path / "config.json").write_text(text)
        self._write_tensors(path, list((tensors or self.tensors()).values()))
        if model.vocab_size >= VOCABULARY:
            write_vocabulary(path)
        return path

    def _write_tensors(self, path: Path, sources: list[TensorSource]) -> None:
        if self.shards == 1:
            safetensors.write(path / "model.safetensors", sources, {"format": "pt"})
            return
        index = {}
        for number in range(self.shards):
            name = f"model-{number + 1:05}-of-{self.shards:05}.safetensors"
            part = sources[number :: self.shards]
            safetensors.write(path / name, part, {"format": "pt"})
            index |= {source.name: name for source in part}
        text = json.dumps({"metadata": {}, "weight_map": index})
        (path / "model.safetensors.index.json").write_text(text)


def pack(trits: np.ndarray) -> np.ndarray:
    """As transformers packs: row r, r + R, r + 2R, r + 3R in the bits 1-0, 3-2, 5-4, 7-6."""
    quarter = len(trits) // 4
    packed = np.zeros((quarter, trits.shape[1]), np.uint8)
    for number in range(4):
        packed += (trits[number * quarter :][:quarter] + 1).astype(np.uint8) * np.uint8(4**number)
    return packed


def write_vocabulary(
    path: Path, rule: str = "llama-bpe", template: str | None = "{{ 'x' }}"
) -> None:
    """tokenizer.json and its neighbours: BOS 856, EOS 857, end of a turn 858."""
    from tokenizers import Tokenizer, processors

    library = Tokenizer.from_str(vocabularies.trained_bpe(rule).to_str())
    normalizer = RULES[rule].normalizer()
    if normalizer is not None:
        library.normalizer = normalizer
    bos = vocabularies.SPECIAL[0]
    library.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, library.token_to_id(bos))]
    )
    library.save(str(path / "tokenizer.json"))
    settings = {"bos_token": bos, "eos_token": vocabularies.SPECIAL[1], "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def write_tokenizer_model(path: Path) -> None:
    """tokenizer.model, and two tokens that only tokenizer_config.json knows: 360 and 361."""
    (path / "tokenizer.model").write_bytes(vocabularies.trained_sentencepiece())
    added = {
        "360": {"content": "<pad>", "special": True},
        "361": {"content": "</line>", "special": False},
    }
    settings = {"bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": added}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny(
    architecture: str = "bitnet-b1.58",
    form: str = "packed",
    *,
    seed: int = 0,
    half_scales: bool = False,
    **changes: Any,
) -> Folder:
    """A folder of one of the two families, with 256 columns so that every type can hold it."""
    is_llama = architecture == "llama"
    sizes = {"hidden": 256, "head_dim": 64, "vocab_size": 896, "tied": not is_llama}
    activation = "relu2" if architecture == "bitnet-b1.58" else "silu"
    weights = oracle_models.random_weights(
        oracle_models.shape(architecture, **sizes | changes), activation, seed,
        masters=form == "masters", half_scales=half_scales,
    )  # fmt: skip
    return Folder(
        weights,
        form,
        None if form == "masters" else BITLINEAR if is_llama else AUTO,
        spelling="LlamaForCausalLM" if is_llama else "BitNetForCausalLM",
    )


def linear(weights: Weights, name: str) -> Linear:
    """The matrix of a GGUF tensor, its rows in the order of that file."""
    found = weights.linears[name.removesuffix(".weight")]
    rows = oracle_models.stored_rows(weights.shape, name.removesuffix(".weight"), found.trits)
    return Linear(rows, found.scale)
