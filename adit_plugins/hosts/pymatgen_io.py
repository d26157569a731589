"""pymatgen's format `aditjson`: sample files of one or many crystals and molecules.

pymatgen imports this module through its entry-point groups when it meets the suffix `.aditjson`:

    Structure.from_file("samples.aditjson", index=3)   # the fourth crystal of the file
    structure.to("one.aditjson")

The file is JSON: a dictionary of `Structure.as_dict` or `Molecule.as_dict`, or a list of them, as
`write_samples` writes. So provenance and site properties stay, and other programs can read it.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from monty.json import MontyEncoder
from pymatgen.core import IMolecule, IStructure, Molecule, Structure
from pymatgen.io.registry import (
    MoleculeFormat,
    StructureFormat,
    register_molecule_format,
    register_structure_format,
)

from adit_model.outputs import replacing
from adit_plugins.structures.untrusted import STRUCTURES, structure_from_dict

NAME = "aditjson"


def read_str(
    text: str, wanted: str, index: int = 0, primitive: bool = False
) -> Structure | Molecule:
    """Return one structure of a file's text.

    Args:
        text: JSON.
        wanted: `"Structure"` or `"Molecule"`; the others are passed over.
        index: among those, from 0; negative ones count from the end.
        primitive: reduce a crystal to its primitive cell.

    Raises:
        ValueError: it is no such file, or has no structure of that index.
    """
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"no {NAME}: it is not JSON ({error})") from error
    entries = content if isinstance(content, list) else [content]
    kinds = [entry.get("@class") if isinstance(entry, dict) else None for entry in entries]
    if strange := [i for i, kind in enumerate(kinds) if kind not in STRUCTURES]:
        known = " or ".join(STRUCTURES)
        raise ValueError(f"no {NAME}: entry {strange[0]} is no {known} but {kinds[strange[0]]!r}")
    found = [entry for entry, kind in zip(entries, kinds, strict=True) if kind == wanted]
    if not -len(found) <= index < len(found):
        raise ValueError(
            f"no {wanted} {index}: it holds {len(found)} of {len(entries)} structures; "
            "crystals are read by Structure.from_file, molecules by Molecule.from_file"
        )
    try:
        structure = structure_from_dict(found[index])
    except ValueError as error:
        raise ValueError(f"{wanted} {index}: {error}") from error
    if primitive and isinstance(structure, Structure):
        from adit_plugins.structures.symmetry import unskewed

        return unskewed(structure).get_primitive_structure()
    return structure


def write_str(structure: IStructure | IMolecule) -> str:
    """Return a structure as the text of a file of its own."""
    content = structure.as_dict()
    if "@class" in content:  # an immutable one is read again as the usual class
        content["@class"] = content["@class"].removeprefix("I")
    return json.dumps(content, cls=MontyEncoder)


def write_file(structure: IStructure | IMolecule, filename: str) -> None:
    """Write a file of one structure, whole or not at all."""
    with replacing(Path(filename)) as temporary:
        temporary.write_text(write_str(structure) + "\n", encoding="utf-8")


_COMMON: dict[str, Any] = {
    "name": NAME,
    "patterns": (f"*.{NAME}",),
    "write_str": write_str,
    "write_file": write_file,
}
register_structure_format(
    StructureFormat(read_str=partial(read_str, wanted="Structure"), **_COMMON)
)
register_molecule_format(MoleculeFormat(read_str=partial(read_str, wanted="Molecule"), **_COMMON))
