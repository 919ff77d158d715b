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


def float_linear(x: np.ndarray, trits: np.ndarray, scale: Any) -> np.ndarray:
    """Weight-only: x is not quantized; scale is a number or one per equal part of each row."""
    scales = np.atleast_2d(np.asarray(scale, np.float64))
    return x @ (trits * np.repeat(scales, trits.shape[1] // scales.shape[1], axis=1)).T


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def frequencies(base: float, head_dim: int) -> np.ndarray:
    """Radians that each pair turns from one position to the next: [head_dim / 2]."""
    half = head_dim // 2
    return base ** (-np.arange(half) / half)


def rope(
    x: np.ndarray, positions: np.ndarray, turns: np.ndarray, interleaved: bool, factor: float = 1.0
) -> np.ndarray:
    """x [T, heads, head_dim]; pairs (2i, 2i+1) or (i, i + head_dim / 2), all times a factor."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * turns
    cos, sin = factor * np.cos(angle)[:, None], factor * np.sin(angle)[:, None]
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    out = np.empty_like(x)
    first, second = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        out[..., 0::2], out[..., 1::2] = first, second
    else:
        out[..., :half], out[..., half:] = first, second
    return out


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    causal: bool = True,
    window: int = 0,
    scale: float = 0.0,
) -> np.ndarray:
    """q [T, heads, hd], k and v [T, kv heads, hd] -> [T, heads * hd].

    window: keys seen to the left, the query's own included, and to the right if not causal; 0:
    all. scale: of the scores, 1 / sqrt(hd) if 0.
    """
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("thd,shd->hts", q, k) * (scale or 1 / np.sqrt(head_dim))
    ahead = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    hidden = (ahead > 0) & causal
    if window:
        hidden |= np.abs(ahead) >= window
    scores[:, hidden] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hts,shd->thd", weights, v).reshape(tokens, -1)


ACTIVATIONS = {
    "relu2": lambda z: np.maximum(z, 0) ** 2,
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu": lambda z: z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
}


@dataclass
class Block:
    """Trits int8 [rows, cols] with a scale for each linear layer, and the norm weights.

    Beside those of bitnet_cy.engine.Layer, norms may be q_norm_in, k_norm_in, v_norm_in,
    gate_norm_in and up_norm_in. window, base: of the block's attention, if it is not the model's;
    a block with a base of its own does not scale positions.
    """

    linears: dict[str, tuple[np.ndarray, Any]]
    norms: dict[str, Any]
    window: int = 0
    base: float | None = None


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
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    causal: bool = True
    weight_only: bool = False
    int8_cache: bool = False
    scaled: tuple[np.ndarray, float] | None = None
    """What turns in place of the base, and its factor: scaled positions."""

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """ids int [T] -> float64 [T, vocab]."""
        return self.hidden(ids) @ self.head.T.astype(np.float64)

    def hidden(self, ids: np.ndarray) -> np.ndarray:
        """What the head is given: ids int [T] -> float64 [T, hidden]."""
        x = self.embedding[ids].astype(np.float64) * self.embedding_scale
        positions = np.arange(len(ids))
        for block in self.blocks:
            x = x + self._norm(block, "attn_post_norm", self._attention(block, x, positions))
            x = x + self._norm(block, "ffn_post_norm", self._feed_forward(block, x))
        return rms_norm(x, self.output_norm, self.eps)

    def _norm(self, block: Block, name: str, x: np.ndarray) -> np.ndarray:
        weight = block.norms.get(name)
        return x if weight is None else rms_norm(x, weight, self.eps)

    def _linear(self, block: Block, name: str, x: np.ndarray) -> np.ndarray:
        product = float_linear if self.weight_only else linear
        return product(self._norm(block, f"{name}_norm_in", x), *block.linears[name])

    def _attention(self, block: Block, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        a = self._norm(block, "attn_norm", x)
        parts = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads}
        q, k, v = (
            self._linear(block, name, a).reshape(len(x), heads, self.head_dim)
            for name, heads in parts.items()
        )
        q, k = self._norm(block, "q_norm", q), self._norm(block, "k_norm", k)
        turns, factor = frequencies(block.base or self.base, self.head_dim), 1.0
        if self.scaled and not block.base:
            turns, factor = self.scaled
        q, k = (rope(part, positions, turns, self.interleaved, factor) for part in (q, k))
        if self.int8_cache:
            k, v = int8_rounded(k), int8_rounded(v)
        o = attention(q, k, v, causal=self.causal, window=block.window, scale=self.attention_scale)
        return self._linear(block, "o", self._norm(block, "attn_sub_norm", o))

    def _feed_forward(self, block: Block, x: np.ndarray) -> np.ndarray:
        b = self._norm(block, "ffn_norm", x)
        gate = ACTIVATIONS[self.activation](self._linear(block, "gate", b))
        u = self._norm(block, "ffn_sub_norm", gate * self._linear(block, "up", b))
        return self._linear(block, "down", u)
