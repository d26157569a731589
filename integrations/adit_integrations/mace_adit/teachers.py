"""Who says energy, forces and stress of a structure to learn from: any relaxer's potential.

CHGNet and SevenNet answer for a batch in one pass, on a GPU if asked; every other potential by its
ASE calculator, one structure after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from adit_integrations.mace_adit.label_set import LabelError
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import MP2020, MP_RAW, bare_structure, broken_energy

ENERGY_BOUNDS = (-18.0, 10.0)  # eV/atom; outside lies extrapolation
MAX_FORCE = 60.0  # eV/angstrom, likewise
SEVENNET_BATCHES = Path(__file__).parents[1] / "sevennet_batches.py"
SECONDS = 600.0  # that a batch may take elsewhere


@dataclass(frozen=True)
class Answer:
    """What a potential says.

    Attributes:
        energy: eV.
        forces: eV/angstrom, [num_atoms, 3].
        stress: eV/cubic angstrom, [3, 3]; zero for molecules.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]

    @property
    def is_sane(self) -> bool:
        """Whether it can be learned from."""
        broken = broken_energy(self.energy / len(self.forces), self.forces, ENERGY_BOUNDS)
        return not broken and float(np.linalg.norm(self.forces, axis=1).max()) <= MAX_FORCE


class Teacher(Protocol):
    """A potential as a teacher.

    Attributes:
        name: with its version.
        convention: of its energies, see `adit_plugins.relax.results`.
        batch: structures that it is asked about at once.
    """

    name: str
    convention: str
    batch: int

    def say(self, batch: Sequence[Atoms]) -> list[Answer | None]:
        """Answer for each structure; None where there is no answer to learn from."""
        ...


class Chgnet:
    """CHGNet: energies with the Materials Project's 2020 corrections."""

    convention, batch = MP2020, 8  # on CPUs larger ones are no faster

    def __init__(self, device: str) -> None:
        """Load the weights."""
        from adit_integrations.chgnet import load_calculator

        calculator = load_calculator(device)
        self.name, self.device = f"chgnet-{calculator.version}", device
        self.model = calculator.model

    def say(self, batch: Sequence[Atoms]) -> list[Answer | None]:
        """See `Teacher`."""
        from adit_integrations.chgnet import evaluate

        try:
            answers = evaluate(self.model, [bare_structure(each) for each in batch], self.device)
        except (ValueError, RuntimeError):  # one isolated atom spoils the batch
            if len(batch) == 1:
                return [None]
            return [self.say([each])[0] for each in batch]
        found = (
            Answer(energy, forces.cpu().double().numpy(), stress.cpu().double().numpy())
            for energy, forces, stress in answers
        )
        return [each if each.is_sane else None for each in found]


class Calculators:
    """Any ASE calculator, here or in a Python of its own."""

    def __init__(
        self, name: str, convention: str, calculator: Calculator, crystals_only: bool, batch: int
    ) -> None:
        """Ask one structure at a time, or `batch` where the calculator takes many."""
        self.name, self.convention, self.batch = name, convention, batch
        self.calculator, self.crystals_only = calculator, crystals_only

    def say(self, batch: Sequence[Atoms]) -> list[Answer | None]:
        """See `Teacher`."""
        many = getattr(self.calculator, "evaluate_many", None)
        return [self._one(atoms) for atoms in batch] if many is None else self._many(batch, many)

    def _one(self, atoms: Atoms) -> Answer | None:
        crystal = bool(atoms.pbc.all())
        if self.crystals_only and not crystal:
            return None
        asked = atoms.copy()
        asked.calc = self.calculator
        try:
            stress = asked.get_stress(voigt=False) if crystal else np.zeros((3, 3))
            answer = Answer(float(asked.get_potential_energy()), asked.get_forces(), stress)
        except Exception:  # noqa: BLE001 - a potential may raise anything
            return None
        return answer if answer.is_sane else None

    def _many(
        self, batch: Sequence[Atoms], many: Callable[[Sequence[Atoms]], list[dict[str, object]]]
    ) -> list[Answer | None]:
        found: list[Answer | None] = []
        for said in many(batch):
            if "error" in said:
                found.append(None)
                continue
            stress = np.asarray(said.get("stress", np.zeros(6)), dtype=float)
            answer = Answer(
                float(np.asarray(said["energy"])),
                np.asarray(said["forces"], dtype=float),
                voigt_6_to_full_3x3_stress(stress),
            )
            found.append(answer if answer.is_sane else None)
        return found


def load_teacher(spec: str, device: str) -> Teacher:
    """Load a potential by the name of its relaxer.

    Args:
        spec: `chgnet`, `sevennet:l3i5` or any other name that `adit relax --relaxer` takes.
        device: `"cpu"`, `"cuda"`, ...; of CHGNet and SevenNet, others choose by themselves.

    Raises:
        LabelError: it has no ASE calculator to ask.
        ValueError: there is no such potential, or it cannot be loaded.
    """
    name, _, model = spec.partition(":")
    if spec == "chgnet":
        return Chgnet(device)
    if name == "sevennet":
        return _sevennet(model or "0", device)
    from adit_plugins.registry import MissingExtraError, UnknownPluginError
    from adit_plugins.relax.run import RelaxerError, load_relaxer

    try:
        relaxer = load_relaxer(spec)
    except (UnknownPluginError, MissingExtraError, RelaxerError) as error:
        raise LabelError(f"--teacher {spec}: {error}") from error
    if not isinstance(relaxer, AseRelaxer):
        raise LabelError(
            f"--teacher {spec} gives no energies of single structures; take a potential with an "
            "ASE calculator, such as chgnet or sevennet:l3i5"
        )
    return Calculators(
        relaxer.name, relaxer.convention, relaxer.calculator, relaxer.crystals_only, batch=1
    )


def _sevennet(model: str, device: str) -> Calculators:
    from adit_integrations.sevennet import ENVIRONMENT, MODELS, check
    from adit_plugins.relax.elsewhere import RemoteCalculator

    check(model)
    arguments = {"model": MODELS[model], "device": device}
    calculator = RemoteCalculator(ENVIRONMENT, f"{SEVENNET_BATCHES}:make", arguments, SECONDS)
    batch = 8 if device == "cpu" else 128
    return Calculators(f"sevennet-{model}", MP_RAW, calculator, crystals_only=False, batch=batch)
