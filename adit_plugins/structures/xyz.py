"""Plain and extended xyz, frame by frame; what stands beside the geometry may be of any form."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict

from adit_plugins.structures.elements import element_of_label, element_of_symbol
from adit_plugins.structures.entries import MAX_CHARACTERS, MAX_LINES, Entry, attempt

_SPECIES, _POSITIONS, _NUMBERS = ("species", "symbols"), ("pos", "positions"), ("z", "numbers")
_KEPT = ("charge", "total_charge", "material_id", "adit", "relax", "occupancy")
_READ = ("lattice", "properties", "pbc", "energy", *_KEPT)
_PAIR = re.compile(
    r"""([A-Za-z_][\w-]*)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{[^}]*\}|\[[^\]]*\]|\S+)"""
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_FORTRAN = re.compile(r"(?<=[\d.])(?:\*\^|[dD])(?=[+-]?\d)")
_ZERO_LATTICE = re.compile(r"""\bLattice\s*=\s*(["'{\[])[\s,0.+eE-]*["'}\]]""", re.IGNORECASE)


def parse_xyz(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read frames of (extended) xyz.

    A frame ends where the next line with nothing but a number stands, not where its own number of
    atoms says: so a frame with a line too few or too many is one bad frame, and the next is good.
    """
    frame: list[str] = []
    index = size = 0
    for line in lines:
        if len(frame) != 1 and line.strip().isdigit():
            if any(each.strip() for each in frame):
                yield _frame(frame, f"{name}, structure {index}")
                index += 1
            frame, size = [], 0
        # Lines beyond the limit are counted by the first of them only, to keep the memory flat.
        size += len(line)
        if len(frame) <= MAX_LINES and size <= MAX_CHARACTERS:
            frame.append(line)
    if any(each.strip() for each in frame):
        yield _frame(frame, f"{name}, structure {index}")


def _frame(frame: list[str], name: str) -> Entry:
    while not frame[-1].strip() and len(frame) > 2:
        frame.pop()
    title = frame[1] if len(frame) > 1 else ""
    lattice = re.search(r"\blattice\s*=", title, re.IGNORECASE)
    periodic = bool(lattice) and not _ZERO_LATTICE.search(title)
    return attempt(name, lambda: _atoms(frame), "crystal" if periodic else "molecule")


def _atoms(frame: list[str]) -> Atoms:
    if not frame[0].strip().isdigit():
        raise ValueError(f"starts with '{frame[0].strip():.40}', not with a number of atoms")
    if len(frame) > MAX_LINES:
        raise ValueError(f"it has more than {MAX_LINES} lines, too many atoms to be judged")
    number = int(frame[0])
    if _is_of_qm9(frame, number):
        frame = frame[: number + 2]
    if number != len(frame) - 2:
        raise ValueError(f"says {number} atoms and has {max(len(frame) - 2, 0)}")
    # QUIP writes a lattice of nine zeros for a molecule.
    title = _ZERO_LATTICE.sub('pbc="F F F"' if "pbc" not in frame[1] else "", frame[1])
    rows = [_FORTRAN.sub("e", line) for line in frame[2:]]
    try:
        atoms = ase.io.read(
            io.StringIO("".join([frame[0], title, *rows])), format="extxyz", index=0
        )
    except Exception:  # noqa: BLE001 - side data have a hundred forms, the geometry has one
        return _geometry(title, rows)
    assert isinstance(atoms, Atoms)  # an index that is one number gives one structure
    return atoms


def _is_of_qm9(frame: list[str], number: int) -> bool:
    """Return whether frequencies, SMILES and InChI follow the atoms, as in QM9's own files."""
    return (
        len(frame) == number + 5
        and frame[1].startswith("gdb")
        and frame[-1].startswith("InChI=")
        and all(_NUMBER.fullmatch(word) for word in frame[-3].split())
    )


def _geometry(title: str, rows: list[str]) -> Atoms:
    """Species, positions and cell alone, with what else is of a simple form."""
    info = _comment(title)
    species, positions = _columns(str(info.get("Properties", "species:S:1:pos:R:3")))
    numbers, coords = [], []
    for row in rows:
        words = row.split()
        if len(words) < max(species + 1, positions + 3):
            raise ValueError(f"an atom has {len(words)} columns: '{row.strip():.40}'")
        numbers.append(_element(words[species]))
        coords.append([_coordinate(word) for word in words[positions : positions + 3]])
    lattice = info.get("Lattice")
    cell = None if lattice is None else np.asarray(lattice, dtype=float).reshape(3, 3, order="F")
    pbc = info.get("pbc", cell is not None)
    atoms = Atoms(numbers=numbers, positions=np.array(coords).reshape(-1, 3), cell=cell, pbc=pbc)
    atoms.info |= {key: info[key] for key in _KEPT if key in info}
    if isinstance(info.get("energy"), int | float):
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms.calc = SinglePointCalculator(atoms, energy=float(info["energy"]))
    return atoms


def _comment(title: str) -> dict[str, Any]:
    """The keys of an extended comment line that are understood; nothing, of a plain one."""
    if not re.search(r"\b(Properties|Lattice|pbc)\s*=", title):
        return {}
    pairs = [f"{key}={value}" for key, value in _PAIR.findall(title) if key.lower() in _READ]
    return dict(key_val_str_to_dict(" ".join(pairs)))


def _columns(properties: str) -> tuple[int, int]:
    """Where the species and the first coordinate stand.

    Raises:
        ValueError: the description of the columns is none, or names neither.
    """
    pieces = properties.split(":")
    names, widths = pieces[::3], pieces[2::3]
    if len(names) != len(widths) or not all(width.isdigit() for width in widths):
        raise ValueError(f"its columns cannot be understood: Properties={properties:.60}")
    starts = np.cumsum([0, *map(int, widths)])
    places = {name.lower(): int(start) for name, start in zip(names, starts, strict=False)}
    species = [places[name] for name in (*_SPECIES, *_NUMBERS) if name in places]
    positions = [places[name] for name in _POSITIONS if name in places]
    if not species or not positions:
        raise ValueError(f"it has no columns species and pos: Properties={properties:.60}")
    return species[0], positions[0]


def _element(word: str) -> int:
    if word.isdigit():
        if not 1 <= int(word) <= 118:
            raise ValueError(f"there is no element of atomic number {word:.20}")
        return int(word)
    letters = re.match(r"[A-Za-z]*", word)
    try:
        return element_of_symbol(word)
    except ValueError as error:
        if "isotopes" in str(error) or (letters and letters.group() == word):
            raise
    return element_of_label(word)


def _coordinate(word: str) -> float:
    if word.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float("nan")  # said of the whole structure later
    if not _NUMBER.fullmatch(word):
        raise ValueError(f"a coordinate is '{word:.30}'")
    return float(word)
