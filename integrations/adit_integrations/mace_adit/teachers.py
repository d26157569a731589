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
from adit_plugins.processes import LostError
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import (
    MP2020,
    MP_RAW,
    SaidError,
    bare_structure,
    broken_energy,
    raised,
)

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

    def problem(self, num_atoms: int) -> str:
        """Say why it cannot be learned from, or nothing."""
        shapes = {"forces": (num_atoms, 3), "stress": (3, 3)}
        for name, shape in shapes.items():
            if (found := getattr(self, name).shape) != shape:
                return f"{name} of the shape {found}, not {shape}"
        if not np.isfinite(self.stress).all():
            return "stress is not finite"
        largest = float(np.linalg.norm(self.forces, axis=1).max())
        return broken_energy(self.energy / num_atoms, self.forces, ENERGY_BOUNDS) or (
            f"force above {MAX_FORCE:g} eV/angstrom" if largest > MAX_FORCE else ""
        )


class Teacher(Protocol):
    """A potential as a teacher.

    Attributes:
        name: with its version.
        convention: of its energies, see `adit_plugins.relax.results`.
        batch: structures that it is asked about at once.
        problem: why the last structure without an answer has none.
    """

    name: str
    convention: str
    batch: int
    problem: str

    def say(self, batch: Sequence[Atoms]) -> list[Answer | None]:
        """Answer for each structure; None where there is no answer to learn from."""
        ...


class _Choosy:
    """Keeps the answers that can be learned from, and why the last other one cannot."""

    problem = ""

    def kept(self, answer: Answer, atoms: Atoms) -> Answer | None:
        """Return the answer, or None."""
        return self.none(problem) if (problem := answer.problem(len(atoms))) else answer

    def none(self, problem: str) -> Answer | None:
        """Remember why there is no answer, and return none."""
        self.problem = problem
        return None


class Chgnet(_Choosy):
    """CHGNet: energies with the Materials Project's 2020 corrections."""

    convention, batch = MP2020, 8  # on CPUs larger ones are no faster

    def __init__(self, device: str) -> None:
        """Load the weights.

        Raises:
            ValueError: there is no such device.
        """
        from adit_integrations.chgnet import load_calculator
        from adit_plugins.generation.recipe import check_device

        check_device(device)

        calculator = load_calculator(device)
        self.name, self.device = f"chgnet-{calculator.version}", device
        self.model = calculator.model

    def say(self, batch: Sequence[Atoms]) -> list[Answer | None]:
        """See `Teacher`."""
        from adit_integrations.chgnet import evaluate

        try:
            answers = evaluate(self.model, [bare_structure(each) for each in batch], self.device)
        except (ValueError, RuntimeError) as error:  # one isolated atom spoils the batch
            if len(batch) == 1:
                return [self.none(raised(error))]
            return [self.say([each])[0] for each in batch]
        found = (
            Answer(energy, forces.cpu().double().numpy(), stress.cpu().double().numpy())
            for energy, forces, stress in answers
        )
        return [self.kept(answer, atoms) for answer, atoms in zip(found, batch, strict=True)]


class Calculators(_Choosy):
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
            return self.none(f"not periodic: {self.name} describes crystals only")
        asked = atoms.copy()
        asked.calc = self.calculator
        try:
            stress = asked.get_stress(voigt=False) if crystal else np.zeros((3, 3))
            answer = Answer(float(asked.get_potential_energy()), asked.get_forces(), stress)
        except Exception as error:  # noqa: BLE001 - a potential may raise anything
            return self.none(raised(error))
        return self.kept(answer, atoms)

    def _many(
        self, batch: Sequence[Atoms], many: Callable[[Sequence[Atoms]], list[dict[str, object]]]
    ) -> list[Answer | None]:
        try:
            answers = many(batch)
        except (SaidError, LostError) as error:  # whichever of them it was, it spoils the batch
            if len(batch) == 1:
                return [self.none(raised(error))]
            return [self._many([each], many)[0] for each in batch]
        return [self._said(said, atoms) for said, atoms in zip(answers, batch, strict=True)]

    def _said(self, said: dict[str, object], atoms: Atoms) -> Answer | None:
        if "error" in said:
            return self.none(str(said["error"]))
        needed = ("energy", "forces", *(["stress"] if atoms.pbc.all() else []))
        if missing := [name for name in needed if name not in said]:
            return self.none(f"no {', '.join(missing)} in the answer")
        try:
            stress = np.asarray(said.get("stress", np.zeros(6)), dtype=float)
            answer = Answer(
                float(np.asarray(said["energy"])),
                np.asarray(said["forces"], dtype=float),
                voigt_6_to_full_3x3_stress(stress),
            )
        except (TypeError, ValueError) as error:
            return self.none(raised(error))
        return self.kept(answer, atoms)


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
    calculator = RemoteCalculator(
        ENVIRONMENT, f"{SEVENNET_BATCHES}:BatchedSevenNet", arguments, SECONDS
    )
    batch = 8 if device == "cpu" else 128
    return Calculators(f"sevennet-{model}", MP_RAW, calculator, crystals_only=False, batch=batch)
