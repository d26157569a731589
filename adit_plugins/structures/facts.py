"""The few facts of a structure that a person looks for first: formula, size, density, symmetry."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

if TYPE_CHECKING:
    from adit_plugins.structures.samples import Sample


_A3_TO_CM3 = 1e-24


_AVOGADRO = 6.02214076e23


def describe_crystal(sample: Sample) -> dict[str, Any]:
    """Return formula, size, density (g/cm^3), volume per atom (A^3) and space group."""
    from adit_plugins.structures.symmetry import symmetry_dataset

    atoms = sample.to_ase()
    values: dict[str, Any] = {
        "formula": reduced_formula(sample.atomic_numbers),
        "num_atoms": sample.num_atoms,
        "num_elements": len(set(sample.atomic_numbers.tolist())),
    }
    volume = float(atoms.get_volume())
    if volume > 0.1:  # what is_structure_valid asks for
        mass = float(atoms.get_masses().sum())
        values["density"] = round(mass / _AVOGADRO / (volume * _A3_TO_CM3), 4)
        values["volume_per_atom"] = round(volume / sample.num_atoms, 3)
        dataset = symmetry_dataset(atoms)
        if dataset is not None:
            values["space_group"] = int(dataset.number)
    return values


def describe_molecule(sample: Sample) -> dict[str, Any]:
    """Return formula and size."""
    numbers = sample.atomic_numbers
    return {
        "formula": str(Atoms(numbers=numbers).get_chemical_formula()),
        "num_atoms": sample.num_atoms,
        "num_heavy_atoms": int((numbers > 1).sum()),
    }


def formula_of(atoms: Atoms) -> str:
    """Return the reduced formula of a crystal, or Hill's of a molecule; empty without atoms."""
    if not atoms.pbc.any():
        return str(Atoms(numbers=atoms.numbers).get_chemical_formula())
    return reduced_formula(atoms.numbers)


def reduced_formula(atomic_numbers: NDArray[np.int64]) -> str:
    """Return pymatgen's reduced formula, the one notation of tables, files and messages."""
    return _reduced(tuple(sorted(atomic_numbers.tolist())))


@lru_cache(maxsize=100_000)
def _reduced(numbers: tuple[int, ...]) -> str:
    from pymatgen.core import Composition

    counts: dict[str, int] = {}
    for number in numbers:
        symbol = chemical_symbols[number]
        counts[symbol] = counts.get(symbol, 0) + 1
    return str(Composition(counts).reduced_formula)
