"""What an equivariant network sees of a structure: places, the cell, and pairs of atoms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adit_model.batch import AtomBatch

NUM_CENTRES = 16  # Gaussians on a distance in angstrom
NUM_LATENT_CENTRES = 8  # and on one between two latent vectors,
LARGEST_LATENT = 5.0  # up to this
# Images of a cell on each side; only cells thinner than an atom have more within the cutoff.
MAX_IMAGES = 5
WRAP = 0.02  # fractional coordinates are in [-WRAP, 1 - WRAP): numerical zeros stay together
CENTRE = 0.5 - WRAP  # of that interval


class Pairs(NamedTuple):
    """Features of pairs of atoms.

    Attributes:
        weight: `[batch, atoms, atoms]`, smooth number of images of the second within the cutoff.
        radial: `[batch, atoms, atoms, n]`, Gaussians of their distances, summed.
        vectors: `[batch, 3, atoms, atoms, n]`, the same times the directions from the first to
            the second.
    """

    weight: Tensor
    radial: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class Places:
    """Where atoms are, in no frame of their own.

    Attributes:
        positions: `[batch, atoms, 3]` angstrom, from a molecule's mean or the middle of a cell.
        lattice: `[batch, 3, 3]` row vectors as given, zero for molecules.
    """

    positions: Tensor
    lattice: Tensor


def places_of(batch: AtomBatch) -> Places:
    """Molecules from their mean, crystals within their cell and from its middle; nothing turns."""
    periodic = batch.periodic[:, None, None]
    mask = batch.mask.unsqueeze(-1)
    frac = (batch.frac_coords + WRAP) % 1.0 - WRAP
    inside = (frac - CENTRE) @ batch.lattice
    mean = (batch.positions * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    positions = torch.where(periodic, inside, batch.positions - mean) * mask
    return Places(positions, torch.where(periodic, batch.lattice, 0.0))


def fractional(positions: Tensor, lattice: Tensor) -> Tensor:
    """Coordinates in `lattice` `[batch, 3, 3]` of positions `[batch, atoms, 3]` from its middle.

    The inverse is written out: it has a finite gradient, and an answer for flat cells, too.
    """
    a, b, c = lattice.unbind(dim=1)
    normals = torch.stack([b.cross(c, dim=-1), c.cross(a, dim=-1), a.cross(b, dim=-1)], dim=-1)
    volume = (a * normals[..., 0]).sum(-1)
    volume = torch.where(volume < 0, volume.clamp_max(-1e-2), volume.clamp_min(1e-2))
    return positions @ normals / volume[:, None, None] + CENTRE


def gaussians(distances: Tensor, reach: float, num: int) -> Tensor:
    """`[..., num]`, centred at distances from 0 to `reach`."""
    centres = torch.linspace(0, reach, num, device=distances.device)
    return torch.exp(-((distances[..., None] - centres) * (num / reach)).square() / 2)


def neighbours(batch: AtomBatch, cutoff: float) -> Pairs:
    """Pairs of atoms within a cutoff (angstrom), with all periodic images of crystals.

    The images of an atom are summed into one pair, as in Crystalformer (arXiv 2403.11686), so that
    layers work on dense `[atoms, atoms]` arrays.
    """
    num, atoms = batch.mask.shape
    structure, shifts = _images(batch, cutoff)
    positions, frac = batch.positions, batch.frac_coords
    offset = frac[:, None] - frac[:, :, None]  # from the first atom to the second
    offset = (offset - offset.round())[structure] + shifts[:, None, None]
    straight = (positions[:, None] - positions[:, :, None])[structure]
    periodic = batch.periodic[structure, None, None, None]
    vectors = torch.where(periodic, offset @ batch.lattice[structure, None], straight)
    distance = vectors.norm(dim=-1)
    there = batch.mask[:, None] & batch.mask[:, :, None]
    image, first, second = torch.nonzero((distance < cutoff) & there[structure], as_tuple=True)
    distance, vectors = distance[image, first, second], vectors[image, first, second]
    smooth = 0.5 * (torch.cos(distance * (math.pi / cutoff)) + 1.0)
    radial = gaussians(distance, cutoff, NUM_CENTRES) * smooth[:, None]
    direction = vectors / distance.clamp_min(1e-6)[:, None]
    pair = (structure[image] * atoms + first) * atoms + second

    def summed(values: Tensor) -> Tensor:
        total = values.new_zeros(num * atoms * atoms, *values.shape[1:])
        return total.index_add_(0, pair, values).view(num, atoms, atoms, *values.shape[1:])

    vectors = summed(direction[..., None] * radial[:, None]).movedim(3, 1)
    return Pairs(summed(smooth), summed(radial), vectors.contiguous())


def _images(batch: AtomBatch, cutoff: float) -> tuple[Tensor, Tensor]:
    """Structures `[n]` and shifts `[n, 3]` of their images that may be within the cutoff."""
    a, b, c = batch.lattice.unbind(dim=1)
    normals = torch.stack([b.cross(c, dim=-1), c.cross(a, dim=-1), a.cross(b, dim=-1)], dim=1)
    volume = (a * normals[:, 0]).sum(-1).abs()
    heights = volume[:, None] / normals.norm(dim=-1).clamp_min(1e-6)
    most = torch.floor(cutoff / heights.clamp_min(1e-6) + 0.5).clamp_max(MAX_IMAGES)
    most = torch.where(batch.periodic[:, None], most, 0.0)
    sides = [torch.arange(-n, n + 1, device=batch.device) for n in most.amax(dim=0).int().tolist()]
    shifts = torch.cartesian_prod(*sides).to(batch.lattice.dtype).view(-1, 3)
    structure, image = torch.nonzero((shifts.abs() <= most[:, None]).all(dim=-1), as_tuple=True)
    return structure, shifts[image]


def latent_pairs(vectors: Tensor, mask: Tensor | None) -> Pairs:
    """All pairs of atoms, by the differences of their latent vectors `[batch, 3, atoms, n]`."""
    difference = vectors[:, :, None] - vectors[:, :, :, None]  # [batch, 3, atoms, atoms, n]
    distance = (difference.square().sum(dim=1) + 1e-4).sqrt()
    radial = gaussians(
        distance, LARGEST_LATENT, NUM_LATENT_CENTRES
    )  # [batch, atoms, atoms, n, centres]
    direction = difference / distance[:, None]
    weight = torch.ones_like(distance[..., 0])
    if mask is not None:
        weight = weight * (mask[:, None] & mask[:, :, None])
    return Pairs(weight, radial.flatten(3), (direction[..., None] * radial[:, None]).flatten(4))
