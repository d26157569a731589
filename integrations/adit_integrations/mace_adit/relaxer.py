"""The `mace-adit` relaxer: a small MACE distilled from accurate potentials, with its weights.

It costs milliseconds a step and stands before an accurate potential: what it finds far above the
hull need not be relaxed again, and the rest starts from its geometry. Crystals' energies are on the
scale of their teacher's, molecules' (one after the other) on no scale of the hull's.
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
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import RelaxResult

NAME = "mace-adit"
WEIGHTS = Path(__file__).parent / "weights" / NAME
# Shipped beside it, as `mace-adit:NAME`.
OTHERS = {"sevennet": WEIGHTS.with_name(f"{NAME}-sevennet")}

# eV/atom: as for CHGNet, outside lies extrapolation.
ENERGY_BOUNDS = (-18.0, 10.0)
# eV/atom between the two readouts; beyond, the accurate potential is to judge.
MAX_DISAGREEMENT = 0.1


def folder_of(weights: str | Path | None) -> Path:
    """Where weights are: the shipped ones for None, others of them by name, or a folder."""
    if weights is None:
        return WEIGHTS
    return OTHERS.get(str(weights), Path(weights))


def name_of(folder: Path) -> str:
    """Return the potential's name; what is known of shipped weights is not said of others."""
    return folder.name if folder in (WEIGHTS, *OTHERS.values()) else f"{NAME}:{folder}"


class SmallMace:
    """The network on a device, for batches of crystals and molecules."""

    def __init__(self, folder: str | Path | None = None, device: str | None = None) -> None:
        """Load weights.

        Args:
            folder: of a training run's `model`; None for the shipped weights, see `folder_of`.
            device: `"cpu"`, `"cuda"`; None takes CUDA if there is one.

        Raises:
            PrefilterError: weights are missing or damaged.
        """
        self.name = name_of(folder_of(folder))
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.config, network = nets.load(folder_of(folder))
        self.network = network.to(self.device)

    def evaluate(self, crystals: Sequence[Atoms]) -> list[Evaluation]:
        """Return energy, forces and stress of each structure, in one forward pass.

        Raises:
            ValueError: an element is unknown, or a structure is of no kind that it was taught.
        """
        output = self._forward(crystals, 0, True)
        sizes = [len(atoms) for atoms in crystals]
        forces = output["forces"].detach().cpu().double().split(sizes)
        stress = output["stress"].detach().cpu().double()
        energies = output["energy"].detach().cpu().tolist()
        return [
            Evaluation(energy, forces[i].numpy(), stress[i].numpy())
            for i, energy in enumerate(energies)
        ]

    def energies(self, crystals: Sequence[Atoms], head: int = 0) -> list[float]:
        """Return the total energy of each structure, eV, without forces, in one forward pass.

        Args:
            crystals: or molecules, which have a readout of their own.
            head: the readout asked of crystals.

        Raises:
            ValueError: an element is unknown, or a structure is of no kind that it was taught.
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
                reason = f"uncertain: the readouts of {self.name} differ by {spread:.2f} eV/atom"
                end = results[place]
                reviewed[place] = RelaxResult.failure(
                    before[place].copy(), reason, self.name, end.num_steps, end.seconds
                )
        return reviewed

    def _forward(self, crystals: Sequence[Atoms], head: int, forces: bool) -> dict[str, Any]:
        graphs = [nets.graph_of(atoms, self.config) for atoms in crystals]
        heads = [self._head(atoms, head) for atoms in crystals]
        batch = nets.collate(graphs, len(self.config.elements), heads, self.device)
        output: dict[str, Any] = self.network(batch, compute_force=forces, compute_stress=forces)
        return output

    def _head(self, atoms: Atoms, head: int) -> int:
        if atoms.pbc.all():
            return head
        if atoms.pbc.any():
            raise ValueError(
                f"{NAME} describes crystals and molecules; pbc is {atoms.pbc.tolist()}"
            )
        if not self.config.molecules:
            raise ValueError("not periodic: these weights were taught crystals only")
        return self.config.molecule_head


class MaceAditCalculator(Calculator):
    """The network as an ASE calculator: energy, forces, crystals' stress in eV and angstrom."""

    implemented_properties = (  # type: ignore[assignment]
        "energy",
        "free_energy",
        "forces",
        "stress",
    )

    def __init__(
        self,
        folder: str | Path | None = None,
        device: str | None = None,
        model: SmallMace | None = None,
    ) -> None:
        """Load weights, see `SmallMace`, or take a network that is loaded."""
        super().__init__()
        self.model = model or SmallMace(folder, device)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] | None = None,
    ) -> None:
        """Fill `results`.

        Raises:
            ValueError: see `SmallMace.evaluate`.
        """
        super().calculate(atoms, properties, system_changes or all_changes)
        (found,) = self.model.evaluate([self.atoms])
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,
            "forces": found.forces,
        }
        if self.atoms.pbc.all():
            self.results["stress"] = full_3x3_to_voigt_6_stress(found.stress)


class MaceAditRelaxer:
    """Relaxes crystals in batches, molecules one by one.

    What the network does not know is said so, not judged.

    Attributes:
        name: `mace-adit`, and which weights, if not the usual ones.
        chunk_atoms: atoms in a batch. An evaluation has a cost of its own, and fewer and fewer
            structures share it as they converge (`benchmarks/prefilter_speed.py` counts them).
        elements: atomic numbers that the network knows in crystals.
        convention: of crystals' energies, see `adit_plugins.relax.results`.
    """

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
            folder: of weights of your own, as in `mace-adit:FOLDER`, or `sevennet`; None for the
                shipped ones.
            max_seconds: wall-clock limit a structure.
            device: `"cpu"`, `"cuda"`; None takes CUDA if there is one.

        Raises:
            PrefilterError: weights are missing or damaged.
        """
        self.model = SmallMace(folder, device)
        self.name = self.model.name
        self.max_seconds = max_seconds
        self.elements = frozenset(self.model.config.known)
        self.convention = self.model.config.convention

    def energies(self, batch: Sequence[Atoms]) -> list[float]:
        """Energies of crystals as they are, eV; see `SmallMace.energies`."""
        return self.model.energies(batch)

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Relax structures; see `adit_plugins.relax.Relaxer`."""
        if not self.model.config.molecules:
            return self._relax_crystals(batch, fmax, max_steps)
        crystals = [atoms for atoms in batch if atoms.pbc.any()]
        found = iter(self._relax_crystals(crystals, fmax, max_steps))
        return [
            next(found) if atoms.pbc.any() else self._relax_molecule(atoms, fmax, max_steps)
            for atoms in batch
        ]

    def _relax_crystals(
        self, batch: Sequence[Atoms], fmax: float, max_steps: int
    ) -> list[RelaxResult]:
        results = relax_together(
            batch,
            self.model.evaluate,
            name=self.name,
            fmax=fmax,
            max_steps=max_steps,
            max_seconds=self.max_seconds,
            energy_bounds=ENERGY_BOUNDS,
            elements=self.elements,
            convention=self.convention,
        )
        return self.model.review(batch, results)

    def _relax_molecule(self, atoms: Atoms, fmax: float, max_steps: int) -> RelaxResult:
        relaxer = AseRelaxer(
            self.name,
            MaceAditCalculator(model=self.model),
            self.max_seconds,
            convention="",
            elements=frozenset(self.model.config.known_in_molecules),
        )
        return relaxer.relax([atoms], fmax, max_steps)[0]
