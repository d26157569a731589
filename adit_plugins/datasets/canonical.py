"""One structure as arrays: a crystal's Niggli cell, atoms in a fixed order, what is found of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from adit_plugins.structures.samples import MAX_ATOMIC_NUMBER
from adit_plugins.structures.symmetry import niggli_reduced, symmetry_dataset

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


def lost(atoms: Atoms | None, problem: str) -> str:
    """A crystal that kills its process, or takes a minute, is one that cannot be read."""
    return problem


def crystal_row(atoms: Atoms | None) -> dict[str, Any] | str:
    """One crystal as arrays, or why there is none."""
    from adit_plugins.structures.samples import to_sample

    if atoms is None:
        return "it cannot be read"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sample = to_sample(atoms)
            if sample.kind != "crystal":
                return "it is a molecule"
            structure = cast("Structure", sample.to_pymatgen())
            found = symmetry_dataset(structure)
            group = float("nan") if found is None else float(found.number)
            labels = {"density": float(structure.density), "space_group": group}
            return canonical_crystal(structure) | {"labels": labels}
        except Exception as error:  # noqa: BLE001 - one bad row of thousands is counted, not fatal
            return str(error) or type(error).__name__


def training_order(numbers: NDArray[Any], frac: NDArray[Any]) -> NDArray[np.int64]:
    """Places of a crystal's atoms `[num_atoms]` by atomic number, then fractional coordinates."""
    keys = np.round(frac, 2)
    order: NDArray[np.int64] = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0], numbers))
    return order


def heavy_first(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """Places of a molecule's atoms `[num_atoms]`, hydrogens last, else as they are: as in QM9."""
    order: NDArray[np.int64] = np.argsort(np.asarray(numbers) == 1, kind="stable")
    return order


def canonical_crystal(structure: Structure) -> dict[str, Any]:
    """Niggli-reduced cell and atoms ordered by atomic number, then position.

    A fixed order and cell leave the denoiser one answer where any order would leave n!.

    Returns:
        `atomic_numbers`, `coords` (fractional, in [-0.02, 0.98)), `cell` (angstrom, degrees).

    Raises:
        ValueError: there is a dummy atom, or an element beyond the network's.
    """
    reduced = niggli_reduced(structure)
    numbers = np.array(reduced.atomic_numbers)
    if not ((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)).all():
        raise ValueError(f"an atomic number is not in 1..{MAX_ATOMIC_NUMBER} (0 is a dummy atom)")
    frac = (np.array(reduced.frac_coords) + 0.02) % 1.0 - 0.02
    order = training_order(numbers, frac)
    return {
        "atomic_numbers": numbers[order].tolist(),
        "coords": frac[order],
        "cell": [*reduced.lattice.lengths, *reduced.lattice.angles],
    }
