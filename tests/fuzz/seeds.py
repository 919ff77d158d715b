"""Small valid inputs for every target, and words that inputs are made of."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.targets import NEXT_FILE

from bitnet_cy.chat import templates
from bitnet_cy.formats import gguf, safetensors, types
from bitnet_cy.formats.layouts import LAYOUTS
from bitnet_cy.tokenizer.sentencepiece_model import build_model
from bitnet_cy.tokenizer.split_rules import RULES

_HIDDEN, _FFN, _HEADS = 64, 128, 2
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_PIECES = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab"]
_PIECE_TYPES = [2, 3, 3, 1, 1, 1, 1, 4]
_TOKENS = ["<s>", "</s>", "<|eot_id|>", "a", "b", "\u0120", "ab", "\u0120ab", "1", "2", "\u010a"]
_MERGES = ["a b", "\u0120 ab"]


def gguf_files() -> Iterable[bytes]:
    """One file with every kind of value and tensor."""
    arrays = {"flags": np.array([True, False]), "numbers": np.arange(3, dtype=np.int16)}
    keys = {"general.alignment": 32, "eps": 1e-5, "flag": True, "big": 1 << 40, **arrays}
    tensors = [
        gguf.TensorSource(name, (1, 256), name, bytes(types.by_name(name).nbytes((1, 256)) or 0))
        for name in ("F32", "BF16", "Q8_0", "Q6_K", "I2_S", "TQ1_0", "TQ2_0", "IQ2_BN")
    ]
    yield _gguf({**_bpe(), **keys}, tensors)
    yield _gguf(_bpe(), [])


def models() -> Iterable[bytes]:
    """Headers of models of every family, without the weights."""
    for architecture, sub_norms in (("bitnet-b1.58", True), ("llama", False)):
        for vocabulary in (_bpe(), _sentencepiece()):
            count = len(vocabulary["tokenizer.ggml.tokens"])
            tensors = _network(count, sub_norms)
            raw = _gguf(vocabulary | _sizes(architecture, count), tensors)
            yield raw[: len(raw) - sum(-(-tensor.nbytes // 32) * 32 for tensor in tensors)]


def safetensors_files() -> Iterable[bytes]:
    """One file with every dtype the reader knows."""
    shapes = {"F32": (2, 3), "F16": (2,), "BF16": (), "F64": (1,), "U8": (0, 4), "I64": (1, 1)}
    tensors = [
        safetensors.TensorSource(name.lower(), shape, name, bytes(8 * int(np.prod(shape))))
        for name, shape in shapes.items()
    ]
    tensors = [
        safetensors.TensorSource(t.name, t.shape, t.dtype, t.data[: t.nbytes]) for t in tensors
    ]
    yield _written(lambda path: safetensors.write(path, tensors, {"format": "pt"}))


def tokenizer_jsons() -> Iterable[bytes]:
    """Byte-level and SentencePiece-like files, as Llama 3's and Llama 2's are built."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as steps
    from tokenizers.processors import TemplateProcessing

    ranks = {token: index for index, token in enumerate(_TOKENS)}
    pairs: Any = [tuple(merge.split(" ")) for merge in _MERGES]
    library = Tokenizer(models.BPE(ranks, pairs, ignore_merges=True))
    library.pre_tokenizer = steps.Sequence(
        [steps.Split(Regex(r"\p{N}{1,3}|\s+"), "isolated"), steps.ByteLevel(False, use_regex=False)]
    )
    library.decoder = decoders.ByteLevel()
    library.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    library.add_special_tokens(_TOKENS[:3])
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True}
    yield library.to_str().encode() + NEXT_FILE + json.dumps(settings).encode()
    ranks = {token: index for index, token in enumerate([*_PIECES, *_BYTES[64:68]])}
    pairs = [("a", "b"), ("\u2581", "ab")]
    library = Tokenizer(models.BPE(ranks, pairs, byte_fallback=True, unk_token="<unk>"))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    library.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Strip(" ", 1, 0)]
    )
    yield library.to_str().encode()
    library.normalizer = None
    library.pre_tokenizer = steps.Metaspace(prepend_scheme="first")
    yield library.to_str().encode()


def sentencepiece_files() -> Iterable[bytes]:
    """A model with a space in front of text, with settings that add tokens, and one without."""
    tokens, kinds = _PIECES + _BYTES, _PIECE_TYPES + [6] * 256
    scores = [float(-index) for index in range(len(tokens))]
    decoder = {"264": {"content": "<pad>", "special": True, "lstrip": True}}
    settings = {"added_tokens_decoder": decoder, "chat_template": templates.BITNET}
    model = build_model(tokens, scores, kinds, 0, True)
    yield model + NEXT_FILE + json.dumps(settings).encode()
    yield build_model(_PIECES, scores[: len(_PIECES)], _PIECE_TYPES, None, False)


def rank_files() -> Iterable[bytes]:
    """A few ranks."""
    tokens = [b"a", b"b", b"ab", b" ", b" ab", b"\xc3", b"\xb6", b"\xc3\xb6", b"1", b"\n"]
    yield b"".join(
        base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens)
    )


def gguf_vocabularies() -> Iterable[bytes]:
    """Vocabularies of both kinds, with a chat template."""
    for vocabulary in (_bpe(), _sentencepiece()):
        yield _gguf({**vocabulary, "tokenizer.chat_template": templates.LLAMA3}, [])


def chat_templates() -> Iterable[bytes]:
    """The package's own templates, and one that uses what others use."""
    yield templates.BITNET.encode()
    yield templates.LLAMA3.encode()
    yield (
        b"{%- macro say(m, d=none) -%}{{ m.content | trim | replace('a', 'b') }}{%- endmacro -%}"
        b"{%- set ns = namespace(n=0, seen=[]) -%}{%- set tools = {'a': [1, 2.5, none]} -%}"
        b"{%- for m in messages if m.role != 'tool' -%}{%- if loop.first and not loop.last -%}"
        b"{%- set ns.n = ns.n + m['content'].split(' ')[1:]|length * 2 -%}{%- continue -%}"
        b"{%- elif m.role in ['user', 'x'] -%}{%- generation -%}{{ say(m) ~ loop.index0 }}"
        b"{%- endgeneration -%}{%- else -%}{{ raise_exception('no') if false else '%s' % m.role }}"
        b"{%- endif -%}{%- endfor -%}{%- filter upper -%}{{ tools | tojson(indent=2) }}"
        b"{%- endfilter -%}{{ range(3) | map('string') | join(',') }}{{ messages | selectattr("
        b"'role', 'equalto', 'user') | list | last }}{{ strftime_now('%Y') is defined }}"
    )


SEEDS: dict[str, Callable[[], Iterable[bytes]]] = {
    "gguf": gguf_files,
    "model": models,
    "safetensors": safetensors_files,
    "tokenizer_json": tokenizer_jsons,
    "sentencepiece": sentencepiece_files,
    "tiktoken": rank_files,
    "gguf_vocabulary": gguf_vocabularies,
    "template": chat_templates,
}


def words(name: str) -> list[bytes]:
    """Keys, names and punctuation for a target's dictionary."""
    found = {word for seed in SEEDS[name]() for word in re.findall(rb"[\w.<>|]{2,40}", seed)}
    if name in ("gguf", "model"):
        found |= {word.encode() for word in (*LAYOUTS, "split.count", "rope.scaling.type")}
        found |= {kind.id.to_bytes(4, "little") for kind in types.TYPES}
    if name in ("gguf_vocabulary", "model"):
        found |= {word.encode() for word in RULES}
    if name == "template":
        found |= {word.encode() for word in _TEMPLATE_WORDS.split()}
    if name == "tokenizer_json":
        found |= {word.encode() for word in _TOKENIZER_WORDS.split()}
    return sorted(found)


_TEMPLATE_WORDS = (
    "{{ }} {% %} {%- -%} {# #} abs capitalize count default dictsort first float int items last "
    "length list lower map max min reject rejectattr reverse round safe select selectattr sort "
    "string title trim unique upper indent join replace tojson set endset filter endfilter macro "
    "endmacro call endcall block endblock include import from extends raw endraw with endwith do "
    "autoescape loop.index loop.cycle( loop.changed( loop( recursive caller() varargs kwargs "
    "self __class__ __init__ namespace( range( dict( is not in and or if else elif ** // * % ~ "
    "-1 99999999 1e308 '%c' [::2] | . ( ) [ ] , : 'x' scoped required ignore missing"
)
_TOKENIZER_WORDS = (
    '"type": "Sequence" "Split" "Regex" "String" "ByteLevel" "Metaspace" "Punctuation" "Digits" '
    '"Whitespace" "NFC" "NFKC" "Lowercase" "StripAccents" "Prepend" "Replace" "Precompiled" '
    '"WordPiece" "Unigram" "WordLevel" "BPE" "prepend_scheme" "first" "always" "never" '
    '"single_word" "lstrip" "rstrip" "normalized" "special" "id" "content" "truncation" '
    '"padding" "dropout" "continuing_subword_prefix" "end_of_word_suffix" "fuse_unk" '
    '"RobertaProcessing" "BertProcessing" "added_tokens_decoder" "chat_template" null true false'
)


def _bpe() -> dict[str, Any]:
    keys = {
        "model": "gpt2", "pre": "llama-bpe", "tokens": _TOKENS, "merges": _MERGES,
        "token_type": np.array([3] * 3 + [1] * (len(_TOKENS) - 3), np.int32),
        "bos_token_id": 0, "eos_token_id": 1, "eot_token_id": 2, "add_bos_token": True,
    }  # fmt: skip
    return _prefixed(keys)


def _sentencepiece() -> dict[str, Any]:
    keys = {
        "model": "llama", "tokens": _PIECES, "token_type": np.array(_PIECE_TYPES, np.int32),
        "scores": -np.arange(len(_PIECES), dtype=np.float32), "unknown_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "add_space_prefix": True,
    }  # fmt: skip
    return _prefixed(keys)


def _prefixed(keys: dict[str, Any]) -> dict[str, Any]:
    named = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
    return {"general.architecture": "bitnet-b1.58", **named}


def _sizes(architecture: str, vocab_size: int) -> dict[str, Any]:
    sizes = {
        "vocab_size": vocab_size, "context_length": 64, "embedding_length": _HIDDEN,
        "block_count": 1, "feed_forward_length": _FFN, "attention.head_count": _HEADS,
        "attention.head_count_kv": 1, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0, "rope.dimension_count": _HIDDEN // _HEADS,
    }  # fmt: skip
    keys = {f"{architecture}.{name}": value for name, value in sizes.items()}
    return keys | {
        "general.architecture": architecture,
        "tokenizer.chat_template": templates.BITNET,
    }


def _network(vocab_size: int, sub_norms: bool) -> list[gguf.TensorSource]:
    """The tensors of one block, of several types, all zero."""
    kv = _HIDDEN // _HEADS
    shapes = {
        "attn_q": (_HIDDEN, _HIDDEN), "attn_k": (kv, _HIDDEN), "attn_v": (kv, _HIDDEN),
        "attn_output": (_HIDDEN, _HIDDEN), "ffn_gate": (_FFN, _HIDDEN), "ffn_up": (_FFN, _HIDDEN),
        "ffn_down": (_HIDDEN, _FFN), "attn_norm": (_HIDDEN,), "ffn_norm": (_HIDDEN,),
    }  # fmt: skip
    if sub_norms:
        shapes |= {"attn_sub_norm": (_HIDDEN,), "ffn_sub_norm": (_FFN,)}
    named = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"token_embd.weight": (vocab_size, _HIDDEN), "output_norm.weight": (_HIDDEN,)}
    if not sub_norms:
        named["output.weight"] = (vocab_size, _HIDDEN)
    return [_zeros(name, shape) for name, shape in named.items()]


def _zeros(name: str, shape: tuple[int, ...]) -> gguf.TensorSource:
    kind = "F32" if len(shape) == 1 else "I2_S" if name.startswith("blk") else "Q8_0"
    return gguf.TensorSource(name, shape, kind, bytes(types.by_name(kind).nbytes(shape) or 0))


def _gguf(metadata: dict[str, Any], tensors: list[gguf.TensorSource]) -> bytes:
    return _written(lambda path: gguf.write(path, metadata, tensors))


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "seed")
        write(path)
        return path.read_bytes()
