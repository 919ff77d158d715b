"""Shapes and metadata of published ternary models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_vocabulary import FALCON3_SPECIALS, LLAMA3_SPECIALS, Vocabulary

FILE_TYPES = {"I2_S": 40, "TQ1_0": 36, "TQ2_0": 37}

# What the converter of the official file wrote in place of the model's real template.
PLACEHOLDER_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\\n\\n"
    "BITNETAssistant: ' + eos_token }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)
FALCON3_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """All that tells one model's file from another's."""

    name: str
    architecture: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context: int
    rope_base: float
    norm_eps: float = 1e-5
    tied: bool = True
    pre: str | None = None
    specials: dict[int, str] | None = None  # ids of control tokens; None for SentencePiece
    bos: int | None = None
    eos: int | None = None
    padding: int | None = None
    add_bos: bool | None = None
    template: str | None = None
    activation: str | None = None  # written as a key only if given: published files have none

    @property
    def sub_norms(self) -> bool:
        """BitNet blocks normalise again before their last matrix; Llama blocks do not."""
        return self.architecture.startswith("bitnet")


_LLAMA3: dict[str, Any] = {
    "vocab_size": 128256, "rope_base": 500000.0, "specials": LLAMA3_SPECIALS, "bos": 128000,
}  # fmt: skip
_1BITLLM: dict[str, Any] = {
    "architecture": "bitnet", "vocab_size": 32002, "context": 2048, "rope_base": 10000.0,
    "bos": 1, "eos": 2, "padding": 32000, "add_bos": True,
}  # fmt: skip

PRESETS: dict[str, Shape] = {
    "bitnet-2b-4t": Shape(
        "bitnet2b", "bitnet-b1.58", 30, 2560, 6912, 20, 5, 128, context=4096, **_LLAMA3,
        eos=128001, padding=128001, add_bos=True, template=PLACEHOLDER_TEMPLATE,
    ),
    "bitnet-large": Shape("bitnet_b1_58-large", layers=24, hidden=1536, ffn=4096, heads=16,
                          kv_heads=16, head_dim=96, **_1BITLLM),
    "bitnet-xl": Shape("bitnet_b1_58-xl", layers=24, hidden=2048, ffn=5460, heads=32,
                       kv_heads=32, head_dim=64, **_1BITLLM),
    "bitnet-3b": Shape("bitnet_b1_58-3B", layers=26, hidden=3200, ffn=8640, heads=32,
                       kv_heads=32, head_dim=100, **_1BITLLM),
    "falcon3-1b": Shape(
        "Falcon3-1B-Instruct-1.58bit", "llama", 18, 2048, 8192, 8, 4, 256, 131072, 8192,
        1000042.0, norm_eps=1e-6, tied=False, pre="falcon3", specials=FALCON3_SPECIALS, bos=11,
        eos=11, template=FALCON3_TEMPLATE,
    ),
    "falcon-e-1b": Shape(
        "Falcon-E-1B-Instruct", "llama", 24, 2048, 9216, 16, 2, 128, 32768, 32768, 1e6,
        tied=False, pre="falcon_e", specials={0: "<|begin_of_text|>", 1: "<|end_of_text|>"},
        bos=0, eos=1,
    ),
    "llama3-8b": Shape(
        "Llama3-8B-1.58-100B-tokens", "llama", 32, 4096, 14336, 32, 8, 128, context=8192,
        **_LLAMA3, tied=False, pre="llama-bpe", eos=128009, add_bos=True,
        template=LLAMA3_TEMPLATE,
    ),
    "tiny": Shape(
        "tiny", "bitnet-b1.58", 2, 256, 512, 4, 2, 64, 384, 256, 500000.0,
        specials={380: "<|begin_of_text|>", 381: "<|end_of_text|>", 383: "<|eot_id|>"},
        bos=380, eos=381, padding=381, add_bos=True, template=PLACEHOLDER_TEMPLATE,
    ),
}  # fmt: skip


def metadata(shape: Shape, vocabulary: Vocabulary, type_name: str) -> dict[str, Any]:
    """The keys that the published file of this shape carries, in its order."""
    prefix = shape.architecture
    keys: dict[str, Any] = {
        "general.architecture": prefix,
        "general.name": shape.name,
        f"{prefix}.vocab_size": shape.vocab_size,
        f"{prefix}.context_length": shape.context,
        f"{prefix}.embedding_length": shape.hidden,
        f"{prefix}.block_count": shape.layers,
        f"{prefix}.feed_forward_length": shape.ffn,
        f"{prefix}.rope.dimension_count": shape.head_dim,
        f"{prefix}.attention.head_count": shape.heads,
        f"{prefix}.attention.head_count_kv": shape.kv_heads,
        "tokenizer.ggml.add_bos_token": shape.add_bos,
        f"{prefix}.attention.layer_norm_rms_epsilon": float(shape.norm_eps),
        f"{prefix}.rope.freq_base": float(shape.rope_base),
        f"{prefix}.hidden_activation": shape.activation,
        "general.file_type": FILE_TYPES[type_name],
        **vocabulary.metadata(shape.pre),
        "tokenizer.ggml.bos_token_id": shape.bos,
        "tokenizer.ggml.eos_token_id": shape.eos,
        "tokenizer.ggml.padding_token_id": shape.padding,
        "tokenizer.chat_template": shape.template,
        "general.quantization_version": 2,
    }
    if prefix == "bitnet":  # as the converter of 2024 wrote them
        del keys["bitnet.rope.dimension_count"]
        keys["bitnet.rope.scaling.type"] = "linear"
        keys["bitnet.rope.scaling.factor"] = 1.0
        if shape.head_dim * shape.heads != shape.hidden:
            keys["bitnet.attention.key_length"] = shape.head_dim
    return {key: value for key, value in keys.items() if value is not None}
