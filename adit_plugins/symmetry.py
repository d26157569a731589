"""Space groups and symmetrised cells by moyopy."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms
    from moyopy import MoyoDataset
    from pymatgen.core import Structure

MAX_CELL_LENGTH = 500.0  # angstrom
SYMPREC = 0.1  # angstrom, the Materials Project's


def symmetry_dataset(crystal: Structure | Atoms, tolerance: float = SYMPREC) -> MoyoDataset | None:
    """Return moyopy's findings; None where it finds no symmetry at all (broken geometries).

    None also for a cell of more than 500 angstrom: moyopy hangs from 10,000 on.
    """
    import moyopy
    from moyopy.interface import MoyoAdapter

    # It remarks on supercells, which change nothing about the answer.
    logging.getLogger("moyo").setLevel(logging.ERROR)
    try:
        cell = MoyoAdapter.from_py_obj(crystal)
        if not np.linalg.norm(cell.basis, axis=1).max() <= MAX_CELL_LENGTH:
            return None
        return moyopy.MoyoDataset(cell, symprec=tolerance)
    except (ValueError, RuntimeError):
        return None


def space_group_symbol(number: int) -> str:
    """Return the short Hermann-Mauguin symbol of an international number: P2₁/c for 14."""
    import moyopy

    symbol = moyopy.SpaceGroupType(number).hm_short.replace(" ", "")
    return re.sub(r"_(\d)", lambda axis: chr(ord("₀") + int(axis[1])), symbol)


def symmetrized(structure: Structure, tolerance: float = SYMPREC) -> Structure:
    """Return the primitive cell with lattice and positions moved to exact symmetry.

    A generated crystal misses its symmetry by hundredths of an angstrom, so that its own space
    group is mostly P1. The cell is moyopy's standardised primitive one; the provenance in
    `properties` is kept, with the space group and the tolerance added.

    Args:
        structure: an ordered crystal.
        tolerance: how far atoms may be from a symmetric place, angstrom. Large ones merge what
            differs: look at the number of atoms.

    Raises:
        ValueError: the tolerance is not above 0, or no symmetry is found with it (overlapping
            atoms, a cell of more than 500 angstrom).

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> from adit_plugins import symmetrized
        >>> nearly_cubic = Lattice.orthorhombic(4.02, 4.0, 3.99)
        >>> nearly = Structure(nearly_cubic, ["Po"], [[0, 0, 0]])
        >>> symmetrized(nearly).properties["adit"]["space_group"]
        221
    """
    from moyopy.interface import MoyoAdapter

    from adit_plugins.samples import KEY

    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance!r}; it must be above 0 (angstrom)")
    dataset = symmetry_dataset(structure, tolerance)
    if dataset is None:
        raise ValueError(
            f"no symmetry of {structure.formula} is found with tolerance {tolerance:g} angstrom; "
            "try a smaller one, or check the structure: is_structure_valid"
        )
    symmetric = MoyoAdapter.get_structure(dataset.prim_std_cell)
    found = {"space_group": dataset.number, "symmetry_tolerance": float(tolerance)}
    provenance = structure.properties.get(KEY) or {}
    symmetric.properties = structure.properties | {KEY: provenance | found}
    return symmetric
