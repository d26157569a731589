"""Read structures from any file of the field, with the provenance that our writers left there."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from ase.io.formats import UnknownFileTypeError
from numpy.lib.npyio import NpzFile

from adit_plugins.parsers import (
    PROVENANCE_TAG,
    Entry,
    attempt,
    parse_cifs,
    parse_pymatgen,
    parse_sdf,
    parse_xyz,
)
from adit_plugins.samples import KEY, provenance_in

__all__ = ["INDEX", "PROVENANCE_TAG", "Entry", "InputError", "iter_entries", "read_structures"]

INDEX = "index.csv"  # of a folder of CIFs
MATTERGEN = ("generated_crystals.extxyz", "generated_crystals_cif.zip")  # two forms of one set
CIF_COLUMNS, STRUCTURE_COLUMNS = ("cif", "cif_string"), ("structure", "LeMatStructs")
# CDVAE, DiffCSP, FlowMM and OMatG concatenate the atoms of all crystals under names like these.
NUMBERS = ("atomic_numbers", "atom_types", "species")
TEXT_PARSERS: dict[str, Callable[[Iterable[str], str], Iterator[Entry]]] = {
    ".cif": parse_cifs,
    ".xyz": parse_xyz,
    ".extxyz": parse_xyz,
    ".sdf": parse_sdf,
}


class InputError(ValueError):
    """A file of structures cannot be read."""


def read_structures(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read all structures of a file or folder, in order, or none: every entry must be sound.

    Understands what `iter_entries` does. Provenance comes back in `info["adit"]`.

    Raises:
        InputError: the file is missing, unreadable, empty, or holds a structure that cannot be
            represented (disorder, charge, no 3D coordinates).
    """
    structures = []
    for entry in iter_entries(path):
        if entry.atoms is None:
            raise InputError(f"Cannot read {path}: {entry.name}: {entry.reason}")
        structures.append(entry.atoms)
    if not structures:
        raise InputError(f"{path} holds no structures.")
    return structures


def iter_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """Read a file or folder entry by entry; a damaged entry carries its reason.

    Understands what `write_samples` writes, xyz, CIF, SDF (by RDKit), JSON of pymatgen (also
    .json.gz), ASE databases, a zip or folder of such files, CSV with a column of CIFs (`cif`,
    `cif_string`) or of pymatgen JSON (`structure`, `LeMatStructs`), the concatenated arrays of
    CDVAE and DiffCSP in an npz file, and any other file that ASE reads.

    Raises:
        InputError: the file is missing, or is as a whole not of the kind that its name says.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"Cannot read {source}: there is no such file or folder.")
    try:
        yield from _read_folder(source) if source.is_dir() else _read_file(source)
    except InputError:
        raise
    except UnknownFileTypeError as error:
        raise InputError(
            f"Cannot read {source}: the kind of file is not known from its name or content. "
            "Rename it, say to .extxyz, .cif or .sdf."
        ) from error
    except Exception as error:  # parsers of a dozen formats fail in as many ways
        reason = str(error).strip() or f"damaged, or of another format ({type(error).__name__})"
        raise InputError(f"Cannot read structures from {source}: {reason}") from error


def _read_folder(folder: Path) -> Iterator[Entry]:
    paths = _in_order(folder.glob("*.cif"))
    if (folder / INDEX).is_file():
        with (folder / INDEX).open(encoding="utf-8", newline="") as file:
            paths = [folder / row["file"] for row in csv.DictReader(file)]
    elif not paths:
        mattergen = [folder / name for name in MATTERGEN if (folder / name).is_file()]
        others = (path for path in folder.iterdir() if path.suffix.lower() in TEXT_PARSERS)
        # OMatG leaves the noise it began from beside what it made of it.
        paths = mattergen[:1] or [
            path for path in _in_order(others) if not path.stem.endswith("_init")
        ]
    for path in paths:
        yield from _member(path)


def _member(path: Path) -> Iterator[Entry]:
    """Entries of a file in a folder; a file that cannot be read is one entry without atoms."""
    found = False
    try:
        for entry in iter_entries(path):
            found = True
            yield entry
    except InputError as error:
        yield Entry(path.name, None, str(error))
    else:
        if not found:
            yield Entry(path.name, None, "holds no structure")


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted with `sample_2` before `sample_10`."""
    pieces = re.compile(r"(\d+)")
    return sorted(paths, key=lambda p: [(len(x), x) if x.isdigit() else (0, x)
                                        for x in pieces.split(p.name)])  # fmt: skip


def _read_file(path: Path) -> Iterator[Entry]:
    suffix = ".json.gz" if path.name.lower().endswith(".json.gz") else path.suffix.lower()
    if suffix in TEXT_PARSERS:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from TEXT_PARSERS[suffix](file, path.name)
        return
    readers: dict[str, Callable[[Path], Iterator[Entry]]] = {
        ".db": _read_db,
        ".json": _read_json,
        ".aditjson": _read_json,
        ".json.gz": _read_json,
        ".csv": _read_csv,
        ".zip": _read_zip,
        ".npz": _read_npz,
    }
    yield from readers.get(suffix, _read_ase)(path)


def _read_ase(path: Path) -> Iterator[Entry]:
    # ASE takes what follows an @ in a name for the numbers of frames.
    for i, atoms in enumerate(ase.io.iread(path, index=":", do_not_split_by_at_sign=True)):
        yield Entry(f"{path.name}, structure {i}", atoms)


def _read_zip(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if Path(name).suffix.lower() in TEXT_PARSERS]
        for member in _in_order(Path(name) for name in names):
            if member.name.startswith("."):
                continue  # macOS adds such files
            parse = TEXT_PARSERS[member.suffix.lower()]
            found = False
            try:
                with archive.open(member.as_posix()) as file:
                    text = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
                    for entry in parse(text, str(member)):
                        found = True
                        yield entry
            except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as e:
                yield Entry(str(member), None, f"damaged in the archive: {e}")
            else:
                if not found:
                    yield Entry(str(member), None, "holds no structure")


def _read_db(path: Path) -> Iterator[Entry]:
    if not path.stat().st_size:
        return  # to connect would make a database of it
    for row in ase.db.connect(path, type="db").select():

        def make(row: Any = row) -> Atoms:
            atoms = row.toatoms()
            if provenance := provenance_in(row.data):
                atoms.info[KEY] = provenance
            assert isinstance(atoms, Atoms)
            return atoms

        yield attempt(f"{path.name}, row {row.id}", make)


def _read_json(path: Path) -> Iterator[Entry]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode("utf-8")
    content: Any = json.loads(text)
    entries = content if isinstance(content, list) else [content]
    if not any(isinstance(entry, dict) and "@class" in entry for entry in entries):
        yield from _read_ase(path)  # ASE's own JSON
        return
    yield from parse_pymatgen(content, path.name)


def _read_csv(path: Path) -> Iterator[Entry]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        known = [name for name in (*CIF_COLUMNS, *STRUCTURE_COLUMNS) if name in columns]
        if not known:
            wanted = ", ".join((*CIF_COLUMNS, *STRUCTURE_COLUMNS))
            raise InputError(f"{path} has none of the columns {wanted}.")
        for i, row in enumerate(reader):
            yield _csv_row(row[known[0]] or "", f"{path.name}, row {i}", known[0] in CIF_COLUMNS)


def _csv_row(cell: str, name: str, is_cif: bool) -> Entry:
    if not cell.strip():
        return Entry(name, None, "the cell is empty", "crystal")
    if not is_cif:
        with suppress(ValueError):
            return next(parse_pymatgen(json.loads(cell), name))
        return Entry(name, None, "the cell is no JSON", "crystal")
    entry = next(parse_cifs(io.StringIO(cell), name), None)
    return entry or Entry(name, None, "the cell holds no CIF block with a structure", "crystal")


def _plain_arrays(path: Path) -> NpzFile:
    try:
        arrays = np.load(path, allow_pickle=False)
    except ValueError as error:  # numpy advises to unpickle it, which would run what is inside
        raise InputError(f"{path} is no archive of plain arrays.") from error
    if not isinstance(arrays, NpzFile):
        raise InputError(f"{path} is a single array, no archive.")
    return arrays


def _read_npz(path: Path) -> Iterator[Entry]:
    with _plain_arrays(path) as arrays:
        names = [name for name in NUMBERS if name in arrays]
        if not names or not {"frac_coords", "num_atoms"} <= set(arrays):
            wanted = f"frac_coords, num_atoms, one of {', '.join(NUMBERS)}, and lengths with angles"
            raise InputError(f"{path} needs the arrays {wanted} (or lattices); it has "
                             f"{', '.join(arrays) or 'none'}.")  # fmt: skip
        sizes, numbers = arrays["num_atoms"].ravel(), arrays[names[0]].ravel()
        coords = arrays["frac_coords"].reshape(-1, 3)
        if "lattices" in arrays:
            cells = arrays["lattices"].reshape(-1, 3, 3)
        else:
            cells = np.hstack([arrays["lengths"].reshape(-1, 3), arrays["angles"].reshape(-1, 3)])
    sizes = sizes.astype(int)
    if (
        (sizes < 0).any()
        or len(sizes) != len(cells)
        or not sizes.sum() == len(numbers) == len(coords)
    ):
        raise InputError(f"{path}: its arrays do not fit each other (num_atoms sums up to "
                         f"{sizes.sum()}; {len(numbers)} types, {len(coords)} coordinates, "
                         f"{len(cells)} of {len(sizes)} cells).")  # fmt: skip
    ends = np.cumsum(sizes)
    for i, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        part = slice(int(end - size), int(end))

        def make(part: slice = part, i: int = i) -> Atoms:
            cell = np.asarray(cells[i], dtype=float)
            matrix = cell if cell.shape == (3, 3) else cellpar_to_cell(cell)
            frac = np.asarray(coords[part], dtype=float)
            return Atoms(numbers=numbers[part], scaled_positions=frac, cell=matrix, pbc=True)

        yield attempt(f"{path.name}, structure {i}", make, "crystal")
