"""The reference backend: any ASE calculator, FIRE, and the cell through FrechetCellFilter."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE

from adit_plugins.relax import RelaxResult

# Cubic angstrom an atom. Diamond, the densest solid, has 5.7; below 2 neighbour lists explode and
# no potential has data. Above 1,000 nothing is bound.
VOLUME_BOUNDS = (2.0, 1000.0)
MIN_DISTANCE = 0.5  # angstrom


@dataclass
class AseRelaxer:
    """Relax with an ASE calculator: FIRE (Bitzek et al. 2006), cell by FrechetCellFilter.

    The settings are those of Matbench Discovery. Molecules (not periodic) relax positions only.

    Attributes:
        name: name of the potential, recorded in the results.
        calculator: energies and forces; stress for crystals.
        max_seconds: wall-clock limit a structure, looked at between steps.
        energy_bounds: eV/atom; an energy outside is a hole or a wall of the potential.
        crystals_only: the potential does not describe molecules.
    """

    name: str
    calculator: Calculator
    max_seconds: float = 60.0
    energy_bounds: tuple[float, float] = (-math.inf, math.inf)
    crystals_only: bool = False

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Relax one after the other; see `adit_plugins.relax.Relaxer`."""
        return [self._relax_one(atoms, fmax, max_steps) for atoms in batch]

    def _relax_one(self, atoms: Atoms, fmax: float, max_steps: int) -> RelaxResult:
        start = time.perf_counter()
        relaxed = atoms.copy()
        problem = self._broken_geometry(relaxed)
        reason, num_steps = "step limit", 0
        if not problem:
            relaxed.calc = self.calculator
            optimizer = FIRE(
                FrechetCellFilter(relaxed) if relaxed.pbc.all() else relaxed, logfile=None
            )
            try:
                for converged in optimizer.irun(fmax=fmax, steps=max_steps):
                    problem = self._broken_state(relaxed)
                    if problem or converged:
                        reason = "converged"
                        break
                    if time.perf_counter() - start > self.max_seconds:
                        reason = "time limit"
                        break
                problem = problem or _collision(relaxed)
            except Exception as error:  # noqa: BLE001 - a potential may raise anything
                problem = f"{type(error).__name__}: {error}"
            num_steps = optimizer.nsteps
        seconds = time.perf_counter() - start
        if problem:
            return RelaxResult.failure(atoms.copy(), problem, self.name, num_steps, seconds)
        return self._result(relaxed, reason, num_steps, seconds)

    def _broken_geometry(self, atoms: Atoms) -> str:
        """Say why the potential should not even be asked, or nothing."""
        if not len(atoms):
            return "no atoms"
        if self.crystals_only and not atoms.pbc.all():
            return f"{self.name} describes crystals only; these atoms are not periodic"
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            return "coordinates are not finite"
        if atoms.pbc.all():
            volume = atoms.cell.volume / len(atoms)
            if not VOLUME_BOUNDS[0] <= volume <= VOLUME_BOUNDS[1]:
                return f"volume of {volume:.3g} cubic angstrom an atom is outside {VOLUME_BOUNDS}"
        return ""

    def _broken_state(self, atoms: Atoms) -> str:
        """Say what went wrong in the last step, or nothing."""
        energy = atoms.get_potential_energy() / len(atoms)
        if not (math.isfinite(energy) and np.isfinite(atoms.get_forces()).all()):
            return "energy or forces are not finite"
        low, high = self.energy_bounds
        if not low <= energy <= high:
            return f"energy of {energy:.4g} eV/atom is outside the bounds {self.energy_bounds}"
        return self._broken_geometry(atoms)

    def _result(self, relaxed: Atoms, reason: str, num_steps: int, seconds: float) -> RelaxResult:
        energy = float(relaxed.get_potential_energy())
        forces = relaxed.get_forces()
        final = relaxed.copy()
        stress = {"stress": relaxed.get_stress()} if relaxed.pbc.all() else {}
        final.calc = SinglePointCalculator(final, energy=energy, forces=forces, **stress)
        return RelaxResult(
            atoms=final,
            converged=reason == "converged",
            reason=reason,
            num_steps=num_steps,
            energy=energy,
            energy_per_atom=energy / len(final),
            max_force=float(np.linalg.norm(forces, axis=1).max()),
            potential=self.name,
            seconds=seconds,
        )


def _collision(atoms: Atoms) -> str:
    """Say whether atoms ended on top of each other: no energy of such a geometry means anything."""
    if len(neighbor_list("i", atoms, MIN_DISTANCE)):
        return f"atoms ended closer than {MIN_DISTANCE} angstrom"
    return ""
