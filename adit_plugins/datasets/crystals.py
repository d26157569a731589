"""Crystals as prepared arrays: MP-20 and users' own tables, folders and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adit_plugins.datasets.canonical import canonical_crystal, training_order
from adit_plugins.datasets.common import SPLITS
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.labels import parse_labels
from adit_plugins.datasets.streams import CrystalStream, Streamed
from adit_plugins.datasets.tables import split_tables, table_folder, table_url
from adit_plugins.structures.entries import Entry, InputError
from adit_plugins.structures.reading import iter_entries

__all__ = ["canonical_crystal", "crystals", "mp20", "training_order"]

MP20_URL = table_url("mp_20")  # in the data set's own repository
MP20_ROWS = {"train": 27136, "val": 9047, "test": 9046}


@Streamed
def mp20(source: Path | None = None) -> CrystalStream:
    """MP-20 (Xie et al. 2021, arXiv 2110.06197), from its public CSV files or a user's copy.

    Args:
        source: folder with train.csv, val.csv and test.csv; by default they are downloaded once
            into the cache (`~/.cache/adit-plugins`) and their checksums recorded there.

    Raises:
        DatasetError: a file is missing, changed since its first use, or is not MP-20's: another
            number of rows, or an id twice.
    """
    folder = table_folder("mp_20", source)
    rows = split_tables(folder, "MP-20", MP20_ROWS, unique_ids=True)
    return CrystalStream("mp20", MP20_URL, rows)


@Streamed
def crystals(
    source: Path | None = None,
    max_num_atoms: int = 20,
    max_energy_above_hull: float = 0.1,
    labels: Iterable[str] = (),
) -> CrystalStream:
    """A user's crystals: a table, a folder of CIFs, or whatever else `adit` reads.

    A table (parquet or CSV) has a column of structures (`cif`, `structure`, ...) or
    `atomic_numbers`, `frac_coords` (flat), `a`, `b`, `c`, `alpha`, `beta`, `gamma`; optional
    columns are `split` (train, val, test), `energy_above_hull` and `num_atoms`. Without `split`,
    every 20th row is test and every 20th + 10 validation. The key-value pairs of an ASE database
    (`.db`, `.aselmdb`) and the numbers in an extxyz's comment lines are columns, too. What is left
    out is said, with its number and reason.

    Args:
        source: the file or folder.
        max_num_atoms: larger cells are left out.
        max_energy_above_hull: eV/atom; rows above it, or without a number, are left out where the
            column exists; infinity for no limit.
        labels: further columns that a network can be trained on as conditions, `NAME`,
            `NAME:UNIT` or `NAME:class`. The energy above the hull and the band gap are taken where
            a table has them; density and space group are those of the structure.

    Raises:
        DatasetError: the source is missing, unreadable, or holds nothing that passes; a column
            holds no numbers.
    """
    units = parse_labels(labels)
    if source is None:
        raise DatasetError("The data set 'crystals' is your own file: pass --source PATH.")
    if not source.exists():
        raise DatasetError(f"No such file or folder: {source}")
    return CrystalStream(
        "crystals",
        source.name,
        lambda: entries_of(source),
        max_num_atoms,
        max_energy_above_hull,
        units,
    )


def _numbers(info: Mapping[str, Any]) -> dict[str, Any]:
    """What the comment line of an extxyz says in numbers, as the columns of a table."""
    return {name: value for name, value in info.items() if isinstance(value, int | float)}


def entries_of(source: Path) -> Iterator[tuple[Entry, str | None]]:
    """All entries of a user's source, each with its split where the source names one.

    Raises:
        DatasetError: it cannot be read, or names another split.
    """
    try:
        for entry in iter_entries(source):
            if not entry.columns and entry.atoms is not None:
                entry = replace(entry, columns=_numbers(entry.atoms.info))
            split = entry.columns.get("split") or None
            if split is not None and split not in SPLITS:
                raise DatasetError(f"{source}: split must be one of {SPLITS}, got {split!r}")
            yield entry, split
    except InputError as error:
        raise DatasetError(
            f"{source} cannot be read: {error} Known are .parquet, .csv, folders of .cif, and "
            "other files of structures."
        ) from error
