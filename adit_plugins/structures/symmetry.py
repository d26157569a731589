"""Reduced cells, and space groups and symmetrised cells by moyopy."""

from __future__ import annotations

import itertools
import logging
import re
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    import moyopy
    from ase import Atoms
    from moyopy import MoyoDataset
    from numpy.typing import NDArray
    from pymatgen.core import Structure


MAX_CELL_LENGTH = 500.0  # angstrom
SYMPREC = 0.1  # angstrom, the Materials Project's
SKEWED = 4.0  # times the length of a reduced cell
LARGEST_POINT_GROUP = 48  # operations: of the cubic lattices
# Shortest cubed over longest vector, in squares of the tolerance: at 68 and less were the endless
# ones of random lattices. Above this nothing needs to be tried.
THIN = 100.0
MOST_REPEATED = 100  # atoms, of cells that a smaller one is looked for in


def unskewed(structure: Structure) -> Structure:
    """Return the crystal in a cell of short vectors, or as it is where they are short enough.

    Niggli reduction takes a step for every lattice vector that it subtracts: minutes for a cell of
    a few angstrom that is described by vectors of a thousand. The LLL algorithm takes none of that
    time, and the Niggli cell is the same whatever cell it begins with. Ordinary cells stay as they
    are, so that what comes of them is equal to the last digit.
    """
    if not (np.isfinite(structure.lattice.matrix).all() and structure.volume > 1e-6):
        return structure  # of no use to anybody, and LLL would not end
    shortest = structure.lattice.get_lll_reduced_lattice()
    if max(structure.lattice.abc) <= SKEWED * max(shortest.abc):
        return structure
    return structure.get_reduced_structure("LLL")


def niggli_reduced(structure: Structure) -> Structure:
    """Return the crystal in its Niggli cell, in milliseconds whatever cell it comes in.

    Raises:
        ValueError: there is none (a cell without volume).
    """
    return unskewed(structure).get_reduced_structure("niggli")


def symmetry_dataset(crystal: Structure | Atoms, tolerance: float = SYMPREC) -> MoyoDataset | None:
    """Return moyopy's findings; None where it finds no symmetry at all (broken geometries).

    None also for a cell that cannot be described by vectors of less than 500 angstrom: moyopy
    hangs from 10,000 on. The tolerance (angstrom) is halved until the cell can bear it, as moyopy
    does too; `MoyoDataset.symprec` tells which it was in the end.
    """
    import moyopy
    from moyopy.interface import MoyoAdapter

    # It remarks on supercells, which change nothing about the answer.
    logging.getLogger("moyo").setLevel(logging.ERROR)
    try:
        cell = MoyoAdapter.from_py_obj(crystal)
        if not _longest(cell) <= MAX_CELL_LENGTH:
            cell = MoyoAdapter.from_structure(unskewed(MoyoAdapter.get_structure(cell)))
        if not _longest(cell) <= MAX_CELL_LENGTH:
            return None
        return moyopy.MoyoDataset(cell, symprec=_bearable(cell, tolerance))
    except (ValueError, RuntimeError):
        return None


def _bearable(cell: moyopy.Cell, tolerance: float) -> float:
    """Return the tolerance, halved until the lattice has a finite group with it.

    moyopy collects the changes of basis that keep lengths and angles within the tolerance, and
    multiplies them until nothing new comes. In a cell that is a few tolerances thin a shear may be
    among the products, and they never end: it fills the memory, and nothing can interrupt it. The
    same may happen to a thin cell that this one repeats, which moyopy would find.

    Raises:
        ValueError: the cell is flat, or too thin for any tolerance.
    """
    from moyopy.interface import MoyoAdapter
    from pymatgen.core import Lattice

    basis, numbers = np.array(cell.basis), np.array(cell.numbers)
    lattice = Lattice(basis)
    elements, counts = np.unique(numbers, return_counts=True)
    alike = np.array(cell.positions)[numbers == elements[counts.argmin()]]
    heights = 1.0 / np.linalg.norm(np.linalg.inv(basis), axis=0)  # no lattice vector is shorter
    steps = lattice.get_all_distances(alike[:1], alike[1:]) if len(alike) > 1 else heights
    shortest = min(heights.min(), steps.min())
    if shortest**3 >= THIN * tolerance**2 * max(lattice.abc):
        return tolerance
    lattices = [lattice]
    if len(alike) > 1 and len(numbers) <= MOST_REPEATED:
        structure = MoyoAdapter.get_structure(cell)
        lattices.append(structure.get_primitive_structure(2 * tolerance).lattice)
    reduced = [
        each.get_lll_reduced_lattice().get_niggli_reduced_lattice().matrix for each in lattices
    ]
    for halvings in range(16):
        smaller = tolerance / 2**halvings
        if all(_has_finite_group(each, smaller) for each in reduced):
            return smaller
    raise ValueError("a cell too thin for any tolerance")


def _has_finite_group(basis: NDArray[np.float64], tolerance: float) -> bool:
    """Whether what moyopy takes for operations of a reduced lattice has finitely many products.

    Its rule (`search_bravais_group`) for vectors that may take the place of the basis: lengths are
    equal, and so are angles, by their sine times the mean lengths (arXiv 1808.01590, equation 7).
    """
    tolerance *= 1.001  # on the safe side of rounding
    steps = np.array([c for c in itertools.product((-1, 0, 1), repeat=3) if any(c)])
    vectors = steps @ basis
    lengths, own = np.linalg.norm(vectors, axis=1), np.linalg.norm(basis, axis=1)
    units, axes = vectors / lengths[:, None], basis / own[:, None]
    angles, given = (np.arccos(np.clip(each @ each.T, -1.0, 1.0)) for each in (units, axes))
    alike = [np.flatnonzero(np.abs(lengths - each) < tolerance) for each in own]

    def fit(i: int, j: int) -> NDArray[np.bool_]:
        mean = np.outer(own[i] + lengths, own[j] + lengths) / 4
        equal = np.square(np.sin(angles - given[i, j])) * mean < tolerance**2
        return cast("NDArray[np.bool_]", equal[np.ix_(alike[i], alike[j])])

    trios = np.nonzero(fit(0, 1)[:, :, None] & fit(1, 2) & fit(0, 2)[:, None])
    chosen = [each[places] for each, places in zip(alike, trios, strict=True)]
    operations = steps[np.stack(chosen, axis=1)]  # [n, 3, 3], one a trio of vectors
    operations = operations[np.abs(np.linalg.det(operations)).round() == 1]
    group, base = operations, 61  # a product's nine numbers in one, as digits of this base
    while len(group) <= LARGEST_POINT_GROUP:
        products = (group[:, None] @ operations).reshape(-1, 9)
        if np.abs(products).max() > base // 2:
            return False
        _, places = np.unique(products @ base ** np.arange(9), return_index=True)
        if len(places) == len(group):  # the identity is among the operations
            return True
        group = products[places].reshape(-1, 3, 3)
    return False


def _longest(cell: moyopy.Cell) -> float:
    return float(np.linalg.norm(cell.basis, axis=1).max())


def space_group_symbol(number: int) -> str:
    """Return the short Hermann-Mauguin symbol of an international number: P2₁/c for 14."""
    import moyopy

    symbol = moyopy.SpaceGroupType(number).hm_short.replace(" ", "")
    return re.sub(r"_(\d)", lambda axis: chr(ord("₀") + int(axis[1])), symbol)
