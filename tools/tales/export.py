"""Export of a trained tales network as a GGUF v3 file with I2_S tensors, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bitnet_cy.formats import floats, gguf, ternary
from bitnet_cy.formats.gguf_writer import TensorSource, write
from bitnet_cy.formats.metadata import Typed
from tales.network import Network, Shape, ternarize, weight_scale
from tales.vocabulary import BOS, EOS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ARCHITECTURE = "bitnet-b1.58"
EMBEDDING = "token_embd.weight"
FILE_TYPE_I2_S = 40
NORMAL, CONTROL = 1, 3
SHAPE_KEYS = {
    "vocab": f"{ARCHITECTURE}.vocab_size",
    "context": f"{ARCHITECTURE}.context_length",
    "hidden": f"{ARCHITECTURE}.embedding_length",
    "layers": f"{ARCHITECTURE}.block_count",
    "ffn": f"{ARCHITECTURE}.feed_forward_length",
    "heads": f"{ARCHITECTURE}.attention.head_count",
    "kv_heads": f"{ARCHITECTURE}.attention.head_count_kv",
    "rope_base": f"{ARCHITECTURE}.rope.freq_base",
    "eps": f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon",
}


def metadata(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    """The GGUF keys of a BitNet b1.58 model and its byte-level BPE vocabulary."""
    return {
        "general.architecture": ARCHITECTURE,
        "general.name": "tales",
        "general.license": "mit",
        "general.file_type": FILE_TYPE_I2_S,
        "general.quantization_version": 2,
        **{key: getattr(shape, field) for field, key in SHAPE_KEYS.items()},
        f"{ARCHITECTURE}.rope.dimension_count": shape.head_dim,
        f"{ARCHITECTURE}.hidden_activation": "relu2",
        **_vocabulary(tokenizer),
    }


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    merges = _merges(tokenizer)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if t in (BOS, EOS) else NORMAL for t in tokens],
        "tokenizer.ggml.merges": Typed(merges, "str"),
        "tokenizer.ggml.bos_token_id": tokens.index(BOS),
        "tokenizer.ggml.eos_token_id": tokens.index(EOS),
        "tokenizer.ggml.add_bos_token": True,
    }


def _merges(tokenizer: Tokenizer) -> list[str]:
    """The merges in order, each as two tokens with a space between."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]


def sources(network: Network) -> list[TensorSource]:
    """Every parameter as stored: embedding F16, norms F32, matrices I2_S."""
    return [_source(name, p.detach()) for name, p in network.named_parameters()]


def _source(name: str, values: torch.Tensor) -> TensorSource:
    shape = tuple(values.shape)
    if name == EMBEDDING:
        return TensorSource(name, shape, "F16", floats.encode("F16", values.numpy()))
    if values.ndim == 1:
        return TensorSource(name, shape, "F32", floats.encode("F32", values.numpy()))
    trits, scale = ternarize(values).to(torch.int8).numpy(), float(weight_scale(values))
    return TensorSource(name, shape, "I2_S", ternary.encode("I2_S", trits, scale))


def write_model(path: Path, network: Network, tokenizer: Tokenizer) -> None:
    """Write the network and its vocabulary; an existing file is replaced."""
    write(path, metadata(network.shape, tokenizer), sources(network), force=True)


def read_network(path: Path) -> Network:
    """The network of an exported file, frozen, for evaluation in torch float32."""
    with gguf.read(path) as file:
        shape = Shape(**{field: file.metadata[key] for field, key in SHAPE_KEYS.items()})
        network = Network(shape)
        state = {name: torch.from_numpy(_stored(file, name)) for name in file.tensors}
    network.load_state_dict(state)
    return network.freeze()


def _stored(file: gguf.GGUFFile, name: str) -> np.ndarray:
    info = file.tensors[name]
    if info.type_name != "I2_S":
        return file.array(name)
    stored = ternary.decode("I2_S", file.raw(name), *info.shape)
    return stored.trits.astype(np.float32) * np.float32(stored.scale)
