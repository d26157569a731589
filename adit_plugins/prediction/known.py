"""Known structures that a search is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms
from pymatgen.core import Composition

from adit_plugins.structures.entries import InputError
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.reading import iter_entries

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator


def read_reference(path: Path, generator: ADiTGenerator) -> list[tuple[str, Atoms]]:
    """Return the crystals of a file or folder that a search could find, by name.

    Args:
        path: any structure file; entries of other formulas or chemical systems are passed over.
        generator: says what is searched for.

    Raises:
        InputError: the file cannot be read, or none of its structures belongs to the search.
    """
    found: list[tuple[str, Atoms]] = []
    formulas: list[str] = []
    for entry in iter_entries(path):
        if entry.atoms is None or not len(entry.atoms) or not entry.atoms.pbc.all():
            continue
        composition = Composition(entry.atoms.get_chemical_formula())
        formulas.append(composition.reduced_formula)
        if _belongs(composition, generator):
            atoms = Atoms(
                entry.atoms.numbers, entry.atoms.positions, cell=entry.atoms.cell, pbc=True
            )
            atoms.info[KEY] = {"id": entry.name, "kind": "crystal"}
            found.append((entry.name, atoms))
    if not found:
        held = ", ".join(sorted(set(formulas))[:5]) or "no crystals"
        asked = generator.formula or generator.chemical_system
        raise InputError(f"{path} holds no crystal of {asked}, but {held}.")
    return found


def _belongs(composition: Composition, generator: ADiTGenerator) -> bool:
    if generator.formula is not None:
        wanted = Composition(generator.formula).reduced_formula
        return bool(composition.reduced_formula == wanted)
    return {element.Z for element in composition} == generator.composition.required()
