"""The `mace-adit` relaxer: a small MACE distilled from CHGNet, shipped with its weights.

It costs milliseconds a step and stands before an accurate potential: what it finds far above the
hull need not be relaxed again, and the rest starts from its geometry. Energies are on the scale of
the Materials Project with the 2020 corrections, as its teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from adit_integrations.mace_adit import network as nets
from adit_integrations.mace_adit.batched_fire import Evaluation, relax_together
from adit_plugins.relax.results import RelaxResult

NAME = "mace-adit"
WEIGHTS = Path(__file__).parent / "weights" / NAME

# eV/atom: as for CHGNet, outside lies extrapolation.
ENERGY_BOUNDS = (-18.0, 10.0)
# eV/atom between the two readouts; beyond, the accurate potential is to judge.
MAX_DISAGREEMENT = 0.1


class SmallMace:
    """The network on a device, for batches of crystals."""

    def __init__(self, folder: str | Path | None = None, device: str | None = None) -> None:
        """Load weights.

        Args:
            folder: of a training run's `model`; None for the shipped weights.
            device: `"cpu"`, `"cuda"`; None takes CUDA if there is one.

        Raises:
            PrefilterError: weights are missing or damaged.
        """
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.config, network = nets.load(WEIGHTS if folder is None else Path(folder))
        self.network = network.to(self.device)

    def evaluate(self, crystals: Sequence[Atoms], head: int = 0) -> list[Evaluation]:
        """Return energy, forces and stress of each crystal, in one forward pass.

        Raises:
            ValueError: an element is unknown.
        """
        output = self._forward(crystals, head, True)
        sizes = [len(atoms) for atoms in crystals]
        forces = output["forces"].detach().cpu().double().split(sizes)
        stress = output["stress"].detach().cpu().double()
        energies = output["energy"].detach().cpu().tolist()
        return [
            Evaluation(energy, forces[i].numpy(), stress[i].numpy())
            for i, energy in enumerate(energies)
        ]

    def energies(self, crystals: Sequence[Atoms], head: int = 0) -> list[float]:
        """Return the total energy of each crystal, eV, without forces, in one forward pass.

        Raises:
            ValueError: an element is unknown.
        """
        found: list[float] = self._forward(crystals, head, False)["energy"].detach().cpu().tolist()
        return found

    def disagreement(self, crystals: Sequence[Atoms]) -> NDArray[np.float64]:
        """Return by how much the committee differs, eV/atom, [crystals]; 0 with one readout."""
        energies = [self.energies(crystals, head) for head in range(self.config.num_heads)[-2:]]
        sizes = np.array([len(atoms) for atoms in crystals])
        spread: NDArray[np.float64] = np.ptp(np.array(energies), axis=0) / sizes
        return spread

    def review(self, before: Sequence[Atoms], results: Sequence[RelaxResult]) -> list[RelaxResult]:
        """Return results, with failures where the readouts disagree about what came out.

        A pre-filter's failure sends a structure on as it was: nothing is thrown away unjudged.
        """
        reviewed = list(results)
        places = [place for place, result in enumerate(results) if not result.failed]
        if not places:
            return reviewed
        spreads = self.disagreement([results[place].atoms for place in places])
        for place, spread in zip(places, spreads.tolist(), strict=True):
            if spread > MAX_DISAGREEMENT:
                reason = f"uncertain: the readouts of {NAME} differ by {spread:.2f} eV/atom"
                end = results[place]
                reviewed[place] = RelaxResult.failure(
                    before[place].copy(), reason, NAME, end.num_steps, end.seconds
                )
        return reviewed

    def _forward(self, crystals: Sequence[Atoms], head: int, forces: bool) -> dict[str, Any]:
        graphs = [nets.graph_of(atoms, self.config) for atoms in crystals]
        num_elements = len(self.config.elements)
        batch = nets.collate(graphs, num_elements, [head] * len(graphs), self.device)
        output: dict[str, Any] = self.network(batch, compute_force=forces, compute_stress=forces)
        return output


class MaceAditCalculator(Calculator):
    """The network as an ASE calculator of crystals: energy, forces, stress in eV and angstrom."""

    implemented_properties = (  # type: ignore[assignment]
        "energy",
        "free_energy",
        "forces",
        "stress",
    )

    def __init__(self, folder: str | Path | None = None, device: str | None = None) -> None:
        """Load weights; see `SmallMace`."""
        super().__init__()
        self.model = SmallMace(folder, device)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] | None = None,
    ) -> None:
        """Fill `results`.

        Raises:
            ValueError: an element is unknown, or the structure is not periodic.
        """
        super().calculate(atoms, properties, system_changes or all_changes)
        if not self.atoms.pbc.all():
            raise ValueError(f"{NAME} describes crystals; pbc is {self.atoms.pbc.tolist()}")
        (found,) = self.model.evaluate([self.atoms])
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,
            "forces": found.forces,
            "stress": full_3x3_to_voigt_6_stress(found.stress),
        }


class MaceAditRelaxer:
    """Relaxes crystals in batches; what the network does not know is said so, not judged.

    Attributes:
        name: `mace-adit`.
        chunk_atoms: atoms in a batch. An evaluation has a cost of its own, and fewer and fewer
            structures share it as they converge (`benchmarks/prefilter_speed.py` counts them).
        elements: atomic numbers that the network knows.
    """

    name = NAME
    energy_bounds = ENERGY_BOUNDS
    chunk_atoms: ClassVar[int] = 1024 if torch.cuda.is_available() else 256

    def __init__(
        self,
        folder: str | Path | None = None,
        max_seconds: float = 30.0,
        device: str | None = None,
    ) -> None:
        """Load the network.

        Args:
            folder: of weights of your own, as in `mace-adit:FOLDER`; None for the shipped ones.
            max_seconds: wall-clock limit a structure.
            device: `"cpu"`, `"cuda"`; None takes CUDA if there is one.

        Raises:
            PrefilterError: weights are missing or damaged.
        """
        self.model = SmallMace(folder, device)
        self.max_seconds = max_seconds
        self.elements = frozenset(self.model.config.known)

    def energies(self, batch: Sequence[Atoms]) -> list[float]:
        """Energies of crystals as they are, eV; see `SmallMace.energies`."""
        return self.model.energies(batch)

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Relax crystals together; see `adit_plugins.relax.Relaxer`."""
        results = relax_together(
            batch,
            self.model.evaluate,
            name=NAME,
            fmax=fmax,
            max_steps=max_steps,
            max_seconds=self.max_seconds,
            energy_bounds=ENERGY_BOUNDS,
            elements=self.elements,
        )
        return self.model.review(batch, results)
