"""Attention and MLP on scalars and vectors: what turns on the way in, turns on the way out.

Atoms have scalars `[batch, atoms, width]` and vectors `[batch, 3, atoms, vectors]`. Vectors are
only added, scaled by scalars, multiplied as dot and cross products, and mixed by linear
maps without bias, so that every layer commutes with rotations (not mirrors, for the cross product).
It is attention over neighbours in the spirit of Equiformer (arXiv 2206.11990), with the scalar and
vector channels of PaiNN (arXiv 2102.03150): the tensor products of l <= 1 written out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adit_model.equivariant.geometry import Pairs

NEAR_ZERO = 1e-9  # weight of a pair beyond the cutoff


class VectorNorm(nn.Module):
    """Divides an atom's vectors by their root mean square length; each channel has a scale."""

    def __init__(self, vectors: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(vectors))

    def forward(self, v: Tensor) -> Tensor:
        """v `[batch, 3, atoms, vectors]`."""
        # What is zero by symmetry but for rounding must not be blown up: hence a large constant.
        square = v.square().sum(dim=1, keepdim=True).mean(dim=-1, keepdim=True)
        return v * (square + 1e-2).rsqrt() * self.weight


class EquivariantAttention(nn.Module):
    """Multi-head attention whose messages are the products of features with directions."""

    def __init__(self, width: int, vectors: int, num_heads: int, radial: int) -> None:
        super().__init__()
        if width % num_heads or vectors % num_heads:
            raise ValueError(
                f"width {width} and vector_width {vectors} must be multiples of num_heads "
                f"{num_heads}"
            )
        self.num_heads = num_heads
        self.parts = (width, width, width, vectors)
        self.in_proj = nn.Linear(width, sum(self.parts))
        self.vector_in_proj = nn.Linear(vectors, 2 * vectors, bias=False)
        self.bias = nn.Sequential(
            nn.Linear(radial, 2 * radial), nn.SiLU(), nn.Linear(2 * radial, num_heads)
        )
        self.direction = nn.Linear(radial, num_heads, bias=False)
        self.out_proj = nn.Linear(width + vectors + num_heads * radial, width)
        self.vector_out_proj = nn.Linear(2 * vectors + num_heads * radial, vectors, bias=False)

    def forward(
        self, s: Tensor, v: Tensor, pairs: Pairs, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Messages to scalars and to vectors; mask `[batch, atoms]`, None: nothing is padded."""
        q, k, values, along = map(self._split, self.in_proj(s).split(self.parts, dim=-1))
        carried, projected = map(self._split, self.vector_in_proj(v).chunk(2, dim=-1))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [batch, heads, atoms, atoms]
        scores = scores + self.bias(pairs.radial).movedim(-1, 1)
        scores = scores + pairs.weight.clamp_min(NEAR_ZERO).log()[:, None]
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        share = scores.softmax(dim=-1)
        # [batch, heads, 3, atoms, atoms]
        directed = share[:, :, None] * self.direction(pairs.vectors).movedim(-1, 1)
        scalars = [
            self._joined(share @ values),
            self._joined((directed @ projected).sum(dim=2)),  # dot products with directions
            torch.einsum("bhij,bijk->bihk", share, pairs.radial).flatten(2),
        ]
        vectors = [
            self._joined(directed @ along[:, :, None]),
            self._joined(share[:, :, None] @ carried),
            torch.einsum("bhij,bxijk->bxihk", share, pairs.vectors).flatten(3),
        ]
        return self.out_proj(torch.cat(scalars, -1)), self.vector_out_proj(torch.cat(vectors, -1))

    def _split(self, x: Tensor) -> Tensor:
        """`[batch, ..., heads * n]` -> `[batch, heads, ..., n]`."""
        return x.unflatten(-1, (self.num_heads, -1)).movedim(-2, 1)

    def _joined(self, x: Tensor) -> Tensor:
        """`[batch, heads, ..., n]` -> `[batch, ..., heads * n]`."""
        return x.movedim(1, -2).flatten(-2)


class EquivariantMlp(nn.Module):
    """Dot products of vectors join the scalars; these scale vectors and cross products."""

    def __init__(self, width: int, vectors: int, hidden: int) -> None:
        super().__init__()
        self.parts = (width, vectors, vectors)
        self.mix = nn.Linear(vectors, 3 * vectors, bias=False)
        self.linear1 = nn.Linear(width + vectors, hidden)
        self.linear2 = nn.Linear(hidden, sum(self.parts))

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """s `[batch, atoms, width]`, v `[batch, 3, atoms, vectors]`."""
        first, second, third = self.mix(v).chunk(3, dim=-1)
        dots = (first * second).sum(dim=1)
        hidden = functional.silu(self.linear1(torch.cat([s, dots], dim=-1)))
        change, scale, twist = self.linear2(hidden).split(self.parts, dim=-1)
        crossed = torch.linalg.cross(first, second, dim=1)
        return change, scale[:, None] * third + twist[:, None] * crossed


class EquivariantLayer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, width: int, vectors: int, num_heads: int, radial: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = EquivariantAttention(width, vectors, num_heads, radial)
        self.mlp = EquivariantMlp(width, vectors, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.vector_norm1, self.vector_norm2 = VectorNorm(vectors), VectorNorm(vectors)

    def forward(
        self, s: Tensor, v: Tensor, pairs: Pairs, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """s `[batch, atoms, width]`, v `[batch, 3, atoms, vectors]`."""
        scalars, vectors = self.self_attn(self.norm1(s), self.vector_norm1(v), pairs, mask)
        s, v = s + scalars, v + vectors
        scalars, vectors = self.mlp(self.norm2(s), self.vector_norm2(v))
        return s + scalars, v + vectors


class EquivariantTransformer(nn.Module):
    """A stack of layers, and a final norm of the scalars."""

    def __init__(
        self, depth: int, width: int, vectors: int, num_heads: int, radial: int, hidden: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [EquivariantLayer(width, vectors, num_heads, radial, hidden) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, s: Tensor, v: Tensor, pairs: Pairs, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """s `[batch, atoms, width]`, v `[batch, 3, atoms, vectors]`."""
        for layer in self.layers:
            s, v = layer(s, v, pairs, mask)
        return self.norm(s), v


class GatedVectors(nn.Module):
    """Vectors to read off: linear combinations whose terms the scalars scale."""

    def __init__(self, width: int, vectors: int, outputs: int, std: float) -> None:
        super().__init__()
        self.gate = nn.Linear(width, vectors)
        self.linear = nn.Linear(vectors, outputs, bias=False)
        nn.init.normal_(self.linear.weight, std=std * vectors**-0.5)

    def forward(self, s: Tensor, v: Tensor) -> Tensor:
        """`[batch, 3, atoms, outputs]`."""
        return self.linear(v * (1.0 + self.gate(s))[:, None])
