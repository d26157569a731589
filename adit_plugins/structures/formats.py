"""One streaming writer a file format: what `write_samples` chooses from by the suffix."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ase.db
from ase.io.extxyz import write_extxyz
from monty.json import MontyEncoder
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from rdkit import Chem

from adit_plugins.structures.bonds import canonical_smiles
from adit_plugins.structures.cif_facts import fact_items
from adit_plugins.structures.entries import PROVENANCE_TAG
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import Sample
from adit_plugins.structures.selection import INDEX

FOLDER = "folder/"
INDEX_COLUMNS = ("file", "id", "formula", "num_atoms")
_DB_CHUNK = 100  # samples a transaction; a transaction each costs 20 ms
# Provenance that `ase db` can select by; the names `id` and `index` would not be allowed there.
_DB_COLUMNS = {"sample_id": "id", "kind": "kind", "seed": "seed", "sample_index": "index"}

_CIF_ITEMS = ("id", "checkpoint", "seed")  # of the provenance, beside the whole of it

Add = Callable[[Sample], None]


def file_name(sample_id: str) -> str:
    return re.sub(r"[^\w.+-]", "_", sample_id)


@contextmanager
def _text_writer(
    path: Path, render: Callable[[Sample], str], start: str = "", between: str = "", end: str = ""
) -> Iterator[Add]:
    """Write one text a sample; an interrupted one is cut off again."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(start)
        complete = file.tell()

        def add(sample: Sample) -> None:
            nonlocal complete
            text = render(sample)
            file.write(between + text if complete > len(start) else text)
            complete = file.tell()

        try:
            yield add
        finally:
            file.seek(complete)
            file.truncate()
            file.write(end)


def _extxyz_text(sample: Sample) -> str:
    buffer = io.StringIO()
    write_extxyz(buffer, [sample.to_ase()])
    return buffer.getvalue()


def _json_text(sample: Sample) -> str:
    return json.dumps(sample.to_pymatgen().as_dict(), cls=MontyEncoder)


def sdf_text(sample: Sample) -> str:
    """Return a record of an SDF with provenance and SMILES.

    Raises:
        ValueError: it is a crystal, or no bonds fit.
    """
    mol = sample.to_rdkit()
    mol.SetProp("SMILES", canonical_smiles(mol))
    return str(Chem.SDWriter.GetText(mol))


def cif_text(sample: Sample, facts: Mapping[str, Any] | None = None) -> str:
    """Return a CIF block with the provenance.

    Args:
        sample: a crystal.
        facts: what else is known of it, for data items beside its id, checkpoint and seed.
    """
    structure = sample.to_pymatgen()
    assert isinstance(structure, Structure)  # _check_kind has kept molecules out
    text = str(CifWriter(structure))
    head, separator, body = text.partition("data_")
    formula, newline, rest = body.partition("\n")
    name = file_name(sample.id) or formula
    text = head + separator + name + newline + rest
    items = fact_items({key: sample.provenance.get(key) for key in _CIF_ITEMS} | dict(facts or {}))
    provenance = f"{PROVENANCE_TAG}\n;\n{json.dumps(sample.provenance)}\n;\n"
    return f"{text.rstrip()}\n{items}{provenance}"


@contextmanager
def _db_writer(path: Path) -> Iterator[Add]:
    database = ase.db.connect(path, type="db", append=False, use_lock_file=False)
    waiting: list[Sample] = []

    def write() -> None:
        with database:  # all or nothing, so an interrupted chunk can be written again
            for sample in waiting:
                provenance = sample.provenance
                columns = {
                    column: provenance[key]
                    for column, key in _DB_COLUMNS.items()
                    if key in provenance
                }
                atoms = sample.to_ase()
                del atoms.info[KEY]
                database.write(atoms, key_value_pairs=columns, data={KEY: provenance})

    def flush() -> None:
        try:
            if waiting:
                write()
        except sqlite3.Error as error:
            full = error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
            raise OSError(errno.ENOSPC if full else errno.EACCES, str(error)) from error
        finally:
            waiting.clear()

    def add(sample: Sample) -> None:
        waiting.append(sample)
        if len(waiting) == _DB_CHUNK:
            flush()

    try:
        yield add
    finally:
        flush()


@contextmanager
def _folder_writer(folder: Path) -> Iterator[Add]:
    folder.mkdir()
    rows: list[tuple[str, str, str, int]] = []

    def add(sample: Sample) -> None:
        name = file_name(sample.id) or "crystal"
        if (folder / f"{name}.cif").exists() or not sample.id:
            name = f"{name}_{len(rows):06d}"
        (folder / f"{name}.cif").write_text(cif_text(sample), encoding="utf-8")
        formula = sample.to_ase().get_chemical_formula(empirical=True)
        rows.append((f"{name}.cif", sample.id, formula, sample.num_atoms))

    try:
        yield add
    finally:
        for path in set(folder.iterdir()) - {folder / row[0] for row in rows}:
            path.unlink()  # a file that was interrupted before it entered the index
        with (folder / INDEX).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([INDEX_COLUMNS, *rows])


def is_ours(folder: Path) -> bool:
    """Whether a folder holds CIFs that this program wrote, and nothing else.

    Its index has our columns and lists every other file, so neither a user's folder with an index
    of its own nor one of ours to which a user has added a file counts.
    """
    try:
        with (folder / INDEX).open(encoding="utf-8", newline="") as file:
            columns, *rows = csv.reader(file)
        content = {path.name for path in folder.iterdir()}
    except (OSError, ValueError, csv.Error):  # no index, an empty one, or no text
        return False
    return tuple(columns) == INDEX_COLUMNS and content <= {INDEX, *(row[0] for row in rows if row)}


_json_writer = partial(_text_writer, render=_json_text, start="[\n", between=",\n", end="\n]\n")

WRITERS: dict[str, Callable[[Path], AbstractContextManager[Add]]] = {
    ".extxyz": partial(_text_writer, render=_extxyz_text),
    ".xyz": partial(_text_writer, render=_extxyz_text),
    ".db": _db_writer,
    ".sdf": partial(_text_writer, render=sdf_text),
    ".cif": partial(_text_writer, render=cif_text, between="\n"),
    ".json": _json_writer,
    ".aditjson": _json_writer,
    FOLDER: _folder_writer,
}
