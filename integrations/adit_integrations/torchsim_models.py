"""Potentials of which torch-sim has no model of its own: a batch of crystals in a forward pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch_sim.models.interface import ModelInterface

Answer = tuple[float, torch.Tensor, torch.Tensor]


class CrystalModel(ModelInterface):
    """Energies (eV), forces (eV/angstrom) and stresses (eV/cubic angstrom) of crystals.

    A subclass answers for a list of crystals; the numbers are those of its ASE calculator, to
    float32 rounding.

    Attributes:
        name: of the potential.
    """

    name: str

    def __init__(self, device: str | torch.device) -> None:
        """Say where the numbers go."""
        super().__init__()
        self._device = torch.device(device)
        self._dtype = torch.float64  # of positions and cells; the networks round to float32
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms_x_density"

    @abstractmethod
    def answers(self, crystals: Sequence[Atoms]) -> list[Answer]:
        """Return energy, forces [atoms, 3] and stress [3, 3] of each crystal."""

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
        energies, forces, stresses = zip(*self.answers(crystals), strict=True)
        return {
            "energy": torch.tensor(energies, dtype=self._dtype, device=self._device),
            "forces": torch.cat(forces).to(self._device, self._dtype),
            "stress": torch.stack(stresses).to(self._device, self._dtype),
        }


class ChgnetModel(CrystalModel):
    """CHGNet."""

    def __init__(self, device: str | None = None) -> None:
        """Load the weights onto a device; None lets CHGNet choose."""
        from adit_integrations.chgnet import load_calculator

        calculator = load_calculator(device)
        super().__init__(calculator.device)
        self.network = calculator.model
        self.name = f"chgnet-{calculator.version}"

    def answers(self, crystals: Sequence[Atoms]) -> list[Answer]:
        """See `CrystalModel`."""
        from adit_integrations.chgnet import evaluate
        from adit_plugins.relax.results import bare_structure

        return evaluate(self.network, [bare_structure(atoms) for atoms in crystals], self._device)


class MaceAditModel(CrystalModel):
    """The small MACE `mace-adit`."""

    def __init__(self, folder: str | Path | None = None, device: str | None = None) -> None:
        """Load weights; see `mace_adit.SmallMace`."""
        from adit_integrations.mace_adit.relaxer import SmallMace

        small = SmallMace(folder, device)
        super().__init__(small.device)
        self.small, self.name = small, small.name

    def answers(self, crystals: Sequence[Atoms]) -> list[Answer]:
        """See `CrystalModel`."""
        return [
            (each.energy, torch.from_numpy(each.forces), torch.from_numpy(each.stress))
            for each in self.small.evaluate(crystals)
        ]
