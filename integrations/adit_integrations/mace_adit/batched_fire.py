"""Relax a batch of crystals in step: one forward pass of the network serves them all.

A small network answers for ten crystals as fast as for one, so the pre-filter takes batches
without another package. FIRE (Bitzek et al. 2006, doi 10.1103/PhysRevLett.97.170201) moves atoms
and cell, the cell by its deformation (Tadmor et al. 1999, doi 10.1103/PhysRevB.59.235).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from adit_plugins.relax.results import (
    MP2020,
    RelaxResult,
    broken_energy,
    broken_geometry,
    collision,
    finished,
    without_constraints,
)


@dataclass(frozen=True)
class Evaluation:
    """What a potential says of a crystal.

    Attributes:
        energy: eV.
        forces: eV/angstrom, [num_atoms, 3].
        stress: eV/cubic angstrom, [3, 3].
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]

    @property
    def is_finite(self) -> bool:
        """Whether every number is one."""
        return bool(
            np.isfinite(self.energy)
            and np.isfinite(self.forces).all()
            and np.isfinite(self.stress).all()
        )


Evaluate = Callable[[Sequence[Atoms]], list[Evaluation]]


@dataclass
class Fire:
    """Step sizes as in ASE: eV, angstrom, and no mass."""

    step: float = 0.1
    max_step: float = 1.0
    max_move: float = 0.2  # angstrom, of all coordinates together
    mixing: float = 0.1
    downhill: int = 0
    velocity: NDArray[np.float64] | None = None

    def move(self, forces: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the displacement of all coordinates, [rows, 3]."""
        if self.velocity is None:
            self.velocity = np.zeros_like(forces)
        elif (self.velocity * forces).sum() > 0:
            speed = np.linalg.norm(self.velocity) / np.linalg.norm(forces)
            self.velocity = (1 - self.mixing) * self.velocity + self.mixing * speed * forces
            if self.downhill > 5:
                self.step = min(1.1 * self.step, self.max_step)
                self.mixing *= 0.99
            self.downhill += 1
        else:
            self.velocity[:] = 0
            self.step, self.mixing, self.downhill = 0.5 * self.step, 0.1, 0
        self.velocity = self.velocity + self.step * forces
        move: NDArray[np.float64] = self.step * self.velocity
        return move * min(1.0, self.max_move / (float(np.linalg.norm(move)) + 1e-12))


@dataclass
class Descent:
    """A crystal on its way down.

    Attributes:
        atoms: where it is.
        cell: angstrom, where it began, [3, 3].
        deformation: of that cell, [3, 3]; its rows move like atoms, once for each atom.
        optimizer: with the velocity.
        num_steps: taken.
        outcome: why it ended; empty while it moves.
        last: the potential's answer for `atoms`.
    """

    atoms: Atoms
    cell: NDArray[np.float64]
    deformation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    optimizer: Fire = field(default_factory=Fire)
    num_steps: int = 0
    outcome: str = ""
    last: Evaluation | None = None

    def forces(self) -> NDArray[np.float64]:
        """Return forces on the atoms of the undeformed cell and on its deformation, [n + 3, 3]."""
        assert self.last is not None
        virial = -self.atoms.cell.volume * self.last.stress
        on_cell = np.linalg.solve(self.deformation, virial.T).T / len(self.atoms)
        return np.concatenate([self.last.forces @ self.deformation, on_cell])

    def step(self, forces: NDArray[np.float64]) -> None:
        """Move by one step."""
        move, num = self.optimizer.move(forces), len(self.atoms)
        undeformed = np.linalg.solve(self.deformation, self.atoms.positions.T).T + move[:num]
        self.deformation = self.deformation + move[num:] / num
        self.atoms.set_cell(self.cell @ self.deformation.T)
        self.atoms.positions = undeformed @ self.deformation.T
        self.num_steps += 1


def relax_together(
    crystals: Sequence[Atoms],
    evaluate: Evaluate,
    *,
    name: str,
    fmax: float,
    max_steps: int,
    max_seconds: float,
    energy_bounds: tuple[float, float],
    elements: frozenset[int],
    convention: str = MP2020,
) -> list[RelaxResult]:
    """Relax crystals, each to its own end.

    Args:
        crystals: in any order.
        evaluate: the potential.
        name: of the potential.
        fmax: limit on forces and on the virial an atom, eV/angstrom and eV.
        max_steps: of each.
        max_seconds: wall-clock limit a crystal, of a batch times its crystals.
        energy_bounds: eV/atom; outside is a hole or a wall of the potential.
        elements: atomic numbers that the potential knows.
        convention: of its energies.
    """
    start = time.perf_counter()
    problems = [broken_geometry(atoms, name, True, elements) for atoms in crystals]
    paths = [Descent(without_constraints(atoms).copy(), atoms.cell.array.copy(), outcome=problem)
             for atoms, problem in zip(crystals, problems, strict=True)]  # fmt: skip
    while moving := [path for path in paths if not path.outcome]:
        late = time.perf_counter() - start > max_seconds * len(crystals)
        found = _evaluate([path.atoms for path in moving], evaluate)
        for path, answer in zip(moving, found, strict=True):
            path.last = answer
            _decide(path, name, fmax, max_steps, energy_bounds, late)
    seconds = (time.perf_counter() - start) / max(1, len(crystals))
    return [
        _result(before, path, name, seconds, convention)
        for before, path in zip(crystals, paths, strict=True)
    ]


def _evaluate(crystals: list[Atoms], evaluate: Evaluate) -> list[Evaluation]:
    """Evaluate a batch; numbers of one crystal that are not finite may spoil the others'."""
    found = evaluate(crystals)
    if len(crystals) > 1 and not all(each.is_finite for each in found):
        return [evaluate([atoms])[0] for atoms in crystals]
    return found


def _decide(
    path: Descent,
    name: str,
    fmax: float,
    max_steps: int,
    energy_bounds: tuple[float, float],
    late: bool,
) -> None:
    """End a path or move it on."""
    assert path.last is not None
    energy = path.last.energy / len(path.atoms)
    problem = broken_energy(energy, path.last.forces, energy_bounds)
    problem = problem or broken_geometry(path.atoms, name, True)
    if problem:
        path.outcome = problem
        return
    forces = path.forces()
    if np.linalg.norm(forces, axis=1).max() < fmax:
        path.outcome = "converged"
    elif path.num_steps >= max_steps:
        path.outcome = "step limit"
    elif late:
        path.outcome = "time limit"
    else:
        path.step(forces)


def _result(
    before: Atoms, path: Descent, name: str, seconds: float, convention: str
) -> RelaxResult:
    done = path.outcome in ("converged", "step limit", "time limit")
    problem = collision(path.atoms) if done else path.outcome
    if problem:
        return RelaxResult.failure(before.copy(), problem, name, path.num_steps, seconds)
    assert path.last is not None
    return finished(
        before,
        path.atoms,
        path.last.energy,
        path.last.forces,
        full_3x3_to_voigt_6_stress(path.last.stress),
        reason=path.outcome,
        num_steps=path.num_steps,
        potential=name,
        seconds=seconds,
        convention=convention,
    )
