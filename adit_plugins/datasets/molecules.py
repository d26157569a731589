"""Molecules as prepared arrays: QM9 (package `qm9pack`, or its archive) and users' own files."""

from __future__ import annotations

import hashlib
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_plugins.datasets.canonical import heavy_first
from adit_plugins.datasets.common import SPLITS, assemble, split_by_row, split_of
from adit_plugins.datasets.crystals import entries_of
from adit_plugins.datasets.download import cache, download
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.labels import number_of
from adit_plugins.structures.entries import Entry, ReadingNotice
from adit_plugins.structures.samples import to_sample

if TYPE_CHECKING:
    from adit_model.data import PreparedData

ARCHIVE_URL = "https://ndownloader.figshare.com/files/3195389"
ARCHIVE_NAME = "dsgdb9nsd.xyz.tar.bz2"
ARCHIVE_HASH = "md5:ad1ebd51ee7f5b3a6e32e974e5d54012"  # as figshare publishes it
MAX_MEMBER_BYTES = 100_000  # a molecule of QM9 has a few thousand
PACKAGE_ROWS = 130_831  # without the molecules that failed the authors' consistency check
ARCHIVE_ROWS = 133_885
PACKAGE = "qm9pack==1.0.3"
PACKAGE_HASHES = {  # SHA-256 of the parts in its wheel
    "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
    "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
    "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
}
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
HARTREE = 27.211386245988  # eV (CODATA 2018)
# Label: column of the package, place in the comment of the archive's files (Ramakrishnan et al.,
# table 3, counted from 0), what one is in the label's unit, the unit.
PROPERTIES = {
    "homo_lumo_gap": ("HOMO_LUMO_gap_au", 9, HARTREE, "eV"),
    "dipole_moment": ("Dipole_debye", 5, 1.0, "D"),
    "polarizability": ("Polarizability_bohr3", 6, 1.0, "bohr3"),
}


def qm9(source: Path | None = None) -> PreparedData:
    """QM9 (Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22) as prepared arrays.

    Args:
        source: qm9pack's folder of CSV parts, or the archive `dsgdb9nsd.xyz.tar.bz2`; by default
            the installed package `qm9pack`, else the archive, downloaded once into the cache.

    Raises:
        DatasetError: the source is missing, unreadable or incomplete.
    """
    if source is None:
        source = _package_folder()
    if source is None:
        source = cache() / ARCHIVE_NAME
        download(ARCHIVE_URL, source, ARCHIVE_HASH)
    if source.is_dir():
        molecules, expected = list(_from_package(source)), PACKAGE_ROWS
    elif source.is_file():
        molecules, expected = list(_from_archive(source)), ARCHIVE_ROWS
    else:
        raise DatasetError(f"No such file or folder: {source}. Or: pip install {PACKAGE}")
    if len(molecules) != expected:
        raise DatasetError(
            f"{source} holds {len(molecules)} molecules, expected {expected}: incomplete? "
            "Download or install it again."
        )
    rows = [
        {
            "atomic_numbers": numbers,
            "coords": xyz - xyz.mean(axis=0),
            "split": split_by_row(row),
            "labels": labels,
        }
        for row, (numbers, xyz, labels) in enumerate(molecules)
    ]
    units = {name: unit for name, (*_, unit) in PROPERTIES.items()}
    return assemble("qm9", "molecule", rows, f"QM9 from {source.name}", units)


def molecules(source: Path | None = None, max_num_atoms: int = 64) -> PreparedData:
    """A user's molecules: a table, a folder, or whatever else `adit` reads (`docs/files.md`).

    A table (parquet or CSV) has the columns `atomic_numbers` and `positions` (flat, angstrom), and
    may have `split` (train, val, test) and `smiles`. Without `split`, all conformers of a SMILES
    are in one split (5 % test, 5 % validation); without both, every 20th molecule is test and every
    20th + 10 validation. Heavy atoms come first, in their order, as in QM9 and in
    `ADiTGenerator.encode`. What is left out is said, with its number and reason.

    Args:
        source: the file or folder.
        max_num_atoms: larger molecules, hydrogens included, are left out.

    Raises:
        DatasetError: the source is missing, unreadable, or holds no molecule.
    """
    if source is None:
        raise DatasetError("The data set 'molecules' is your own file: pass --source PATH.")
    if not source.exists():
        raise DatasetError(f"No such file or folder: {source}")
    rows: list[dict[str, Any]] = []
    left: Counter[str] = Counter()
    first: dict[str, str] = {}
    for entry, split in entries_of(source):
        reason, detail = _unfit(entry, max_num_atoms)
        if reason:
            left[reason] += 1
            first.setdefault(reason, f"{entry.name}{detail}")
            continue
        assert entry.atoms is not None
        order = heavy_first(entry.atoms.numbers)
        xyz = entry.atoms.positions[order]
        rows.append(
            {
                "atomic_numbers": entry.atoms.numbers[order].tolist(),
                "coords": xyz - xyz.mean(axis=0),
                "split": _split(entry, split, len(rows)),
            }
        )
    total = len(rows) + left.total()
    for reason, count in left.items():
        text = f"{source.name}: {count} of {total} rows {reason} and are left out"
        warnings.warn(f"{text}; the first: {first[reason]}", ReadingNotice, stacklevel=2)
    return assemble("molecules", "molecule", rows, source.name)


def _unfit(entry: Entry, max_num_atoms: int) -> tuple[str, str]:
    """Why a row is no molecule to learn from, in the words of a count, and what is wrong."""
    if entry.atoms is None:
        return "cannot be read", f": {entry.reason}"
    if len(entry.atoms) > max_num_atoms:
        return f"have more than {max_num_atoms} atoms", ""
    try:
        sample = to_sample(entry.atoms)
    except ValueError as error:
        return "cannot be read", f": {error}"
    return ("are crystals", "") if sample.kind == "crystal" else ("", "")


def _split(entry: Entry, named: str | None, place: int) -> int:
    """The split of a row: the one named, or that of its molecule, or by its place."""
    smiles = str(entry.columns.get("smiles") or "")
    if named or smiles:
        return SPLITS.index(named or split_of(smiles))
    return split_by_row(place)


# Atomic numbers, positions [num_atoms, 3] in angstrom, labels.
Molecule = tuple[list[int], Any, dict[str, float]]


def _package_folder() -> Path | None:
    spec = find_spec("qm9pack")
    return Path(spec.origin).parent / "data" if spec and spec.origin else None


def _from_package(folder: Path) -> Iterator[Molecule]:
    import pandas as pd

    for name, digest in PACKAGE_HASHES.items():
        part = folder / name
        if not part.is_file():
            raise DatasetError(f"No {part}. Or: pip install {PACKAGE}")
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DatasetError(f"{part} is not that of {PACKAGE}. Install it again.")
        columns = [column for column, *_ in PROPERTIES.values()]
        table = pd.read_csv(part, usecols=["Elements", "XYZ_Ang", *columns], dtype=str)
        for elements, text, *values in table[["Elements", "XYZ_Ang", *columns]].itertuples(
            index=False, name=None
        ):
            positions = np.array(_items(text), dtype=np.float64).reshape(-1, 3)
            labels = {
                name: number_of(str(value).replace("*^", "e")) * factor
                for (name, (_, _, factor, _)), value in zip(PROPERTIES.items(), values, strict=True)
            }
            yield [NUMBERS[symbol] for symbol in _items(elements)], positions, labels


def _from_archive(path: Path) -> Iterator[Molecule]:
    """Read the archive's files in their numbered order; nothing is extracted to disk."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if member.size > MAX_MEMBER_BYTES:
                    text = f"{member.name} has {member.size} bytes, too many for a molecule"
                    raise ValueError(text)
                if file is not None and member.name.endswith(".xyz"):
                    yield _parse_xyz(file.read().decode())
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{path} is no complete archive of QM9: {error}") from error


def _parse_xyz(text: str) -> Molecule:
    lines = text.splitlines()
    atoms = [line.split() for line in lines[2 : 2 + int(lines[0])]]
    positions = [[float(x.replace("*^", "e")) for x in atom[1:4]] for atom in atoms]
    values = lines[1].replace("*^", "e").split()
    labels = {
        name: number_of(values[place]) * factor
        for name, (_, place, factor, _) in PROPERTIES.items()
        if place < len(values)
    }
    return [NUMBERS[atom[0]] for atom in atoms], np.array(positions), labels


def _items(text: str) -> list[str]:
    """Split a bracketed list; QM9 writes small exponents as `*^`."""
    cleaned = text.replace("*^", "e")
    for character in "[](){},'\"\n":
        cleaned = cleaned.replace(character, " ")
    return cleaned.split()
