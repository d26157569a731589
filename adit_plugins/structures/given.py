"""What people hand over, as what a function works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ase import Atoms
from pymatgen.core import Composition, SiteCollection, Structure
from rdkit.Chem import Mol

from adit_plugins.structures.samples import Convertible, Sample, to_sample


def to_structure(crystal: Convertible) -> Structure:
    """Return a crystal as pymatgen has it; a Structure comes back as it is.

    Raises:
        TypeError: it is none of what `to_sample` takes, or a molecule.
        ValueError: it is impossible; see `to_sample`.
    """
    if isinstance(crystal, Structure):
        return crystal
    sample = to_sample(crystal)
    if sample.kind != "crystal":
        raise TypeError(f"{sample!r} is a molecule; a crystal is needed")
    structure = sample.to_pymatgen()
    assert isinstance(structure, Structure)
    return structure


def to_composition(given: Composition | str | Convertible) -> Composition:
    """Return the composition of a structure, or of a formula.

    Raises:
        TypeError: it is none of these.
        ValueError: a text is no formula.
    """
    if isinstance(given, Composition):
        return given
    if isinstance(given, str | Mapping):
        return Composition(given)
    if isinstance(given, Structure):
        return given.composition
    return to_sample(given).to_pymatgen().composition


def to_atoms(molecule: Convertible) -> Atoms:
    """Return a structure as ASE has it; Atoms come back as they are.

    Raises:
        TypeError: it is none of what `to_sample` takes.
        ValueError: it is impossible; see `to_sample`.
    """
    return molecule if isinstance(molecule, Atoms) else to_sample(molecule).to_ase()


def check_many(structures: Any, name: str) -> None:
    """Refuse one structure, which would be taken for a list of its atoms.

    Raises:
        TypeError: it is one; the message names `name`, the function that takes many.
    """
    if isinstance(structures, Atoms | Sample | SiteCollection | Mol):
        raise TypeError(
            f"{name} takes a list of structures, not one {type(structures).__name__}; put a single "
            "one into [ ]"
        )


def as_atoms(structures: Iterable[Convertible], name: str) -> list[Atoms]:
    """Return ASE's structures as they are, with all that they carry, and others converted.

    Raises:
        TypeError: an item is no structure, or all of it is one (`check_many`).
    """
    check_many(structures, name)
    return [to_atoms(each) for each in structures]
