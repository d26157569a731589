"""What a relaxation gives back, and the checks on a structure that every backend shares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list
from ase.units import GPa
from numpy.typing import NDArray

from adit_plugins.processes import LostError
from adit_plugins.structures.symmetry import symmetry_dataset

if TYPE_CHECKING:
    from pymatgen.core import Structure

# Energy conventions: with the Materials Project's 2020 corrections in them, or raw energies of its
# settings (PBE, PBE+U), to which they are yet to be added.
MP2020, MP_RAW = "mp2020", "mp-raw"
CONVENTIONS = (MP2020, MP_RAW)

# Cubic angstrom an atom. Diamond, the densest solid, has 5.7; below 2 neighbour lists explode and
# no potential has data. Above 1,000 nothing is bound.
VOLUME_BOUNDS = (2.0, 1000.0)
MIN_DISTANCE = 0.5  # angstrom
MAX_REASON = 200  # characters; TorchScript's errors run over pages


@dataclass(frozen=True)
class RelaxResult:
    """The outcome for one structure.

    Attributes:
        atoms: the relaxed structure with energy, forces and stress attached; the input where the
            relaxation failed. `info` (with the provenance) is kept.
        converged: the largest force (and stress component, for crystals) fell below the limit.
        reason: `"converged"`, `"step limit"`, `"time limit"`, or what went wrong.
        num_steps: optimiser steps taken.
        energy: eV; None where the relaxation failed.
        energy_per_atom: eV/atom; None where the relaxation failed.
        max_force: eV/angstrom, the longest force vector at the end, whatever holds the atoms.
        potential: name of the relaxer.
        seconds: wall-clock time of this structure.
        max_stress: GPa, the largest component; None for molecules.
        rmsd: angstrom, how far the atoms moved beside the change of the cell.
        volume_change: as a fraction of the volume before; None for molecules.
        space_group_before: international number at 0.1 angstrom; None for molecules.
        space_group_after: the same of the relaxed structure.
        convention: of the energy, one of `CONVENTIONS`; empty if not on the scale of the
            Materials Project.
        constraints: what became of those of the input: `"dropped"`, `"kept"`, or empty where there
            were none.
        max_free_force: eV/angstrom, the longest force that kept constraints leave, on which
            `converged` rests; None without constraints.
    """

    atoms: Atoms
    converged: bool
    reason: str
    num_steps: int
    energy: float | None
    energy_per_atom: float | None
    max_force: float | None
    potential: str
    seconds: float = 0.0
    max_stress: float | None = None
    rmsd: float | None = None
    volume_change: float | None = None
    space_group_before: int | None = None
    space_group_after: int | None = None
    convention: str = MP2020
    constraints: str = ""
    max_free_force: float | None = None

    @property
    def failed(self) -> bool:
        """Whether there is no usable energy; an unconverged result still has one."""
        return self.energy is None

    @classmethod
    def failure(
        cls, atoms: Atoms, reason: str, potential: str, num_steps: int = 0, seconds: float = 0.0
    ) -> RelaxResult:
        """Return the record of a structure whose relaxation gave no usable result."""
        return cls(atoms, False, reason, num_steps, None, None, None, potential, seconds)

    def as_record(self) -> dict[str, Any]:
        """Return all but the atoms, for tables and JSON."""
        return {name: value for name, value in vars(self).items() if name != "atoms"}


def finished(
    before: Atoms,
    after: Atoms,
    energy: float,
    forces: NDArray[np.float64],
    stress: NDArray[np.float64] | None,
    **outcome: Any,
) -> RelaxResult:
    """Return the result of a relaxation that ended with an energy.

    Args:
        before: the input.
        after: the relaxed structure, atoms in the same order.
        energy: eV.
        forces: eV/angstrom, [num_atoms, 3]; all of them, also on atoms that a constraint holds.
        stress: eV/cubic angstrom in Voigt order, [6]; None for molecules.
        **outcome: reason, num_steps, potential, seconds and convention.
    """
    final = after.copy()
    final.info = dict(before.info)
    final.calc = SinglePointCalculator(
        final, energy=energy, forces=forces, **({} if stress is None else {"stress": stress})
    )
    crystal = bool(before.pbc.all())
    return RelaxResult(
        atoms=final,
        converged=outcome["reason"] == "converged",
        energy=energy,
        energy_per_atom=energy / len(final),
        max_force=_longest(forces),
        max_free_force=_longest(final.get_forces()) if final.constraints else None,
        max_stress=None if stress is None else float(np.abs(stress).max() / GPa),
        rmsd=displacement(before, final),
        volume_change=float(final.cell.volume / before.cell.volume - 1) if crystal else None,
        space_group_before=space_group(before) if crystal else None,
        space_group_after=space_group(final) if crystal else None,
        **outcome,
    )


def _longest(forces: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(forces, axis=1).max())


def without_constraints(atoms: Atoms) -> Atoms:
    """Return the structure, a copy without constraints where it has any."""
    if not atoms.constraints:
        return atoms
    free = atoms.copy()
    free.set_constraint()
    return free


def right_handed(atoms: Atoms) -> Atoms:
    """Return the same crystal with a right-handed cell, atoms where they are.

    The vectors -a, -b, -c span the same lattice as a, b, c. Programs that take the determinant of
    the cell for its volume need this, and VASP refuses anything else.
    """
    if not atoms.pbc.all() or atoms.cell.handedness > 0:
        return atoms
    turned = atoms.copy()
    turned.cell = -turned.cell
    return turned


def bare_structure(atoms: Atoms) -> Structure:
    """Return the geometry of a crystal alone, for pymatgen.

    Magnetic moments, charges and whatever else a file brings along as site properties stay behind:
    pymatgen's input sets read them, and stop at moments that are vectors.
    """
    from pymatgen.core import Structure

    return Structure(
        atoms.cell.array, atoms.numbers.tolist(), atoms.positions, coords_are_cartesian=True
    )


class SaidError(RuntimeError):
    """What another process has said of an error: the text names its type already."""


def raised(error: Exception) -> str:
    """Return the reason that stands for an exception: one line, as tables and counts need it."""
    text = " ".join(str(error).split())
    text = f"{text[:MAX_REASON]}{'...' if len(text) > MAX_REASON else ''}"
    return text if isinstance(error, SaidError | LostError) else f"{type(error).__name__}: {text}"


def without_stress(atoms: Atoms, calculator: Any, potential: str) -> str:
    """Say that a crystal cannot be relaxed as its potential gives no stress, or nothing."""
    known = getattr(calculator, "implemented_properties", None)
    if known is None or "stress" in known or not atoms.pbc.all():
        return ""
    return f"no stress: {potential} gives none, and a crystal's cell cannot be relaxed without it"


def outcomes(results: Iterable[RelaxResult]) -> dict[str, int]:
    """Count how relaxations ended, most frequent first."""
    return dict(Counter(kind_of(result.reason) for result in results).most_common())


def kind_of(reason: str) -> str:
    """Return what stands before a colon; the whole reason where that is an exception."""
    kind = reason.partition(":")[0]
    return reason if kind.endswith("Error") else kind


def displacement(before: Atoms, after: Atoms) -> float:
    """Return the root mean square displacement in angstrom, without drift (and rotation).

    In crystals it is taken in fractional coordinates and measured in the relaxed cell, so that a
    cell that merely grows moves nothing.
    """
    if not before.pbc.all():
        moved = after.copy()
        minimize_rotation_and_translation(before, moved)
        difference = moved.positions - before.positions
    else:
        fractions = after.cell.scaled_positions(after.positions)
        fractions = fractions - before.cell.scaled_positions(before.positions)
        fractions -= np.round(fractions)
        difference = (fractions - fractions.mean(axis=0)) @ after.cell.array
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


def space_group(atoms: Atoms) -> int | None:
    """Return the international number of the space group; None where `symmetry` finds none."""
    dataset = symmetry_dataset(atoms)
    return None if dataset is None else int(dataset.number)


def broken_geometry(
    atoms: Atoms, potential: str, crystals_only: bool, elements: Collection[int] | None = None
) -> str:
    """Say why a potential should not even be asked, or nothing.

    Args:
        atoms: the structure.
        potential: its name, for the message.
        crystals_only: it does not describe molecules.
        elements: atomic numbers that it knows; None for any.
    """
    if not len(atoms):
        return "no atoms"
    if elements is not None and (unknown := {*atoms.numbers.tolist()} - {*elements}):
        symbols = ", ".join(chemical_symbols[number] for number in sorted(unknown))
        return f"unknown element: {potential} does not know {symbols}"
    if crystals_only and not atoms.pbc.all():
        return f"not periodic: {potential} describes crystals only"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "coordinates are not finite"
    if atoms.pbc.all():
        volume = atoms.cell.volume / len(atoms)
        if not VOLUME_BOUNDS[0] <= volume <= VOLUME_BOUNDS[1]:
            return f"volume outside {VOLUME_BOUNDS}: {volume:.3g} cubic angstrom an atom"
    return ""


def broken_energy(
    energy_per_atom: float, forces: NDArray[np.float64], bounds: tuple[float, float]
) -> str:
    """Say why an energy (eV/atom) and forces mean nothing, or nothing."""
    if not (math.isfinite(energy_per_atom) and np.isfinite(forces).all()):
        return "energy or forces are not finite"
    low, high = bounds
    if not low <= energy_per_atom <= high:
        return f"energy outside {bounds}: {energy_per_atom:.4g} eV/atom"
    return ""


def collision(atoms: Atoms) -> str:
    """Say whether atoms ended on top of each other: no energy of such a geometry means anything."""
    if len(neighbor_list("i", atoms, MIN_DISTANCE)):
        return f"atoms ended closer than {MIN_DISTANCE} angstrom"
    return ""
