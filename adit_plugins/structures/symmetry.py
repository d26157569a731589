"""Reduced cells, and space groups and symmetrised cells by moyopy."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import moyopy
    from ase import Atoms
    from moyopy import MoyoDataset
    from pymatgen.core import Structure


MAX_CELL_LENGTH = 500.0  # angstrom
SYMPREC = 0.1  # angstrom, the Materials Project's
SKEWED = 4.0  # times the length of a reduced cell


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
    hangs from 10,000 on.
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
        return moyopy.MoyoDataset(cell, symprec=tolerance)
    except (ValueError, RuntimeError):
        return None


def _longest(cell: moyopy.Cell) -> float:
    return float(np.linalg.norm(cell.basis, axis=1).max())


def space_group_symbol(number: int) -> str:
    """Return the short Hermann-Mauguin symbol of an international number: P2₁/c for 14."""
    import moyopy

    symbol = moyopy.SpaceGroupType(number).hm_short.replace(" ", "")
    return re.sub(r"_(\d)", lambda axis: chr(ord("₀") + int(axis[1])), symbol)
