"""The reference backend: any ASE calculator, FIRE, and the cell through FrechetCellFilter."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from adit_plugins.relax.results import (
    MP2020,
    RelaxResult,
    broken_energy,
    broken_geometry,
    collision,
    finished,
    raised,
    without_stress,
)


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
        convention: of its energies, see `adit_plugins.relax.results`.
        elements: atomic numbers that the potential knows; None for any.
        keeps_constraints: those of a structure are obeyed; `adit_plugins.relax.relax` drops them
            first, unless it is told otherwise.
    """

    name: str
    calculator: Calculator
    max_seconds: float = 60.0
    energy_bounds: tuple[float, float] = (-math.inf, math.inf)
    crystals_only: bool = False
    convention: str = MP2020
    elements: frozenset[int] | None = None
    keeps_constraints: ClassVar[bool] = True

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Relax one after the other; see `adit_plugins.relax.Relaxer`."""
        return [self._relax_one(atoms, fmax, max_steps) for atoms in batch]

    def _relax_one(self, atoms: Atoms, fmax: float, max_steps: int) -> RelaxResult:
        start = time.perf_counter()
        relaxed = atoms.copy()
        problem = broken_geometry(
            relaxed, self.name, self.crystals_only, self.elements
        ) or without_stress(relaxed, self.calculator, self.name)
        reason, num_steps = "step limit", 0
        if not problem:
            relaxed.calc = self.calculator
            try:
                with warnings.catch_warnings():
                    # scipy doubts its matrix logarithm of the cell filter at the level of 1e-13.
                    warnings.filterwarnings("ignore", message="logm result may be inaccurate")
                    problem, reason, num_steps = self._optimize(relaxed, fmax, max_steps, start)
            except Exception as error:  # noqa: BLE001 - a potential may raise anything
                problem = raised(error)
        seconds = time.perf_counter() - start
        if problem:
            return RelaxResult.failure(atoms.copy(), problem, self.name, num_steps, seconds)
        crystal = bool(relaxed.pbc.all())
        return finished(
            atoms,
            relaxed,
            float(relaxed.get_potential_energy()),
            relaxed.get_forces(apply_constraint=False),
            relaxed.get_stress(apply_constraint=False) if crystal else None,
            reason=reason,
            num_steps=num_steps,
            potential=self.name,
            seconds=seconds,
            convention=self.convention,
        )

    def _optimize(
        self, atoms: Atoms, fmax: float, max_steps: int, start: float
    ) -> tuple[str, str, int]:
        """Move the atoms; return the problem, if any, the reason for the end, and the steps."""
        optimizer = FIRE(FrechetCellFilter(atoms) if atoms.pbc.all() else atoms, logfile=None)
        problem, reason = "", "step limit"
        for converged in optimizer.irun(fmax=fmax, steps=max_steps):
            problem = self._broken_state(atoms)
            if problem or converged:
                reason = "converged"
                break
            if time.perf_counter() - start > self.max_seconds:
                reason = "time limit"
                break
        return problem or collision(atoms), reason, optimizer.nsteps

    def _broken_state(self, atoms: Atoms) -> str:
        """Say what went wrong in the last step, or nothing."""
        energy = atoms.get_potential_energy() / len(atoms)
        forces = atoms.get_forces(apply_constraint=False)
        return broken_energy(energy, forces, self.energy_bounds) or broken_geometry(
            atoms, self.name, self.crystals_only
        )
