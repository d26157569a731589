"""JSON: pymatgen's structures in every arrangement, one a line, and ASE's own.

Dictionaries are read as plain numbers; no class that a file names is ever looked up.
"""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from adit_plugins.structures.cif import parse_cifs
from adit_plugins.structures.elements import element_of_symbol
from adit_plugins.structures.entries import FULL, Entry, attempt
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import check_neutral

STRUCTURE_KEYS = (
    "structure", "LeMatStructs", "cif_string", "cif", "molecule", "initial_structure",
)  # fmt: skip
ID_KEYS = (
    "material_id",
    "immutable_id",
    "entry_id",
    "mat_id",
    "mp_id",
    "id",
    "_id",
    "name",
    "index",
)
MARKS = frozenset({"@class", "sites", *STRUCTURE_KEYS})
_CLASSES = ("Structure", "Molecule", "IStructure", "IMolecule")


def parse_json_lines(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read one JSON value a line."""
    for index, line in enumerate(lines):
        if line.strip():
            place = f"{name}, line {index + 1}"
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                yield Entry(place, None, "the line is no JSON")
                continue
            yield from parse_content(content, place)


def parse_content(content: Any, name: str) -> Iterator[Entry]:
    """Read what JSON holds: one structure, a list, a dictionary by ids, records, or a table."""
    if isinstance(content, list):
        for index, each in enumerate(content):
            yield entry_of(each, f"{name}, entry {index}")
        return
    table = _table(content)
    if table is not None:
        for key, each in table.items():
            yield entry_of(each, f"{name}, entry {key}", str(key))
        return
    yield entry_of(content, name)


def holds_structures(content: Any) -> bool:
    """Return whether anything in it is, or claims to be, a structure or an object of a class."""
    table = _table(content)
    if isinstance(content, list):
        values: list[Any] = content
    else:
        values = [content] if table is None else list(table.values())
    return any(map(is_structure, values))


def is_structure(value: Any) -> bool:
    """Whether a value is, or claims to be, a structure, a record of one, or any class's object."""
    if isinstance(value, dict):
        return not MARKS.isdisjoint(value)
    return isinstance(value, str) and "_cell_length" in value


def _table(content: Any) -> dict[str, Any] | None:
    """Values by id: `{"m0": structure, ...}`, or pandas' `{"structure": {"m0": ...}, ...}`."""
    if not isinstance(content, dict) or "@class" in content or "sites" in content:
        return None
    column = next((content[key] for key in STRUCTURE_KEYS if key in content), None)
    if column is None:
        return content
    if isinstance(column, dict) and not {"@class", "sites"} & set(column):
        return column
    return None  # one record


def entry_of(value: Any, name: str, key: str = "") -> Entry:
    """Read one structure or record, which stands in a file under a name or key."""
    own = _id(value) or key
    kind = None
    if isinstance(value, dict):
        found = unwrapped(value)
        kind = "molecule" if _is_molecule(found) else "crystal" if "lattice" in found else None
    return attempt(name, partial(structure, value), kind, own)


def _id(value: Any) -> str:
    if not isinstance(value, dict) or value.get("@class") in _CLASSES:
        return ""
    found = (value[key] for key in ID_KEYS if isinstance(value.get(key), str | int))
    return str(next(found, ""))


def unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """The structure's dictionary inside a record or a ComputedStructureEntry."""
    for key in STRUCTURE_KEYS:
        inner = value.get(key)
        if "sites" not in value and isinstance(inner, dict):
            return inner
    return value


def _is_molecule(value: dict[str, Any]) -> bool:
    return value.get("@class") in ("Molecule", "IMolecule")


def structure(value: Any) -> Atoms:
    """Return the structure of pymatgen's dictionary, or of a record that has one or a CIF.

    Raises:
        ValueError: it is none, or one that cannot be represented.
    """
    if isinstance(value, str):
        return structure_of_text(value)
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__}. Known: {', '.join(_CLASSES[:2])}")
    text = next((value[key] for key in STRUCTURE_KEYS if isinstance(value.get(key), str)), None)
    if text is not None and "sites" not in value:
        return structure_of_text(text)
    found = unwrapped(value)
    if not isinstance(found.get("sites"), list):
        name = found.get("@class") or "dictionary"
        raise ValueError(f"it is a {name}. Known: {', '.join(_CLASSES[:2])}")
    return _molecule(found) if "lattice" not in found else _crystal(found)


def structure_of_text(text: str) -> Atoms:
    """Return the structure of a text: JSON, a printed dictionary, or a CIF.

    Raises:
        ValueError: it is none of these, or see `structure`.
    """

    entry = entry_of_text(text, "")
    if entry.atoms is None:
        raise ValueError(entry.reason)
    return entry.atoms


def _crystal(value: dict[str, Any]) -> Atoms:
    lattice = value["lattice"]
    if not isinstance(lattice, dict):
        raise ValueError("its lattice is no dictionary")
    if "matrix" in lattice:
        cell = np.asarray(lattice["matrix"], dtype=float).reshape(3, 3)
    else:
        names = ("a", "b", "c", "alpha", "beta", "gamma")
        cell = np.asarray(cellpar_to_cell([float(lattice[key]) for key in names]))
    numbers = [_element(site, i) for i, site in enumerate(value["sites"])]
    pbc = lattice.get("pbc", [True] * 3)
    if all("abc" in site for site in value["sites"]):
        frac = np.asarray([site["abc"] for site in value["sites"]], dtype=float).reshape(-1, 3)
        positions = frac @ cell
    else:
        positions = np.asarray([site["xyz"] for site in value["sites"]], dtype=float)
    atoms = Atoms(numbers=numbers, positions=positions.reshape(-1, 3), cell=cell, pbc=pbc)
    return _with_provenance(atoms, value)


def _molecule(value: dict[str, Any]) -> Atoms:
    check_neutral(float(value.get("charge") or 0))
    numbers = [_element(site, i) for i, site in enumerate(value["sites"])]
    positions = np.asarray([site["xyz"] for site in value["sites"]], dtype=float).reshape(-1, 3)
    return _with_provenance(Atoms(numbers=numbers, positions=positions), value)


def _element(site: dict[str, Any], index: int) -> int:
    species = site["species"]
    if len(species) != 1 or not float(species[0].get("occu", 1)) >= FULL:
        text = ", ".join(f"{each['element']} {each.get('occu', 1)}" for each in species)
        raise ValueError(f"site {index} is disordered ({text or 'empty'}); order it first")
    return element_of_symbol(str(species[0]["element"]))


def _with_provenance(atoms: Atoms, value: dict[str, Any]) -> Atoms:
    properties = value.get("properties")
    if isinstance(properties, dict) and KEY in properties:
        atoms.info[KEY] = properties[KEY]
    return atoms


def entry_of_text(text: str, name: str) -> Entry:
    """Read a cell: JSON, a dictionary as Python prints it, or a CIF."""
    text = text.strip()
    if not text:
        return Entry(name, None, "the cell is empty", "crystal")
    if text.startswith(("{", "[")):
        try:
            content = _dictionary(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return Entry(name, None, "the cell is no JSON", "crystal")
        return next(parse_content(content, name), Entry(name, None, "the cell is empty"))
    entry = next(parse_cifs(io.StringIO(text + "\n"), name), None)
    return entry or Entry(name, None, "the cell holds no CIF block with a structure", "crystal")


def _dictionary(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text)  # literals only: nothing is run
