"""The kinds of models that are converted, and what tells their files apart, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One kind of model.

    classes: in config.json, the first is written. model_type: likewise. architectures: of GGUF
    files. activation: where nothing names another. features: norms that blocks have beside
    attn_norm and ffn_norm. interleaved: q and k rows are reordered in GGUF files. has_masters:
    float weights are masters unless they are ternary. weight_only: weights alone are quantized
    where the checkpoint says nothing. norm_offset: what GGUF files add to the weights of norms.
    causal: no token sees a later one.
    """

    classes: tuple[str, ...]
    model_type: str
    architectures: tuple[str, ...]
    activation: str = "silu"
    features: frozenset[str] = frozenset()
    interleaved: bool = False
    has_masters: bool = False
    weight_only: bool = False
    norm_offset: float = 0.0
    causal: bool = True


_GEMMA3 = Family(
    classes=("Gemma3ForCausalLM", "Gemma3TextModel"),
    model_type="gemma3_text",
    architectures=("gemma3",),
    activation="gelu",
    features=frozenset({"head_norms", "post_norms"}),
    weight_only=True,
    norm_offset=1.0,
)
FAMILIES = {
    "bitnet": Family(
        classes=("BitNetForCausalLM", "BitnetForCausalLM"),
        model_type="bitnet",
        architectures=("bitnet", "bitnet-25", "bitnet-b1.58"),
        features=frozenset({"sub_norms"}),
        has_masters=True,
    ),
    "llama": Family(
        classes=("LlamaForCausalLM",),
        model_type="llama",
        architectures=("llama",),
        interleaved=True,
    ),
    "qwen3": Family(
        classes=("Qwen3ForCausalLM", "Qwen3Model"),
        model_type="qwen3",
        architectures=("qwen3",),
        features=frozenset({"head_norms"}),
        weight_only=True,
    ),
    "gemma3": _GEMMA3,
    "gemma-embedding": Family(
        **{
            **vars(_GEMMA3),
            "classes": ("Gemma3TextModel", "Gemma3ForCausalLM"),
            "architectures": ("gemma-embedding",),
            "causal": False,
        }
    ),
}
CLASSES = {
    name: key for key in ("bitnet", "llama", "qwen3", "gemma3") for name in FAMILIES[key].classes
}
ARCHITECTURES = {name: key for key, family in FAMILIES.items() for name in family.architectures}
