"""Everything that ASE reads and no other module here: POSCAR, trajectories, data bases, ..."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.formats import UnknownFileTypeError

from adit_plugins.structures.entries import MATERIAL_ID, MAX_LINES, Entry, InputError, attempt
from adit_plugins.structures.provenance import KEY


def read_ase(path: Path, name: str, kind: str | None = None) -> Iterator[Entry]:
    """Read the structures of a file of a kind that ASE knows.

    Args:
        path: of the file.
        name: what entries are called by.
        kind: ASE's name of the format; None to let it tell from name or content.

    Raises:
        InputError: ASE does not know it either.
    """
    try:
        # ASE takes what follows an @ in a name for the numbers of frames.
        frames = ase.io.iread(path, index=":", format=kind, do_not_split_by_at_sign=True)
        for i, atoms in enumerate(frames):
            yield attempt(f"{name}, structure {i}", partial(_same, atoms))
    except UnknownFileTypeError as error:
        raise InputError(
            "the kind of file is not known from its name or content. Rename it, say to .extxyz, "
            ".cif or .sdf."
        ) from error


def read_poscar(path: Path, name: str) -> Iterator[Entry]:
    """Read a POSCAR; VASP 4's, which names no elements, by the symbols behind its coordinates.

    Raises:
        ValueError: it cannot be read, or says that there are too many atoms.
    """
    check_counts(path)
    try:
        atoms = ase.io.read(path, format="vasp", do_not_split_by_at_sign=True)
    except Exception:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        symbols = _symbols_behind(lines)
        if not symbols:
            raise
        text = "\n".join([*lines[:5], symbols, *lines[5:], ""])
        atoms = ase.io.read(io.StringIO(text), format="vasp")
    assert isinstance(atoms, Atoms)
    yield attempt(f"{name}, structure 0", partial(_same, atoms), "crystal")


def read_xdatcar(path: Path, name: str) -> Iterator[Entry]:
    """Read the frames of an XDATCAR.

    Raises:
        ValueError: it says that there are too many atoms.
    """
    check_counts(path)
    yield from read_ase(path, name, kind="vasp-xdatcar")


def check_counts(path: Path) -> None:
    """Refuse numbers of atoms for which ASE would fill the memory before it misses the atoms.

    Raises:
        ValueError: there are too many.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = [file.readline(MAX_LINES) for _ in range(7)]
    for line in head[5:]:
        words = line.split("!")[0].split()
        total = sum(int(word[:20]) for word in words if word.isdigit())
        if total > MAX_LINES:
            raise ValueError(f"it says it has {total} atoms, too many to be judged")


def _symbols_behind(lines: list[str]) -> str:
    """The missing line of elements, if each atom's line ends with one; else nothing."""
    counts = lines[5].split() if len(lines) > 7 else []
    if not counts or not all(count.isdigit() for count in counts):
        return ""
    start = 8 if lines[6].strip()[:1].lower() == "s" else 7  # selective dynamics
    rows = [line.split() for line in lines[start : start + sum(map(int, counts))]]
    last = [row[-1] for row in rows if len(row) > 3 and row[-1] in atomic_numbers]
    ends = [sum(map(int, counts[: i + 1])) for i in range(len(counts))]
    if len(last) != ends[-1]:
        return ""
    groups = [set(last[end - int(n) : end]) for end, n in zip(ends, counts, strict=True)]
    return " ".join(min(g) for g in groups) if all(len(g) == 1 for g in groups) else ""


def read_db(path: Path, name: str) -> Iterator[Entry]:
    """Read the rows of an ASE database."""
    if not path.stat().st_size:
        return  # to connect would make a database of it
    yield from _rows(ase.db.connect(path, type="db"), name)


def read_lmdb(path: Path, name: str) -> Iterator[Entry]:
    """Read the rows of an ASE database in LMDB (`.aselmdb`), such as those of OMat24 and OMol25.

    Raises:
        InputError: the package that reads it is not installed.
    """
    try:
        database = ase.db.connect(path, type="aselmdb", readonly=True)
    except (ImportError, ValueError, KeyError) as error:
        raise InputError(
            f"an .aselmdb needs another package ({error}): pip install 'adit-plugins[data]'"
        ) from error
    yield from _rows(database, name)


def _rows(database: Any, name: str) -> Iterator[Entry]:
    for row in database.select():
        entry = attempt(f"{name}, row {row.id}", partial(_of_row, row))
        yield replace(entry, columns=dict(row.key_value_pairs))


def _of_row(row: Any) -> Atoms:
    atoms = row.toatoms()
    if KEY in row.data:
        atoms.info[KEY] = dict(row.data[KEY])
    if MATERIAL_ID in row:
        atoms.info[MATERIAL_ID] = row[MATERIAL_ID]
    assert isinstance(atoms, Atoms)
    return atoms


def _same(atoms: Atoms) -> Atoms:
    return atoms
