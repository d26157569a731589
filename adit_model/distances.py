"""An auxiliary loss of the denoiser: distances between near atoms in the decoded prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from adit_model.autoencoder import Decoded
from adit_model.batch import AtomBatch, lattice_from_parameters

REACH = {"crystal": 4.0, "molecule": 3.0}  # angstrom, pairs that are nearer count
FLOOR = 0.05  # angstrom; smaller errors hardly pull


def distance_errors(decoded: Decoded, batch: AtomBatch, periodic: bool) -> Tensor:
    """Mean of log(1 + (error of a distance / FLOOR)^2) for each structure, `[batch]`.

    A latent's squared error weighs every direction alike, while a molecule is valid by its bond
    lengths. Logarithms keep structures that are far off, early on the way, from drowning the rest.

    Args:
        decoded: the decoder's outputs for structures without padding.
        batch: the true structures of one kind, in any orientation; crystals in the same cell and
            with the same origin.
        periodic: whether they are crystals.
    """
    if periodic:
        offsets = batch.frac_coords[:, :, None] - batch.frac_coords[:, None]
        image = offsets.round()  # of the same pair of atoms in both structures
        true = _lengths((offsets - image) @ batch.lattice[:, None])
        guessed = decoded.frac_coords[:, :, None] - decoded.frac_coords[:, None] - image
        lattice = lattice_from_parameters(decoded.lengths.clamp_min(1e-3), decoded.angles)
        found = _lengths(guessed @ lattice[:, None])
        reach = REACH["crystal"]
    else:
        true = _lengths(batch.positions[:, :, None] - batch.positions[:, None])
        found = _lengths(decoded.positions[:, :, None] - decoded.positions[:, None])
        reach = REACH["molecule"]
    near = (true < reach) & ~torch.eye(true.shape[1], dtype=torch.bool, device=true.device)
    errors = torch.log1p(((found - true) / FLOOR).square())
    return (errors * near).sum(dim=(1, 2)) / near.sum(dim=(1, 2)).clamp_min(1)


def _lengths(vectors: Tensor) -> Tensor:
    return (vectors.square().sum(dim=-1) + 1e-6).sqrt()
