"""The small MACE `mace-adit` as a model of torch-sim: a batch of crystals in one forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch_sim.models.interface import ModelInterface

from adit_integrations.mace_adit import NAME, SmallMace


class MaceAditModel(ModelInterface):
    """Energies (eV), forces (eV/angstrom) and stresses (eV/cubic angstrom) of crystals.

    The same numbers as the ASE calculator's, to float32 rounding.
    """

    def __init__(self, folder: str | Path | None = None, device: str | None = None) -> None:
        """Load weights; see `SmallMace`."""
        super().__init__()
        self.small = SmallMace(folder, device)
        self.name = NAME
        self._device = self.small.device
        self._dtype = torch.float64  # of positions and cells; the network rounds to float32
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms_x_density"

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        """Return energy [systems], forces [atoms, 3] and stress [systems, 3, 3]."""
        cells = state.row_vector_cell.detach().cpu().numpy()
        sizes = torch.bincount(state.system_idx).tolist()
        positions = state.positions.detach().cpu().split(sizes)
        numbers = state.atomic_numbers.cpu().split(sizes)
        crystals = [
            Atoms(z.numpy(), xyz.numpy(), cell=cell, pbc=True)
            for cell, z, xyz in zip(cells, numbers, positions, strict=True)
        ]
        found = self.small.evaluate(crystals)

        return {
            "energy": torch.tensor([each.energy for each in found], dtype=self._dtype).to(
                self._device
            ),
            "forces": torch.cat([torch.from_numpy(each.forces) for each in found]).to(self._device),
            "stress": torch.stack([torch.from_numpy(each.stress) for each in found]).to(
                self._device
            ),
        }
