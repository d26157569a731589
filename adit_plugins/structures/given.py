"""What people hand over where many structures are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ase import Atoms
from pymatgen.core import SiteCollection
from rdkit.Chem import Mol

from adit_plugins.structures.samples import Convertible, Sample, to_sample


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
    return [each if isinstance(each, Atoms) else to_sample(each).to_ase() for each in structures]
