"""What the decoder says, read as atoms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adit_model.autoencoder import Decoded
from adit_model.batch import AtomBatch, lattice_from_parameters

# Logits `[batch, atoms, num_types]` -> atomic numbers `[batch, atoms]`.
ChooseTypes = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Drawn:
    """What `ADiT.draw` gives.

    Attributes:
        batch: the structures.
        agreement: `[batch]`, share of the atoms whose element the decoder reads from the latent as
            the network was told it; None where it was not told.
        steering: of each sample its score, weight, lineage and effective sample sizes; None
            without steering.
    """

    batch: AtomBatch
    agreement: Tensor | None
    steering: list[dict[str, Any]] | None = None


def unpadded_atoms(
    decoded: Decoded, periodic: bool, choose_types: ChooseTypes | None = None
) -> AtomBatch:
    """`to_atoms` of structures of one kind and size."""
    shape, device = decoded.type_logits.shape[:2], decoded.type_logits.device
    mask = torch.ones(shape, dtype=torch.bool, device=device)
    return to_atoms(decoded, torch.full(shape[:1], periodic, device=device), mask, choose_types)


def to_atoms(
    decoded: Decoded, periodic: Tensor, mask: Tensor, choose_types: ChooseTypes | None = None
) -> AtomBatch:
    """Read a crystal from types, fractional coordinates and cell; a molecule from positions.

    Cells and coordinates are taken as they come: an impossible cell stays impossible, for the
    validity checks to count.
    """
    # 0 is no element: the next likely type would be a choice of ours, 1 is the published one.
    most_likely = decoded.type_logits.argmax(dim=-1).clamp_min(1)
    numbers = (choose_types(decoded.type_logits) if choose_types else most_likely) * mask
    crystal = periodic[:, None, None]
    atoms = mask.unsqueeze(-1)
    frac = torch.where(crystal & atoms, decoded.frac_coords % 1.0, 0.0)
    lattice = lattice_from_parameters(decoded.lengths.clamp_min(1e-3), decoded.angles)
    lattice = torch.where(crystal, lattice, 0.0)
    mean = (decoded.positions * atoms).sum(1, keepdim=True) / atoms.sum(1, keepdim=True)
    positions = torch.where(crystal, frac @ lattice, (decoded.positions - mean) * atoms)
    return AtomBatch(numbers, frac, positions, lattice, periodic, mask)
