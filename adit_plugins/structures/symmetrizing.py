"""Crystals with the symmetry that they nearly have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.structures.given import to_structure
from adit_plugins.structures.provenance import KEY, provenance_in
from adit_plugins.structures.symmetry import SYMPREC, symmetry_dataset

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from adit_plugins.structures.samples import Convertible


def symmetrized(structure: Convertible, tolerance: float = SYMPREC) -> Structure:
    """Return the primitive cell with lattice and positions moved to exact symmetry.

    A generated crystal misses its symmetry by hundredths of an angstrom, so that its own space
    group is mostly P1. The cell is moyopy's standardised primitive one; the provenance in
    `properties` is kept, with the space group and the tolerance that was taken added.

    Args:
        structure: an ordered crystal: Structure, Atoms or Sample.
        tolerance: how far atoms may be from a symmetric place, angstrom. Large ones merge what
            differs: look at the number of atoms. Halved where the cell is too thin for it.

    Raises:
        ValueError: the tolerance is not above 0, or no symmetry is found with it (overlapping
            atoms, a cell of more than 500 angstrom).

    Examples:
        >>> from pymatgen.core import Lattice, Structure
        >>> from adit_plugins import symmetrized
        >>> nearly_cubic = Lattice.orthorhombic(4.02, 4.0, 3.99)
        >>> nearly = Structure(nearly_cubic, ["Po"], [[0, 0, 0]])
        >>> symmetrized(nearly).properties["adit"]["space_group"]
        221
    """
    from moyopy.interface import MoyoAdapter

    structure = to_structure(structure)
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance!r}; it must be above 0 (angstrom)")
    dataset = symmetry_dataset(structure, tolerance)
    if dataset is None:
        raise ValueError(
            f"no symmetry of {structure.formula} is found with tolerance {tolerance:g} angstrom; "
            "try a smaller one, or check the structure: is_structure_valid"
        )
    symmetric = MoyoAdapter.get_structure(dataset.prim_std_cell)
    found = {"space_group": dataset.number, "symmetry_tolerance": dataset.symprec}
    provenance = provenance_in(structure.properties)
    symmetric.properties = structure.properties | {KEY: provenance | found}
    return symmetric
