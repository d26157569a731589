"""Tables (CSV, parquet): a structure a row, as text or as numbers, the other columns beside it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from adit_plugins.structures.elements import element_of_symbol
from adit_plugins.structures.entries import Entry, InputError, attempt
from adit_plugins.structures.json_files import ID_KEYS, entry_of_text, structure

TEXT_COLUMNS = ("cif", "cif_string", "structure", "LeMatStructs")
CELL_COLUMNS = ("a", "b", "c", "alpha", "beta", "gamma")
# OPTIMADE's names, which LeMat-Bulk has: rows of the cell, and positions in angstrom.
OPTIMADE_COLUMNS = ("lattice_vectors", "cartesian_site_positions", "species_at_sites")
NUMBER_COLUMNS = ("atomic_numbers", "frac_coords", *CELL_COLUMNS)
MOLECULE_COLUMNS = ("atomic_numbers", "positions")  # angstrom, no cell


def parse_csv(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read rows; the separator is a comma, a semicolon or a tab.

    Raises:
        InputError: there is no column of structures.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    stream = iter(lines)
    head = next(stream, "")
    separator = max(",;\t", key=head.count)
    reader = csv.DictReader(_chain(head, stream), delimiter=separator, restkey="", restval="")
    check_columns(reader.fieldnames or [], name)
    for i, row in enumerate(reader):
        yield _row_entry(row, f"{name}, row {i}")


def parse_parquet(file: BinaryIO, name: str) -> Iterator[Entry]:
    """Read rows of a parquet file, a few thousand at a time.

    Raises:
        InputError: there is no column of structures.
    """
    import pyarrow.parquet as parquet

    table = parquet.ParquetFile(file)
    check_columns(table.schema_arrow.names, name)
    place = 0
    for batch in table.iter_batches(batch_size=2000):
        for row in batch.to_pylist():
            yield _row_entry(row, f"{name}, row {place}")
            place += 1


def check_columns(columns: Iterable[str], name: str) -> None:
    """Refuse a table without a column of structures.

    Raises:
        InputError: with the columns that are known.
    """
    known = {str(column).strip().lower() for column in columns}
    if known & {column.lower() for column in TEXT_COLUMNS} or any(
        known.issuperset(several)
        for several in (NUMBER_COLUMNS, OPTIMADE_COLUMNS, MOLECULE_COLUMNS)
    ):
        return
    raise InputError(
        f"{name} has none of the columns {', '.join(TEXT_COLUMNS)}, and not all of "
        f"{', '.join(NUMBER_COLUMNS)}, of {', '.join(OPTIMADE_COLUMNS)}, or, of molecules, of "
        f"{', '.join(MOLECULE_COLUMNS)}."
    )


def _chain(head: str, rest: Iterator[str]) -> Iterator[str]:
    yield head
    yield from rest


def _row_entry(row: Mapping[str, Any], name: str) -> Entry:
    cells = {str(key).strip().lower(): value for key, value in row.items()}
    columns = [column.lower() for column in TEXT_COLUMNS if column.lower() in cells]
    own = next((str(cells[key]) for key in ID_KEYS if cells.get(key) not in (None, "")), "")
    value = next((cells[column] for column in columns if cells[column]), None)
    if value is None and set(NUMBER_COLUMNS) <= set(cells):
        entry = attempt(name, partial(_of_numbers, cells), "crystal")
    elif value is None and set(OPTIMADE_COLUMNS) <= set(cells):
        entry = attempt(name, partial(_of_optimade, cells), "crystal")
    elif value is None and set(MOLECULE_COLUMNS) <= set(cells):
        entry = attempt(name, partial(_of_positions, cells), "molecule")
    elif value is None:
        entry = Entry(name, None, "the cell is empty", "crystal")
    elif isinstance(value, dict):
        entry = attempt(name, partial(structure, value), "crystal")
    else:
        entry = entry_of_text(str(value), name)
    used = {*columns, *OPTIMADE_COLUMNS}
    rest = {key: value for key, value in cells.items() if key not in used}
    return Entry(name, entry.atoms, entry.reason, entry.kind, own or entry.id, rest)


def _of_numbers(cells: Mapping[str, Any]) -> Atoms:
    cell = cellpar_to_cell([float(cells[key]) for key in CELL_COLUMNS])
    numbers = [int(z) for z in _listed(cells["atomic_numbers"])]
    frac = np.asarray(_listed(cells["frac_coords"]), dtype=float).reshape(-1, 3)
    return Atoms(numbers=numbers, scaled_positions=frac, cell=cell, pbc=True)


def _of_positions(cells: Mapping[str, Any]) -> Atoms:
    numbers = [int(z) for z in _listed(cells["atomic_numbers"])]
    positions = np.asarray(_listed(cells["positions"]), dtype=float).reshape(-1, 3)
    charge = cells.get("charge")
    return Atoms(numbers, positions, info={} if charge in (None, "") else {"charge": charge})


def _of_optimade(cells: Mapping[str, Any]) -> Atoms:
    cell, positions, symbols = (_listed(cells[key]) for key in OPTIMADE_COLUMNS)
    return Atoms(
        numbers=[element_of_symbol(str(symbol)) for symbol in symbols],
        positions=np.asarray(positions, dtype=float).reshape(-1, 3),
        cell=np.asarray(cell, dtype=float).reshape(3, 3),
        pbc=True,
    )


def _listed(value: Any) -> Any:
    """A list as it is in a parquet file; in a CSV it is the text `[1, 2]`."""
    return json.loads(value) if isinstance(value, str) else value
