"""The NumPy oracle: BitNet b1.58 arithmetic written plainly. It never imports the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def quantize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x float32 [T, K] -> q int8 [T, K], s float32 [T]: s = 127 / max(|x|, 1e-5)."""
    x = np.asarray(x, np.float32)
    scale = np.float32(127) / np.maximum(np.abs(x).max(axis=1), np.float32(1e-5))
    return np.clip(np.rint(x * scale[:, None]), -128, 127).astype(np.int8), scale


def int8_rounded(x: np.ndarray) -> np.ndarray:
    """x [T, heads, head_dim] through int8, one scale a token and head."""
    q, s = quantize(x.reshape(-1, x.shape[-1]))
    return (q / s.astype(np.float64)[:, None]).reshape(x.shape)


def integer_product(trits: np.ndarray, q: np.ndarray) -> np.ndarray:
    """trits int8 [M, K], q int8 [T, K] -> int32 [T, M], exact."""
    return (q.astype(np.int64) @ trits.astype(np.int64).T).astype(np.int32)


def linear(x: np.ndarray, trits: np.ndarray, scale: float) -> np.ndarray:
    q, s = quantize(x)
    return integer_product(trits, q) * (np.float64(scale) / s[:, None])


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def rope(x: np.ndarray, positions: np.ndarray, base: float, interleaved: bool) -> np.ndarray:
    """x [T, heads, head_dim]; pairs (2i, 2i+1) or (i, i + head_dim / 2)."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    out = np.empty_like(x)
    first, second = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        out[..., 0::2], out[..., 1::2] = first, second
    else:
        out[..., :half], out[..., half:] = first, second
    return out


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q [T, heads, hd], k and v [T, kv heads, hd] -> [T, heads * hd], causal."""
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(head_dim)
    scores[:, np.triu(np.ones((tokens, tokens), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hts,shd->thd", weights, v).reshape(tokens, -1)


ACTIVATIONS = {
    "relu2": lambda z: np.maximum(z, 0) ** 2,
    "silu": lambda z: z / (1 + np.exp(-z)),
}


@dataclass
class Block:
    """Trits int8 [rows, cols] with a scale for each linear layer, and the norm weights."""

    linears: dict[str, tuple[np.ndarray, float]]
    norms: dict[str, np.ndarray | None]


@dataclass
class Model:
    heads: int
    kv_heads: int
    head_dim: int
    activation: str
    interleaved: bool
    eps: float
    base: float
    embedding: np.ndarray
    head: np.ndarray
    output_norm: np.ndarray
    blocks: list[Block] = field(default_factory=list)
    int8_cache: bool = False

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """ids int [T] -> float64 [T, vocab]."""
        x = self.embedding[ids].astype(np.float64)
        positions = np.arange(len(ids))
        for block in self.blocks:
            x = x + self._attention(block, x, positions)
            x = x + self._feed_forward(block, x)
        return rms_norm(x, self.output_norm, self.eps) @ self.head.T.astype(np.float64)

    def _norm(self, block: Block, name: str, x: np.ndarray) -> np.ndarray:
        weight = block.norms[name]
        return x if weight is None else rms_norm(x, weight, self.eps)

    def _attention(self, block: Block, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        a = self._norm(block, "attn_norm", x)
        parts = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads}
        q, k, v = (
            linear(a, *block.linears[name]).reshape(len(x), heads, self.head_dim)
            for name, heads in parts.items()
        )
        q, k = (rope(part, positions, self.base, self.interleaved) for part in (q, k))
        if self.int8_cache:
            k, v = int8_rounded(k), int8_rounded(v)
        o = self._norm(block, "attn_sub_norm", attention(q, k, v))
        return linear(o, *block.linears["o"])

    def _feed_forward(self, block: Block, x: np.ndarray) -> np.ndarray:
        b = self._norm(block, "ffn_norm", x)
        gate = ACTIVATIONS[self.activation](linear(b, *block.linears["gate"]))
        u = self._norm(block, "ffn_sub_norm", gate * linear(b, *block.linears["up"]))
        return linear(u, *block.linears["down"])
