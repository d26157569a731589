"""SDF and mol files, by RDKit: molecules in 3D with explicit hydrogens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from ase import Atoms
from rdkit import Chem

from adit_plugins.structures.entries import MAX_CHARACTERS, MAX_LINES, Entry, attempt
from adit_plugins.structures.samples import Sample


def parse_sdf(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read records; a mol file is one without an end mark."""
    for index, record in enumerate(_records(lines)):
        if any(line.strip() for line in record):
            yield attempt(f"{name}, entry {index}", partial(_atoms, record), "molecule")


def _records(lines: Iterable[str]) -> Iterator[list[str]]:
    record: list[str] = []
    size = 0
    for line in lines:
        if line.startswith("$$$$"):
            yield record
            record, size = [], 0
            continue
        size += len(line)
        if len(record) <= MAX_LINES and size <= MAX_CHARACTERS:
            record.append(line)
    yield record


def _atoms(lines: list[str]) -> Atoms:
    if len(lines) > MAX_LINES:
        raise ValueError(f"it has more than {MAX_LINES} lines, too many atoms to be judged")
    supplier = Chem.SDMolSupplier()
    # Bonds are not needed for the geometry, so odd valences must not stop the reading.
    supplier.SetData("".join(lines) + "$$$$\n", sanitize=False, removeHs=False)
    mol = next(iter(supplier), None)
    if mol is None:
        raise ValueError("it is no valid SDF record")
    for atom in mol.GetAtoms():  # a file without any bonds says nothing about hydrogens
        atom.SetNoImplicit(atom.GetNoImplicit() or not mol.GetNumBonds())
    mol.UpdatePropertyCache(strict=False)
    return Sample.from_rdkit(mol).to_ase()
