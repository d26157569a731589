"""Read structures from any file of the field, with the provenance that our writers left there."""

from __future__ import annotations

import csv
import json
import os
import warnings
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.io.cif import parse_cif
from ase.io.formats import UnknownFileTypeError
from pymatgen.core import Molecule, Structure
from rdkit import Chem, rdBase

from adit_plugins.samples import KEY, Sample, to_sample

INDEX = "index.csv"  # of a folder of CIFs
PROVENANCE_TAG = "_adit_provenance"  # of a CIF block


class InputError(ValueError):
    """A file of structures cannot be read."""


def read_structures(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read all structures of a file or of a folder of CIFs, in order.

    Understands what `write_samples` writes, any other file that ASE reads, SDF files (by RDKit,
    3D with explicit hydrogens) and JSON of pymatgen. Provenance comes back in `info["adit"]`.

    Raises:
        InputError: the file is missing, unreadable, empty, or holds a structure that cannot be
            represented (disorder, charge, no 3D coordinates).
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"Cannot read {source}: there is no such file or folder.")
    try:
        structures = _read_folder(source) if source.is_dir() else _read_file(source)
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
    if not structures:
        raise InputError(f"{source} holds no structures.")
    return structures


def _read_folder(folder: Path) -> list[Atoms]:
    paths = sorted(folder.glob("*.cif"))
    if (folder / INDEX).is_file():
        with (folder / INDEX).open(encoding="utf-8", newline="") as file:
            paths = [folder / row["file"] for row in csv.DictReader(file)]
    return [atoms for path in paths for atoms in read_structures(path)]


def _read_file(path: Path) -> list[Atoms]:
    readers = {".sdf": _read_sdf, ".cif": _read_cif, ".db": _read_db, ".json": _read_json}
    return readers.get(path.suffix.lower(), _read_ase)(path)


def _read_ase(path: Path) -> list[Atoms]:
    # ASE takes what follows an @ in a name for the numbers of frames.
    return list(ase.io.read(path, index=":", do_not_split_by_at_sign=True))


def _read_sdf(path: Path) -> list[Atoms]:
    structures = []
    with rdBase.BlockLogs():
        # Bonds are not needed for the geometry, so odd valences must not stop the reading.
        for i, mol in enumerate(Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)):
            if mol is None:
                raise InputError(f"Cannot read entry {i} of {path}: it is no valid SDF record.")
            for atom in mol.GetAtoms():  # a file without any bonds says nothing about hydrogens
                atom.SetNoImplicit(atom.GetNoImplicit() or not mol.GetNumBonds())
            mol.UpdatePropertyCache(strict=False)
            try:
                structures.append(Sample.from_rdkit(mol).to_ase())
            except ValueError as error:
                raise InputError(f"Cannot use entry {i} of {path}: {error}") from error
    return structures


def _read_cif(path: Path) -> list[Atoms]:
    structures = []
    for block in parse_cif(str(path)):
        if not block.has_structure():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings and duplicates of symmetric sites
            atoms = block.get_atoms()
        occupancies = atoms.info.pop("occupancy", {}).values()
        if any(len(site) > 1 or min(site.values()) < 1 for site in occupancies):
            raise InputError(f"Cannot use block {block.name} of {path}: it is disordered.")
        provenance = block.get(PROVENANCE_TAG)
        # ASE leaves objects of its own in info, which no file format could write again
        atoms.info = {KEY: json.loads(provenance)} if provenance else {}
        structures.append(atoms)
    return structures


def _read_db(path: Path) -> list[Atoms]:
    if not path.stat().st_size:
        return []  # to connect would make a database of it
    structures = []
    for row in ase.db.connect(path, type="db").select():
        atoms = row.toatoms()
        if KEY in row.data:
            atoms.info[KEY] = dict(row.data[KEY])
        structures.append(atoms)
    return structures


def _read_json(path: Path) -> list[Atoms]:
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    entries = content if isinstance(content, list) else [content]
    if not all(isinstance(entry, dict) and "@class" in entry for entry in entries):
        return _read_ase(path)  # ASE's own JSON
    classes: dict[str, Any] = {"Structure": Structure, "Molecule": Molecule}
    structures = []
    for i, entry in enumerate(entries):
        if entry["@class"] not in classes:
            raise InputError(
                f"Entry {i} of {path} is a {entry['@class']}. Known: {', '.join(classes)}."
            )
        structures.append(to_sample(classes[entry["@class"]].from_dict(entry)).to_ase())
    return structures
