"""Crystals as prepared arrays: MP-20 and users' own tables, folders and files."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from adit_plugins import processes
from adit_plugins.datasets.common import SPLITS, assemble, cache, download, split_by_row
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.labels import KNOWN, number_of, parse_labels
from adit_plugins.structures.entries import Entry, InputError, ReadingNotice
from adit_plugins.structures.reading import iter_entries
from adit_plugins.structures.samples import MAX_ATOMIC_NUMBER
from adit_plugins.structures.symmetry import niggli_reduced, symmetry_dataset

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from adit_model.data import PreparedData

UNITS = {"density": "g/cm3"}  # of what is found from the structure
MP20_COMMIT = "f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea"  # of the data set's own repository
MP20_URL = f"https://raw.githubusercontent.com/txie-93/cdvae/{MP20_COMMIT}/data/mp_20/{{split}}.csv"
MP20_ROWS = {"train": 27136, "val": 9047, "test": 9046}


def mp20(source: Path | None = None) -> PreparedData:
    """MP-20 (Xie et al. 2021, arXiv 2110.06197), from its public CSV files or a user's copy.

    Args:
        source: folder with train.csv, val.csv and test.csv; by default they are downloaded once
            into the cache (`~/.cache/adit-plugins`) and their checksums recorded there.

    Raises:
        DatasetError: a file is missing, changed since its first use, or is not MP-20's: another
            number of rows, or an id twice.
    """
    folder = source if source is not None else cache() / "mp_20"
    rows: list[tuple[Entry, str | None]] = []
    for split, expected in MP20_ROWS.items():
        path = folder / f"{split}.csv"
        if source is None:
            download(MP20_URL.format(split=split), path)
        if not path.is_file():
            raise DatasetError(f"No {path}. MP-20 is {', '.join(MP20_ROWS)} (.csv) in one folder.")
        found = _entries(path)
        if len(found) != expected:
            raise DatasetError(f"{path} has {len(found)} rows, MP-20 has {expected} there.")
        rows += [(entry, split) for entry in found]
    _check_mp20(folder, rows)
    return _prepared("mp20", rows, MP20_URL)


def _check_mp20(folder: Path, rows: list[tuple[Entry, str | None]]) -> None:
    """Refuse files that have MP-20's names and lengths, but another content."""
    seen: set[str] = set()
    for entry, split in rows:
        identity = str(entry.columns.get("material_id") or entry.id)
        if not identity or identity in seen:
            raise DatasetError(
                f"{folder} is not MP-20: in {split}.csv the id {identity!r} is missing or not the "
                "only one."
            )
        seen.add(identity)


def crystals(
    source: Path | None = None,
    max_num_atoms: int = 20,
    max_energy_above_hull: float = 0.1,
    labels: Iterable[str] = (),
) -> PreparedData:
    """A user's crystals: a table, a folder of CIFs, or whatever else `adit` reads.

    A table (parquet or CSV) has a column of structures (`cif`, `structure`, ...) or
    `atomic_numbers`, `frac_coords` (flat), `a`, `b`, `c`, `alpha`, `beta`, `gamma`; optional
    columns are `split` (train, val, test), `energy_above_hull` and `num_atoms`. Without `split`,
    every 20th row is test and every 20th + 10 validation. What is left out is said, with its
    number and reason.

    Args:
        source: the file or folder.
        max_num_atoms: larger cells are left out.
        max_energy_above_hull: eV/atom; rows above it, or without a number, are left out where the
            column exists.
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
    left: Counter[str] = Counter()
    rows: list[tuple[Entry, str | None]] = []
    entries = _entries(source)
    for entry in entries:
        reason = _filtered(entry.columns, max_num_atoms, max_energy_above_hull)
        if reason:
            left[reason] += 1
            continue
        split = entry.columns.get("split") or None
        if split is not None and split not in SPLITS:
            raise DatasetError(f"{source}: split must be one of {SPLITS}, got {split!r}")
        rows.append((entry, split))
    for reason, count in left.items():
        warnings.warn(
            f"{source}: {count} of {len(entries)} rows {reason}", ReadingNotice, stacklevel=2
        )
    if not rows:
        raise DatasetError(f"{source}: no structure passes the filters.")
    return _prepared("crystals", rows, source.name, max_num_atoms, units)


def _entries(source: Path) -> list[Entry]:
    """All entries of a source, and warnings about what was left out of it."""
    if not source.exists():
        raise DatasetError(f"No such file or folder: {source}")
    try:
        return list(iter_entries(source))
    except InputError as error:
        raise DatasetError(
            f"{source} cannot be read: {error} Known are .parquet, .csv, folders of .cif, and "
            "other files of structures."
        ) from error


def _filtered(columns: Mapping[str, Any], max_num_atoms: int, max_energy_above_hull: float) -> str:
    """Why the columns of a row leave it out, or nothing."""
    for name, limit, unit in (
        ("energy_above_hull", max_energy_above_hull, " eV/atom"),
        ("num_atoms", max_num_atoms, ""),
    ):
        if name not in columns:
            continue
        try:
            value = float(columns[name])
        except (TypeError, ValueError):
            value = float("nan")
        if not np.isfinite(value):
            return f"have no {name} and are left out"
        if value > limit:
            return f"have {name} above {limit:g}{unit} and are left out"
    return ""


def _prepared(
    name: str,
    rows: list[tuple[Entry, str | None]],
    source: str,
    max_num_atoms: int = 20,
    units: Mapping[str, str] = KNOWN,
) -> PreparedData:
    """Reduce and order every crystal, in processes; count what cannot be read."""
    found = processes.map(_crystal_row, [entry.atoms for entry, _ in rows], _lost)
    kept, lost, large, reason = [], 0, 0, ""
    for i, ((entry, split), row) in enumerate(zip(rows, found, strict=True)):
        if isinstance(row, str):
            lost += 1
            reason = reason or f"{entry.name}: {entry.reason or row}"
        elif len(row["atomic_numbers"]) <= max_num_atoms:
            row["split"] = SPLITS.index(split) if split else split_by_row(i)
            columns = {key: number_of(entry.columns[key]) for key in units if key in entry.columns}
            row["labels"] = columns | row["labels"]
            kept.append(row)
        else:
            large += 1
    if lost:
        text = f"{source}: {lost} of {len(rows)} crystals cannot be read"
        warnings.warn(f"{text} and are left out; the first: {reason}", ReadingNotice, stacklevel=2)
    if large:
        text = f"{source}: {large} of {len(rows)} crystals have more than {max_num_atoms} atoms"
        warnings.warn(f"{text} in the reduced cell and are left out", ReadingNotice, stacklevel=2)
    wanted = [label for label in units if label not in KNOWN]
    return assemble(name, "crystal", kept, source, {**units, **UNITS}, wanted)


def _lost(atoms: Atoms | None, problem: str) -> str:
    """A crystal that kills its process, or takes a minute, is one that cannot be read."""
    return problem


def _crystal_row(atoms: Atoms | None) -> dict[str, Any] | str:
    """One crystal as arrays, or why there is none."""
    from adit_plugins.structures.samples import to_sample

    if atoms is None:
        return "it cannot be read"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sample = to_sample(atoms)
            if sample.kind != "crystal":
                return "it is a molecule"
            structure = cast("Structure", sample.to_pymatgen())
            found = symmetry_dataset(structure)
            group = float("nan") if found is None else float(found.number)
            labels = {"density": float(structure.density), "space_group": group}
            return canonical_crystal(structure) | {"labels": labels}
        except Exception as error:  # noqa: BLE001 - one bad row of thousands is counted, not fatal
            return str(error) or type(error).__name__


def training_order(numbers: NDArray[Any], frac: NDArray[Any]) -> NDArray[np.int64]:
    """Places of a crystal's atoms `[num_atoms]` by atomic number, then fractional coordinates."""
    keys = np.round(frac, 2)
    order: NDArray[np.int64] = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0], numbers))
    return order


def canonical_crystal(structure: Structure) -> dict[str, Any]:
    """Niggli-reduced cell and atoms ordered by atomic number, then position.

    A fixed order and cell leave the denoiser one answer where any order would leave n!.

    Returns:
        `atomic_numbers`, `coords` (fractional, in [-0.02, 0.98)), `cell` (angstrom, degrees).

    Raises:
        ValueError: there is a dummy atom, or an element beyond the network's.
    """
    reduced = niggli_reduced(structure)
    numbers = np.array(reduced.atomic_numbers)
    if not ((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)).all():
        raise ValueError(f"an atomic number is not in 1..{MAX_ATOMIC_NUMBER} (0 is a dummy atom)")
    frac = (np.array(reduced.frac_coords) + 0.02) % 1.0 - 0.02
    order = training_order(numbers, frac)
    return {
        "atomic_numbers": numbers[order].tolist(),
        "coords": frac[order],
        "cell": [*reduced.lattice.lengths, *reduced.lattice.angles],
    }
