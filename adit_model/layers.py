"""Attention, embeddings and the pre-norm Transformer shared by both stages.

Parameter names follow torch's `nn.MultiheadAttention` and `nn.TransformerEncoder`, which are
also the names in the published checkpoint.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def index_embedding(num_atoms: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal embedding `[num_atoms, width]` of the place of an atom in its structure.

    angle(i, k) = i pi / 2048^(2k / width); all sines, then all cosines (arXiv 2503.03965).
    """
    k = torch.arange(width // 2, device=device, dtype=torch.float32)
    i = torch.arange(num_atoms, device=device, dtype=torch.float32)
    angles = i[:, None] * math.pi / 2048 ** (2 * k / width)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def time_features(t: Tensor, num_features: int) -> Tensor:
    """Cosines, then sines `[batch, num_features]` of t `[batch]` at geometric frequencies."""
    half = num_features // 2
    k = torch.arange(half, device=t.device, dtype=torch.float32)
    angles = t[:, None].float() * torch.exp(-math.log(10000.0) * k / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention over the atoms of each structure."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """x `[batch, atoms, width]`, mask `[batch, atoms]` (None: no padding).

        `bias` `[batch, heads, atoms, atoms]` is added to the attention's scores.
        """
        batch, atoms, width = x.shape
        qkv = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        qkv = qkv.view(batch, atoms, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # [batch, heads, atoms, head_width]
        keep = None if mask is None else mask[:, None, None, :]
        if x.device.type == "cuda":
            if bias is not None:
                bias = bias.to(q.dtype)
                keep = bias if keep is None else bias.masked_fill(~keep, float("-inf"))
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        else:  # plain matmuls are twice as fast as SDPA on a CPU for 5-30 atoms
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            if bias is not None:
                scores = scores + bias
            if keep is not None:
                scores = scores.masked_fill(~keep, float("-inf"))
            y = scores.softmax(dim=-1) @ v
        return self.out_proj(y.transpose(1, 2).reshape(batch, atoms, width))


class TransformerLayer(nn.Module):
    """One pre-norm layer with tanh-GELU, as `nn.TransformerEncoderLayer(norm_first=True)`."""

    def __init__(self, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, num_heads)
        self.linear1 = nn.Linear(width, mlp_width)
        self.linear2 = nn.Linear(mlp_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x `[batch, atoms, width]`."""
        x = x + self.self_attn(self.norm1(x), mask)
        return x + self.linear2(functional.gelu(self.linear1(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """A stack of layers and a final LayerNorm."""

    def __init__(self, width: int, depth: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        layers = [TransformerLayer(width, num_heads, mlp_width) for _ in range(depth)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x `[batch, atoms, width]`."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)


class LabelEmbedding(nn.Module):
    """A table of class labels; row 0 is "none"."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(size + 1, width)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, labels: Tensor) -> Tensor:
        """labels `[batch]` -> `[batch, width]`."""
        return self.embedding_table(labels)


class NumberEmbedding(nn.Module):
    """Fourier features of a number through a small MLP; NaN, "not told", adds nothing."""

    NUM_FREQUENCIES = 8

    def __init__(self, low: float, high: float, width: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        hidden, last = nn.Linear(1 + 2 * self.NUM_FREQUENCIES, width), nn.Linear(width, width)
        nn.init.zeros_(last.weight)  # a condition added to a trained network changes nothing yet
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(hidden, nn.SiLU(), last)

    def forward(self, values: Tensor) -> Tensor:
        """values `[batch]` in the condition's unit -> `[batch, width]`."""
        told = ~values.isnan()
        place = (2 * (values - self.low) / (self.high - self.low) - 1).nan_to_num(0.0)[:, None]
        k = torch.arange(self.NUM_FREQUENCIES, device=values.device, dtype=torch.float32)
        angles = place * (math.pi / 2) * 2**k
        features = torch.cat([place, angles.sin(), angles.cos()], dim=-1)
        return self.mlp(features) * told[:, None]


class AtomClassEmbedding(nn.Module):
    """A class of every atom: for its token, for both sides of its pairs, and their mean for all.

    All tables start at zero, so that the module can be added to a trained network; class 0, "not
    told", stays zero.
    """

    def __init__(self, size: int, width: int, pair_width: int) -> None:
        super().__init__()

        def table(columns: int) -> nn.Embedding:
            embedding = nn.Embedding(size + 1, columns, padding_idx=0)
            nn.init.zeros_(embedding.weight)
            return embedding

        self.token, self.mean = table(width), table(width)
        self.first, self.second = table(pair_width), table(pair_width)

    def structure(self, labels: Tensor, mask: Tensor | None) -> Tensor:
        """Mean over the atoms of each structure: labels `[batch, atoms]` -> `[batch, width]`."""
        values = self.mean(labels)
        if mask is None:
            return values.mean(dim=1)
        share = mask / mask.sum(dim=1, keepdim=True).clamp_min(1)
        return (values * share[..., None]).sum(dim=1)

    def pairs(self, labels: Tensor) -> Tensor:
        """`[batch, atoms, atoms, pair_width]`."""
        return self.first(labels)[:, :, None] + self.second(labels)[:, None]


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the flow time through a small MLP."""

    def __init__(self, num_features: int, width: int, scale: float) -> None:
        super().__init__()
        self.num_features = num_features
        self.scale = scale
        self.mlp = nn.Sequential(nn.Linear(num_features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """t `[batch]` in [0, 1] -> `[batch, width]`."""
        return self.mlp(time_features(t * self.scale, self.num_features))
