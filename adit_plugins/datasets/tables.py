"""Published sets of crystals in the tables of CDVAE: train.csv, val.csv and test.csv."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from adit_plugins.datasets.download import cache, download
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.streams import CrystalStream, Streamed
from adit_plugins.structures.entries import Entry, InputError
from adit_plugins.structures.reading import iter_entries

SPLITS = ("train", "val", "test")
IDENTITY = "material_id"
COMMIT = "f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea"  # of CDVAE's repository
REPOSITORY = f"https://raw.githubusercontent.com/txie-93/cdvae/{COMMIT}/data"
DIFFCSP_COMMIT = "c81be6fea7919ad49093ce8eb5c4a3fe651fb62b"
DIFFCSP = f"https://raw.githubusercontent.com/jiaor17/DiffCSP/{DIFFCSP_COMMIT}/data"
PEROV_5_ROWS, CARBON_24_ROWS = 18_928, 10_153  # as the repository says
MPTS_52_ROWS = {"train": 27_380, "val": 5_000, "test": 8_096}
HEAT = {"heat_ref": "eV/atom", "dir_gap": "eV", "ind_gap": "eV"}


@Streamed
def perov5(source: Path | None = None) -> CrystalStream:
    """Perov-5: 18,928 perovskites of 5 atoms (Castelli et al. 2012; splits of CDVAE).

    Args:
        source: folder with train.csv, val.csv and test.csv; by default they are downloaded once,
            as those of MP-20 are.

    Raises:
        DatasetError: as for `mp20`.
    """
    folder = table_folder("perov_5", source)
    rows = split_tables(folder, "Perov-5", PEROV_5_ROWS)
    return CrystalStream("perov5", table_url("perov_5"), rows, units=HEAT)


@Streamed
def carbon24(source: Path | None = None) -> CrystalStream:
    """Carbon-24: 10,153 carbon structures of 6 to 24 atoms (Pickard 2020; splits of CDVAE).

    Args:
        source: as for `perov5`.

    Raises:
        DatasetError: as for `mp20`.
    """
    folder = table_folder("carbon_24", source)
    rows = split_tables(folder, "Carbon-24", CARBON_24_ROWS)
    return CrystalStream("carbon24", table_url("carbon_24"), rows, max_num_atoms=24)


@Streamed
def mpts52(source: Path | None = None) -> CrystalStream:
    """MPTS-52: 40,476 crystals of up to 52 atoms, split by year (Baird et al. 2022; DiffCSP).

    Args:
        source: as for `perov5`; by default from DiffCSP's repository.

    Raises:
        DatasetError: as for `mp20`.
    """
    folder = table_folder("mpts_52", source)
    rows = split_tables(folder, "MPTS-52", MPTS_52_ROWS)
    return CrystalStream("mpts52", table_url("mpts_52"), rows, max_num_atoms=52)


def table_url(name: str) -> str:
    """Where a set's tables are, with `{split}` in the place of the split."""
    repository = DIFFCSP if name == "mpts_52" else REPOSITORY
    return f"{repository}/{name}/{{split}}.csv"


def table_folder(name: str, source: Path | None) -> Path:
    """The user's folder, or the cache with the tables downloaded into it.

    Raises:
        DatasetError: a table cannot be downloaded, or changed since its first use.
    """
    if source is not None:
        return source
    for split in SPLITS:
        download(table_url(name).format(split=split), cache() / name / f"{split}.csv")
    return cache() / name


def split_tables(
    folder: Path, title: str, expected: Mapping[str, int] | int, unique_ids: bool = False
) -> Callable[[], Iterator[tuple[Entry, str | None]]]:
    """Check the three tables of a set; return what reads them, row by row.

    Args:
        folder: that holds them.
        title: of the set.
        expected: rows by split, or of all together.
        unique_ids: whether each row has an id of its own.

    Raises:
        DatasetError: a file is missing, or has another number of rows or an id twice.
    """
    found: dict[str, int] = {}
    seen: set[str] = set()
    for split in SPLITS:
        path = folder / f"{split}.csv"
        if not path.is_file():
            raise DatasetError(f"No {path}. {title} is train, val, test (.csv) in one folder.")
        found[split] = _count(path, title, seen if unique_ids else None)
        if not isinstance(expected, int) and found[split] != expected[split]:
            raise DatasetError(
                f"{path} has {found[split]} rows, {title} has {expected[split]} there."
            )
    if isinstance(expected, int) and sum(found.values()) != expected:
        raise DatasetError(f"{folder} has {sum(found.values())} rows, {title} has {expected}.")
    return lambda: _entries(folder)


def _count(path: Path, title: str, seen: set[str] | None) -> int:
    """Rows of a table, whose ids were not seen before where that is asked."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    number = 0
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            number += 1
            if seen is None:
                continue
            identity = row.get(IDENTITY) or ""
            if not identity or identity in seen:
                raise DatasetError(
                    f"{path.parent} is not {title}: in {path.name} the id {identity!r} is missing "
                    "or not the only one."
                )
            seen.add(identity)
    return number


def _entries(folder: Path) -> Iterator[tuple[Entry, str | None]]:
    for split in SPLITS:
        try:
            for entry in iter_entries(folder / f"{split}.csv"):
                yield entry, split
        except InputError as error:
            raise DatasetError(f"{folder / split}.csv cannot be read: {error}") from error
