"""Alexandria's files of entries, read one entry at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ijson

from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.labels import parse_labels
from adit_plugins.datasets.streams import CrystalStream, Streamed
from adit_plugins.structures import json_files
from adit_plugins.structures.entries import Entry, attempt
from adit_plugins.structures.members import of_file

FILES = ("*.json", "*.json.bz2", "*.json.gz", "*.json.xz")
# Columns of ours by theirs; the indirect gap is the smaller one.
COLUMNS = {"e_above_hull": "energy_above_hull", "band_gap_ind": "band_gap"}


@Streamed
def alexandria(
    source: Path | None = None,
    max_num_atoms: int = 20,
    max_energy_above_hull: float = 0.1,
    labels: Iterable[str] = (),
) -> CrystalStream:
    """Alexandria (Schmidt et al., CC BY 4.0, https://alexandria.icams.rub.de), from its own files.

    Each file is a JSON of pymatgen's `ComputedStructureEntry`s under `entries`, whose `data` have
    `mat_id`, `e_above_hull` (eV/atom, on Alexandria's hull), `band_gap_ind` (eV) and others, any
    of which can be a label. Files are read entry by entry, however large.

    Args:
        source: one file, or a folder of them (`alexandria_000.json.bz2`, ...). They are not
            downloaded.
        max_num_atoms: larger cells are left out.
        max_energy_above_hull: eV/atom; entries above it, or without one, are left out.
        labels: as for `crystals`.

    Raises:
        DatasetError: there is no source, or none of its files.
    """
    units = parse_labels(labels)
    if source is None:
        raise DatasetError(
            "Alexandria is not downloaded: pass --source with one of its .json.bz2 files, or a "
            "folder of them (https://alexandria.icams.rub.de)."
        )
    return CrystalStream(
        "alexandria",
        "Alexandria (CC BY 4.0)",
        partial(_entries, _files(source)),
        max_num_atoms,
        max_energy_above_hull,
        units,
    )


def _files(source: Path) -> list[Path]:
    found = [source] if source.is_file() else []
    if source.is_dir():
        found = sorted({path for pattern in FILES for path in source.glob(pattern)})
    if not found:
        raise DatasetError(f"No file {', '.join(FILES)} at {source}.")
    return found


def _entries(paths: list[Path]) -> Iterator[tuple[Entry, None]]:
    for path in paths:
        for number, value in enumerate(read_values(path)):
            yield _entry(value, f"{path.name}, entry {number}"), None


def read_values(path: Path) -> Iterator[Any]:
    """Yield the entries of a file as parsed JSON, one in memory at a time.

    Args:
        path: of the form above, compressed or not.

    Raises:
        DatasetError: it is no such file.
    """
    number = 0
    try:
        with of_file(path).open() as file:
            for value in ijson.items(file, "entries.item", use_float=True):
                number += 1
                yield value
    except (ijson.JSONError, OSError, EOFError) as error:
        raise DatasetError(f"{path} is damaged after entry {number}: {error}") from error
    if not number:
        raise DatasetError(f"{path} has no entries: it is no file of Alexandria.")


def _entry(value: Any, name: str) -> Entry:
    data = value.get("data") if isinstance(value, dict) else None
    told = data if isinstance(data, dict) else {}
    entry = attempt(
        name, partial(json_files.structure, value), "crystal", str(told.get("mat_id") or "")
    )
    columns = told | {ours: told.get(theirs) for theirs, ours in COLUMNS.items()}
    return Entry(name, entry.atoms, entry.reason, "crystal", entry.id, columns)
