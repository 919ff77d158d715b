"""The BitNet b1.58 decoder of the tales model, in torch, for training and as a float reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

QUANTIZATION_FLOOR = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of one network; hidden and ffn are multiples of 128 so that I2_S rows need no tail."""

    vocab: int = 4096
    hidden: int = 384
    ffn: int = 1024
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass, the gradient of `exact` in the backward pass."""
    return exact + (rounded - exact).detach()


def weight_scale(weight: Tensor) -> Tensor:
    """Absmean scale (multiplier) of one matrix [M, K], a float32 scalar."""
    return weight.abs().mean().clamp(min=QUANTIZATION_FLOOR)


def ternarize(weight: Tensor) -> Tensor:
    """Trits (-1, 0, 1) as float32 [M, K]: absmean, round half to even (BitNet b1.58)."""
    return (weight * (1.0 / weight_scale(weight))).round().clamp(-1, 1)


def quantize_activations(x: Tensor) -> Tensor:
    """Per-token int8 absmax quantization of x [..., K], returned dequantized."""
    scale = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=QUANTIZATION_FLOOR)
    return straight_through(x, (x * scale).round().clamp(-128, 127) / scale)


class TernaryLinear(nn.Module):
    """Linear layer [M, K] without bias, ternary in the forward pass, float master weights.

    With `frozen` set, the weights are trits times scale already (an exported model): ternarizing
    them anew would keep the trits but find another absmean.
    """

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)
        self.frozen = False

    def effective(self) -> Tensor:
        """The weights the forward pass uses: trits times scale, with straight-through gradient."""
        if self.frozen:
            return self.weight
        rounded = ternarize(self.weight) * weight_scale(self.weight)
        return straight_through(self.weight, rounded)

    def forward(self, quantized: Tensor) -> Tensor:
        return functional.linear(quantized, self.effective())


def apply_together(quantized: Tensor, *layers: TernaryLinear) -> tuple[Tensor, ...]:
    """Outputs of several layers of one input, by one matrix product."""
    together = functional.linear(quantized, torch.cat([layer.effective() for layer in layers]))
    return torch.split(together, [layer.weight.shape[0] for layer in layers], dim=-1)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * gain over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines [context, head_dim / 2] of the half-split (NeoX) rotation."""
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angles = torch.outer(
        torch.arange(shape.context, dtype=torch.float64), shape.rope_base ** (-half)
    )
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim / 2) of x [B, heads, T, head_dim]."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


class Block(nn.Module):
    """One decoder layer: grouped-query attention and a gated ReLU^2 FFN, both with sub-norms."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.shape, self.dropout = shape, dropout
        h, f, kv = shape.hidden, shape.ffn, shape.kv_heads * shape.head_dim
        into, out = h**-0.5, (2 * shape.layers) ** -0.5
        self.attn_norm, self.attn_sub_norm = RMSNorm(h, shape.eps), RMSNorm(h, shape.eps)
        self.ffn_norm, self.ffn_sub_norm = RMSNorm(h, shape.eps), RMSNorm(f, shape.eps)
        self.attn_q, self.attn_k = TernaryLinear(h, h, into), TernaryLinear(h, kv, into)
        self.attn_v = TernaryLinear(h, kv, into)
        self.attn_output = TernaryLinear(h, h, into * out)
        self.ffn_gate, self.ffn_up = TernaryLinear(h, f, into), TernaryLinear(h, f, into)
        self.ffn_down = TernaryLinear(f, h, f**-0.5 * out)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        a = quantize_activations(self.attn_norm(x))
        q, k, v = (
            part.reshape(batch, length, -1, self.shape.head_dim).transpose(1, 2)
            for part in apply_together(a, self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)
        return self.attn_output(quantize_activations(self.attn_sub_norm(mixed)))

    def feed_forward(self, x: Tensor) -> Tensor:
        b = quantize_activations(self.ffn_norm(x))
        gate, up = apply_together(b, self.ffn_gate, self.ffn_up)
        gated = functional.relu(gate).square() * up
        return self.ffn_down(quantize_activations(self.ffn_sub_norm(gated)))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + functional.dropout(self.attention(x, cos, sin), self.dropout, self.training)
        return x + functional.dropout(self.feed_forward(x), self.dropout, self.training)


class Network(nn.Module):
    """Tied-embedding decoder; parameter names are those of the GGUF tensors."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.hidden)
        nn.init.normal_(self.token_embd.weight, std=0.05)
        self.blk = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.output_norm = RMSNorm(shape.hidden, shape.eps)
        cos, sin = rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, T, vocab] of token ids [B, T], T <= context."""
        x = self.token_embd(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        return functional.linear(self.output_norm(x), self.token_embd.weight)

    def freeze(self) -> Network:
        """Take the matrices as they are from now on, and switch dropout off."""
        for layer in self.modules():
            if isinstance(layer, TernaryLinear):
                layer.frozen = True
        return self.eval()

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats of targets [B, T] after ids [B, T]."""
        return functional.cross_entropy(self(ids).flatten(0, 1), targets.flatten())
