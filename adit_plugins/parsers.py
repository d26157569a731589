"""Structures out of the text of a file, entry by entry: a damaged one does not spoil the others."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ase.io
from ase import Atoms
from ase.io.cif import parse_cif
from rdkit import Chem, rdBase

from adit_plugins.inputs import structure_from_dict
from adit_plugins.samples import KEY, Sample, to_sample

PROVENANCE_TAG = "_adit_provenance"  # of a CIF block
# A structure of so many lines has too many atoms to be judged; parsers take minutes over it.
MAX_LINES = 20_000


@dataclass(frozen=True)
class Entry:
    """One structure of a file, or the reason why there is none.

    Attributes:
        name: where it stands, such as `"crystals.extxyz, structure 3"`.
        atoms: None if it cannot be read.
        reason: why not.
        kind: what the format says it is, `"crystal"` or `"molecule"`; None if it does not say.
    """

    name: str
    atoms: Atoms | None
    reason: str = ""
    kind: str | None = None


def attempt(name: str, make: Callable[[], Atoms], kind: str | None = None) -> Entry:
    """Return the entry that `make` gives; whatever it raises becomes the reason."""
    try:
        with warnings.catch_warnings(), rdBase.BlockLogs():
            warnings.simplefilter("ignore")
            return Entry(name, make(), kind=kind)
    except Exception as error:  # noqa: BLE001 - parsers of a dozen formats fail in as many ways
        reason = " ".join(str(error).split())
        if not reason or not isinstance(error, ValueError):  # a parser's slip, no explanation
            reason = f"damaged ({type(error).__name__}: {reason})"
        return Entry(name, None, reason[:200], kind)


def parse_xyz(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read frames of (extended) xyz.

    A frame ends where the next line with nothing but a number stands, not where its own number of
    atoms says: so a frame with a line too few or too many is one bad frame, and the next is good.
    """
    frame: list[str] = []
    index = 0
    for line in lines:
        if len(frame) != 1 and line.strip().isdigit():
            if any(each.strip() for each in frame):
                yield _xyz_frame(frame, f"{name}, structure {index}")
                index += 1
            frame = []
        # Lines beyond the limit are counted by the first of them only, to keep the memory flat.
        if len(frame) <= MAX_LINES:
            frame.append(line)
    if any(each.strip() for each in frame):
        yield _xyz_frame(frame, f"{name}, structure {index}")


def _xyz_frame(frame: list[str], name: str) -> Entry:
    def make() -> Atoms:
        while not frame[-1].strip() and len(frame) > 2:
            frame.pop()
        if not frame[0].strip().isdigit():
            raise ValueError(f"starts with '{frame[0].strip():.40}', not with a number of atoms")
        _check_length(frame)
        if int(frame[0]) != len(frame) - 2:
            raise ValueError(f"says {int(frame[0])} atoms and has {max(len(frame) - 2, 0)}")
        atoms = ase.io.read(io.StringIO("".join(frame)), format="extxyz", index=0)
        assert isinstance(atoms, Atoms)  # an index that is one number gives one structure
        return atoms

    header = frame[1].lower() if len(frame) > 1 else ""
    return attempt(name, make, "crystal" if "lattice=" in header else "molecule")


def parse_cifs(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read the data blocks that hold a structure."""
    for index, block in enumerate(_split(lines, lambda line: line[:5].lower() == "data_", True)):
        title = f"{name}, block {index} ({block[0].strip()[5:45]})"
        text = "".join(block)
        if not re.search("_atom_site|_cell_length", text, re.IGNORECASE):
            continue  # comments before the first block, or metadata
        yield attempt(title, lambda block=block: _cif_block(block), "crystal")  # type: ignore[misc]


def _cif_block(lines: list[str]) -> Atoms:
    _check_length(lines)
    [block] = parse_cif(io.StringIO("".join(lines)))
    atoms = block.get_atoms()
    occupancies = atoms.info.pop("occupancy", {}).values()
    if any(len(site) > 1 or min(site.values()) < 1 for site in occupancies):
        raise ValueError("it is disordered")
    provenance = block.get(PROVENANCE_TAG)
    # ASE leaves objects of its own in info, which no file format could write again
    atoms.info = {KEY: json.loads(provenance)} if provenance else {}
    assert isinstance(atoms, Atoms)
    return atoms


def parse_sdf(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """Read records (by RDKit, 3D with explicit hydrogens)."""
    for index, record in enumerate(_split(lines, lambda line: line.startswith("$$$$"), False)):
        if any(line.strip() for line in record):
            yield attempt(
                f"{name}, entry {index}",
                lambda record=record: _sdf_record(record),  # type: ignore[misc]
                "molecule",
            )


def _sdf_record(lines: list[str]) -> Atoms:
    _check_length(lines)
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


def parse_pymatgen(content: Any, name: str) -> Iterator[Entry]:
    """Read Structures and Molecules as dictionaries: one, or a list."""
    entries = content if isinstance(content, list) else [content]
    for index, entry in enumerate(entries):
        place = f"{name}, entry {index}" if isinstance(content, list) else name
        yield attempt(place, lambda entry=entry: _pymatgen_atoms(entry))  # type: ignore[misc]


def _pymatgen_atoms(entry: Any) -> Atoms:
    return to_sample(structure_from_dict(entry)).to_ase()


def _split(
    lines: Iterable[str], is_border: Callable[[str], bool], keep: bool
) -> Iterator[list[str]]:
    """Cut before (and keep) or at (and drop) each border; the end of overlong pieces is lost."""
    piece: list[str] = []
    for line in lines:
        border = is_border(line)
        if border and (piece or not keep):
            yield piece
            piece = []
        if (not border or keep) and len(piece) <= MAX_LINES:
            piece.append(line)
    if piece:
        yield piece


def _check_length(lines: list[str]) -> None:
    if len(lines) > MAX_LINES:
        raise ValueError(f"it has more than {MAX_LINES} lines, too many atoms to be judged")
