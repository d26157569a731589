"""Everything that ASE reads and no other module here: POSCAR, trajectories, data bases, ..."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.io.formats import UnknownFileTypeError

from adit_plugins.samples import KEY
from adit_plugins.structures.entries import MATERIAL_ID, Entry, InputError, attempt


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


def read_db(path: Path, name: str) -> Iterator[Entry]:
    """Read the rows of an ASE database."""
    if not path.stat().st_size:
        return  # to connect would make a database of it
    for row in ase.db.connect(path, type="db").select():
        yield attempt(f"{name}, row {row.id}", partial(_of_row, row))


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
