"""The few facts of a structure that a person looks for first: formula, size, density, symmetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ase import Atoms

if TYPE_CHECKING:
    from adit_plugins.structures.samples import Sample


_A3_TO_CM3 = 1e-24


_AVOGADRO = 6.02214076e23


def describe_crystal(sample: Sample) -> dict[str, Any]:
    """Return formula, size, density (g/cm^3), volume per atom (A^3) and space group."""
    from adit_plugins.structures.symmetry import symmetry_dataset

    atoms = sample.to_ase()
    values: dict[str, Any] = {
        "formula": _reduced_formula(atoms),
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


def _reduced_formula(atoms: Atoms) -> str:
    from pymatgen.core import Composition

    return str(Composition(atoms.get_chemical_formula()).reduced_formula)
