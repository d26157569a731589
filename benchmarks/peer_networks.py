"""Denoisers that all-atom diffusion without a latent space uses, written small, for what they cost.

Sizes are those of the published configurations; weights are random, which cost as much as others.
Both pass messages between all pairs of atoms of a structure.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn


def mlp(first: int, *widths: int, last: nn.Module | None = None) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for before, after in zip((first, *widths[:-1]), widths, strict=True):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers[:-1], *([] if last is None else [last]))


class EGNN(nn.Module):
    """E(n)-equivariant network of EDM (Hoogeboom et al. 2022, arXiv:2203.17003).

    256 wide, 9 blocks of one message and one coordinate update, attention over messages. As there,
    an atom sends itself nothing, all moves together reach 15 angstrom for each pair, and they begin
    close to none.
    """

    def __init__(self, features: int = 6, width: int = 256, depth: int = 9) -> None:
        super().__init__()
        self.reach = 15.0 / depth
        self.embedding, self.readout = nn.Linear(features, width), nn.Linear(width, features)
        pair = 2 * width + 2  # both atoms, their squared distance now and in the input
        self.messages = nn.ModuleList(
            nn.Sequential(*mlp(pair, width, width), nn.SiLU()) for _ in range(depth)
        )
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 1), nn.Sigmoid()) for _ in range(depth)
        )
        self.updates = nn.ModuleList(mlp(2 * width, width, width) for _ in range(depth))
        self.moves = nn.ModuleList(mlp(pair, width, width, 1, last=nn.Tanh()) for _ in range(depth))
        for move in self.moves:
            last = cast(nn.Linear, cast(nn.Sequential, move)[-2])
            nn.init.xavier_uniform_(last.weight, gain=0.001)
            nn.init.zeros_(last.bias)

    def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """h `[batch, atoms, features]`, x `[batch, atoms, 3]`, of equal-sized molecules."""
        h = self.embedding(h)
        first = _square(x)
        others = 1 - torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[..., None]
        for message, gate, update, move in zip(
            self.messages, self.gates, self.updates, self.moves, strict=True
        ):
            edge = message(_pairs(h, torch.cat([_square(x), first], dim=-1)))
            h = h + update(torch.cat([h, (edge * (gate(edge) * others)).sum(dim=2)], dim=-1))
            difference = x[:, :, None] - x[:, None]
            direction = difference / (difference.norm(dim=-1, keepdim=True) + 1)
            moved = move(_pairs(h, torch.cat([_square(x), first], dim=-1)))
            x = x + self.reach * (direction * moved).sum(dim=2)
        return self.readout(h), x


class CSPNet(nn.Module):
    """Periodic network of DiffCSP and FlowMM (Jiao et al. 2023, arXiv:2309.04475; 2406.04713).

    512 wide, 6 layers; pairs see both atoms, the lattice's metric, and sines and cosines of 128
    frequencies of the difference of their fractional coordinates.
    """

    def __init__(
        self, features: int = 100, width: int = 512, depth: int = 6, waves: int = 128
    ) -> None:
        super().__init__()
        self.embedding, self.waves = nn.Linear(features + width, width), waves
        pair = 2 * width + 9 + 6 * waves
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.messages = nn.ModuleList(
            nn.Sequential(*mlp(pair, width, width), nn.SiLU()) for _ in range(depth)
        )
        self.updates = nn.ModuleList(
            nn.Sequential(*mlp(2 * width, width, width), nn.SiLU()) for _ in range(depth)
        )
        self.coordinates, self.lattice = nn.Linear(width, 3), nn.Linear(width, 9)
        self.types = nn.Linear(width, features)

    def forward(
        self, types: Tensor, time: Tensor, frac: Tensor, lattice: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of equal-sized crystals.

        types `[batch, atoms, features]`, time `[batch, width]`, frac `[batch, atoms, 3]`, lattice
        `[batch, 3, 3]`.
        """
        num = types.shape[1]
        h = self.embedding(torch.cat([types, time[:, None].expand(-1, num, -1)], dim=-1))
        metric = (lattice @ lattice.mT).flatten(1)[:, None, None].expand(-1, num, num, -1)
        angles = 2 * math.pi * torch.arange(self.waves, device=h.device)
        phases = ((frac[:, None] - frac[:, :, None])[..., None] * angles).flatten(3)
        pair = torch.cat([metric, phases.sin(), phases.cos()], dim=-1)
        for norm, message, update in zip(self.norms, self.messages, self.updates, strict=True):
            normed = norm(h)
            edge = message(_pairs(normed, pair)).mean(dim=2)
            h = h + update(torch.cat([normed, edge], dim=-1))
        return self.types(h), self.coordinates(h), self.lattice(h.mean(dim=1))


def _square(x: Tensor) -> Tensor:
    """Squared distances of all pairs `[batch, atoms, atoms, 1]`."""
    square: Tensor = (x[:, :, None] - x[:, None]).square().sum(dim=-1, keepdim=True)
    return square


def _pairs(h: Tensor, of_pair: Tensor) -> Tensor:
    """Features of both atoms beside those of the pair `[batch, atoms, atoms, ...]`."""
    num = h.shape[1]
    shape = (-1, num, num, -1)
    return torch.cat([h[:, :, None].expand(*shape), h[:, None].expand(*shape), of_pair], dim=-1)
