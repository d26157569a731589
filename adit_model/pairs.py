"""Pair features: what two atoms' noisy latents say of their distance, for the attention to use."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_POINTS = 4  # learned maps from latents to points in space
NUM_CENTRES = 16  # Gaussians on each distance
FARTHEST = 4.0  # the last one's centre, in the points' unit
WIDTH = 64  # of the pair MLP
GAIN = 4.0  # of the biases, which have to grow from 0 to several units


class PairBias(nn.Module):
    """Attention biases, one a layer and head, from the distances between points of two atoms.

    Linear maps of an atom's latents (noisy, and last predicted) give it a few points; the distances
    between the points of two atoms, expanded in Gaussians, and for crystals the sine and cosine of
    the difference of fractional coordinates, pass through an MLP. Ordinary attention has to build
    distances out of products of hidden features, which takes far more training. The outputs start
    at zero, so the module can be added to a trained network.
    """

    def __init__(self, channels: int, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.depth, self.num_heads = depth, num_heads
        self.points = nn.Linear(channels, 3 * NUM_POINTS, bias=False)
        self.cells = nn.Linear(channels, 6, bias=False)  # fractional coordinates, twice
        self.first, self.second = nn.Linear(channels, WIDTH), nn.Linear(channels, WIDTH)
        self.time = nn.Linear(width, WIDTH)
        self.distances = nn.Linear(NUM_POINTS * NUM_CENTRES + 12, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Linear(WIDTH, depth * num_heads)
        self.token = nn.Linear(WIDTH, width)
        for linear in (self.bias, self.token):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        latents: Tensor,
        condition: Tensor,
        mask: Tensor | None,
        told: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Biases and an addition to the atoms' features.

        Args:
            latents: `[batch, atoms, channels]`, noisy and last predicted.
            condition: `[batch, width]`.
            mask: `[batch, atoms]`, None where nothing is padded.
            told: `[batch, atoms, atoms, WIDTH]`, what is known of the two atoms besides.

        Returns:
            Biases `[depth, batch, heads, atoms, atoms]` and additions `[batch, atoms, width]`.
        """
        batch, atoms, _ = latents.shape
        pairs = self.distances(self._features(latents))
        pairs = pairs + self.first(latents)[:, :, None] + self.second(latents)[:, None]
        if told is not None:
            pairs = pairs + told
        pairs = functional.gelu(pairs + self.time(condition)[:, None, None])
        pairs = functional.layer_norm(functional.gelu(self.hidden(pairs)), (WIDTH,))
        biases = GAIN * self.bias(pairs).view(batch, atoms, atoms, self.depth, self.num_heads)
        if mask is None:
            mean = pairs.mean(dim=2)
        else:
            share = mask / mask.sum(dim=1, keepdim=True)
            mean = (pairs * share[:, None, :, None]).sum(dim=2)
        # Fused attention on GPUs wants the last dimension of its mask to be contiguous.
        return biases.permute(3, 0, 4, 1, 2).contiguous(), self.token(mean)

    def _features(self, latents: Tensor) -> Tensor:
        """Gaussians of the distances and waves of the differences, `[batch, atoms, atoms, n]`."""
        batch, atoms, _ = latents.shape
        # bf16 would blur bond lengths: differences are taken in float32.
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            points = self.points(latents).view(batch, atoms, NUM_POINTS, 3)
            difference = points[:, :, None] - points[:, None]
            distance = (difference.square().sum(dim=-1) + 1e-6).sqrt()
            centres = torch.linspace(0, FARTHEST, NUM_CENTRES, device=latents.device)
            sharpness = NUM_CENTRES / FARTHEST
            gaussians = torch.exp(-((distance[..., None] - centres) * sharpness).square() / 2)
            places = self.cells(latents) * (2 * math.pi)
            turn = places[:, :, None] - places[:, None]
            return torch.cat([gaussians.flatten(3), turn.sin(), turn.cos()], dim=-1)


@torch.no_grad()
def aim_points(pairs: PairBias, latents: Tensor, coordinates: Tensor, periodic: bool) -> None:
    """Begin with the linear maps from latents that give coordinates best, by least squares.

    Args:
        pairs: the module; noisy and predicted latents get a map each.
        latents: standardised clean latents `[n, latent_dim]`.
        coordinates: `[n, 3]`, angstrom (molecules) or fractional (crystals).
        periodic: whether these are crystals.
    """
    dim = latents.shape[1]
    ones = torch.ones(len(latents), 1, dtype=torch.float64, device=latents.device)
    solution = torch.linalg.lstsq(torch.cat([latents.double(), ones], 1), coordinates.double())
    rows = solution.solution[:dim].T.float()  # [3, latent_dim]
    for source in range(pairs.points.in_features // dim):
        columns = slice(source * dim, (source + 1) * dim)
        start = 3 * (2 * source + int(periodic))
        # A cell is a few angstrom wide: fractional coordinates get a comparable spread.
        target = pairs.points.weight[start : start + 3]
        target.zero_()
        target[:, columns] = rows * 5.0 if periodic else rows
        if periodic:
            waves = pairs.cells.weight[3 * source : 3 * source + 3]
            waves.zero_()
            waves[:, columns] = rows
