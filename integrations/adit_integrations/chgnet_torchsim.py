"""CHGNet as a model of torch-sim, which has none: a batch of crystals in one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from pymatgen.core import Lattice, Structure
from torch_sim.models.interface import ModelInterface

from adit_integrations.chgnet import evaluate, load_calculator


class ChgnetModel(ModelInterface):
    """Energies (eV), forces (eV/angstrom) and stresses (eV/cubic angstrom) of crystals.

    The same numbers as CHGNetCalculator's, to float32 rounding.
    """

    def __init__(self, device: str | None = None) -> None:
        """Load the weights onto a device; None lets CHGNet choose."""
        super().__init__()
        calculator = load_calculator(device)
        self.network = calculator.model
        self.version = calculator.version
        self._device = torch.device(calculator.device)
        self._dtype = torch.float64  # of positions and cells; the network rounds to float32
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms_x_density"

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        """Return energy [systems], forces [atoms, 3] and stress [systems, 3, 3]."""
        cells = state.row_vector_cell.detach().cpu().numpy()
        sizes = torch.bincount(state.system_idx).tolist()
        positions = state.positions.detach().cpu().split(sizes)
        numbers = state.atomic_numbers.cpu().split(sizes)
        structures = [
            Structure(Lattice(cell), z.tolist(), xyz.numpy(), coords_are_cartesian=True)
            for cell, z, xyz in zip(cells, numbers, positions, strict=True)
        ]
        found = evaluate(self.network, structures, self._device)
        energies, forces, stresses = zip(*found, strict=True)
        return {
            "energy": torch.tensor(energies, dtype=self._dtype, device=self._device),
            "forces": torch.cat(forces).to(self._dtype),
            "stress": torch.stack(stresses).to(self._dtype),
        }
