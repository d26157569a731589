"""Structures for campaigns of any length: number N is the same whatever was made before it.

Two kinds. `structure` needs no file, but has few formulas: of very many most are duplicates.
`Replaced` makes crystals that mostly differ, as those of a model do, from the crystals of a table
(parquet with atomic_numbers, frac_coords, a ... gamma, num_atoms): each element is replaced by
another of its family, the cell takes the volume of the new atoms, and the atoms are moved a little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from relaxed_rows import CELL, row_atoms

METALS = (3, 4, 11, 12, 13, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 37, 38, 39, 40)
OTHERS = (7, 8, 9, 15, 16, 17, 33, 34, 35, 51, 52, 53)

# Elements that stand for each other in crystals; charges stay balanced more often than not.
FAMILIES = tuple(
    tuple(atomic_numbers[symbol] for symbol in family.split())
    for family in (
        "Li Na K Rb Cs",
        "Be Mg Ca Sr Ba",
        "Sc Y La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu",
        "Ti Zr Hf V Nb Ta Cr Mo W Mn Re",
        "Fe Co Ni Ru Rh Pd Os Ir Pt",
        "Cu Ag Au Zn Cd Hg",
        "B Al Ga In Tl",
        "C Si Ge Sn Pb",
        "N P As Sb Bi",
        "O S Se Te",
        "F Cl Br I",
    )
)
FAMILY = {number: family for family in FAMILIES for number in family}
MAX_ATOMS = 20  # of the crystals that the released model makes
AGAIN = 0.05  # of the structures are earlier ones, about as many as of the released model's samples
MOVED, MOVED_AGAIN = 0.03, 0.01  # angstrom
STRETCHED = 0.02  # of the edges, of a cell that comes again
SEED = 0


def structure(number: int) -> Atoms:
    """Four of 34 elements on the four sites of a distorted Heusler cell."""
    rng = np.random.default_rng(number)
    metals, others = rng.choice(METALS, 2, replace=False), rng.choice(OTHERS, 2, replace=False)
    atoms = Atoms(
        numbers=[metals[0], others[0], metals[1], others[1]],
        scaled_positions=[[x, x, x] for x in (0.0, 0.25, 0.5, 0.75)],
        cell=float(rng.uniform(2.8, 3.6)) * (np.ones((3, 3)) - np.eye(3)),
        pbc=True,
    )
    atoms.rattle(0.05, seed=int(rng.integers(10**6)))
    return atoms


def structures(start: int) -> Iterator[Atoms]:
    """All of `structure` from a number on."""
    number = start
    while True:
        yield structure(number)
        number += 1


@dataclass(frozen=True)
class Replaced:
    """Crystals of a table with other elements; call it as a source of structures.

    Attributes:
        table: rows whose elements all have a family.
    """

    table: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> Replaced:
        """Take the crystals of a file that have at most `MAX_ATOMS` atoms.

        Raises:
            ValueError: there are none.
        """
        columns = ["atomic_numbers", "frac_coords", "num_atoms", *CELL]
        table = pd.read_parquet(path, columns=columns)
        table = table[table.num_atoms <= MAX_ATOMS]
        table = table[table.atomic_numbers.map(lambda numbers: set(numbers) <= set(FAMILY))]
        if table.empty:
            raise ValueError(f"{path} has no crystal of at most {MAX_ATOMS} atoms; name another.")
        return cls(table.reset_index(drop=True))

    def __call__(self, start: int) -> Iterator[Atoms]:
        """All structures from a number on."""
        number = start
        while True:
            yield self.structure(number)
            number += 1

    def structure(self, number: int) -> Atoms:
        """Structure `number`: a new one, or an earlier one in a cell a little larger or smaller."""
        rng = np.random.default_rng((SEED, number))
        if number == 0 or rng.random() >= AGAIN:
            return self._new(rng)
        atoms = self.structure(int(rng.integers(number)))
        scale = 1 + rng.uniform(-STRETCHED, STRETCHED)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.positions += rng.normal(scale=MOVED_AGAIN, size=atoms.positions.shape)
        return atoms

    def _new(self, rng: np.random.Generator) -> Atoms:
        atoms = row_atoms(self.table.iloc[int(rng.integers(len(self.table)))])
        replacement: dict[int, int] = {}
        for number in np.unique(atoms.numbers).tolist():
            free = [each for each in FAMILY[number] if each not in replacement.values()]
            replacement[number] = int(rng.choice(free))
        before = _volume(atoms)
        atoms.numbers = [replacement[number] for number in atoms.numbers.tolist()]
        atoms.set_cell(atoms.cell * (_volume(atoms) / before) ** (1 / 3), scale_atoms=True)
        atoms.positions += rng.normal(scale=MOVED, size=atoms.positions.shape)
        return atoms


def _volume(atoms: Atoms) -> float:
    """Of the atoms as spheres, to a factor."""
    return float((covalent_radii[atoms.numbers] ** 3).sum())
