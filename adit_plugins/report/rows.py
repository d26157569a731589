"""Rows of the page's table, and structures in as few characters as a browser needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from adit_plugins.campaign.records import current_atoms, generated_sample
from adit_plugins.outputs import without_nan
from adit_plugins.structures.facts import describe_crystal, describe_molecule
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import Sample
from adit_plugins.validity.posebusters_checks import failing_atoms

if TYPE_CHECKING:
    from ase.db.row import AtomsRow
    from rdkit.Chem import Mol

DIGITS = 4  # of positions in the page: 0.0001 angstrom

# What is kept of a row in the store, beside what is computed here.
_CRYSTAL = (
    "structure_valid", "composition_valid", "neutral_by", "unique", "novel", "duplicate_of",
    "novelty", "relaxed_duplicate_of", "origin", "converged",
    "outcome", "potential", "num_steps", "problem", "hull_problem", "formation_energy_per_atom",
    "energy_above_hull", "raw_energy_above_hull", "confirm_energy_above_hull",
    "confirm_difference", "confirm_agrees", "confirm_potential",
    "metastable_probability", "prefiltered", "prefilter_energy_above_hull",
    "dft_formation_energy_per_atom", "dft_energy_above_hull", "dft_engine", "dft_outcome",
)  # fmt: skip
_MOLECULE = ("connected", "unique", "novel", "duplicate_of", "problem")


@dataclass
class Row:
    """One structure.

    Attributes:
        kind: `"crystal"` or `"molecule"`.
        values: what the table and the panel show; plain JSON.
        structures: as generated, then relaxed if it was; empty if it could not be read.
    """

    kind: str
    values: dict[str, Any]
    structures: list[Sample] = field(default_factory=list)


def store_row(row: AtomsRow, rank: int | None) -> Row:
    """Return a row of a campaign's store."""
    if row["kind"] == "molecule":
        return _store_molecule(row)
    before = generated_sample(row)
    structures = [] if before is None else [before]
    values: dict[str, Any] = {"rank": rank, "id": row.data[KEY]["id"]}
    if row.get("relaxed"):
        structures.append(_relaxed_sample(current_atoms(row)))
    if structures:
        values |= describe_crystal(structures[-1])
    values |= {name: row.get(name) for name in _CRYSTAL}
    for name in ("rmsd", "volume_change", "max_force"):
        values[name] = (row.data.get("relaxation") or {}).get(name)
    hull = row.data.get("hull")
    if hull:
        names = ("num_subsystems", "num_subsystems_covered", "num_reference_phases", "source")
        values |= {name: hull[name] for name in names}
    return Row("crystal", values, structures)


def _relaxed_sample(atoms: Atoms) -> Sample:
    return Sample("crystal", atoms.numbers, atoms.positions, atoms.cell.array)


def _store_molecule(row: AtomsRow) -> Row:
    sample, report = generated_sample(row), row.data.get("report", {})
    values: dict[str, Any] = {"id": row.data[KEY]["id"]}
    if sample is not None:
        values |= describe_molecule(sample)
    values |= {name: row.get(name) for name in _MOLECULE}
    values |= {name: report.get(name) for name in ("smiles", "rdkit_valid", "strict_valid")}
    values |= busters_values(report.get("posebusters"))
    return Row("molecule", values, [] if sample is None else [sample])


def busters_values(checks: dict[str, bool] | None) -> dict[str, Any]:
    """Return how many of PoseBusters' checks passed, and the names of those that did not."""
    if not checks:
        return {}
    failed = [name for name, passed in checks.items() if not passed]
    return {
        "checks_passed": len(checks) - len(failed),
        "checks": len(checks),
        "checks_failed": failed,
    }


def encode(sample: Sample, failed: bool = False) -> dict[str, Any]:
    """Return a structure for the page.

    `z` are the atomic numbers, `x` the Cartesian positions (A) one after the other, `l` the nine
    components of the lattice vectors of a crystal. A molecule whose bonds can be found has `b`,
    (atom, atom, order) one after the other, and `q`, (atom, formal charge), where there are any.

    Args:
        sample: the structure.
        failed: whether PoseBusters found a fault in it; `m` are the groups of atoms at fault.
    """
    content: dict[str, Any] = {
        "z": sample.atomic_numbers.tolist(),
        "x": _rounded(sample.positions),
    }
    if sample.lattice is not None:
        return content | {"l": _rounded(sample.lattice)}
    try:
        mol = sample.to_rdkit()
    except ValueError:
        return content
    content |= _bonds(mol)
    if failed and (groups := failing_atoms(mol)):
        content["m"] = groups
    return content


def _bonds(mol: Mol) -> dict[str, list[int]]:
    from rdkit import Chem

    mol = Chem.Mol(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    bonds, charges = [], []
    for bond in mol.GetBonds():
        order = int(bond.GetBondTypeAsDouble())
        bonds += [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), order]
    for atom in mol.GetAtoms():
        if atom.GetFormalCharge():
            charges += [atom.GetIdx(), atom.GetFormalCharge()]
    return {"b": bonds, "q": charges} if charges else {"b": bonds}


def _rounded(values: np.ndarray) -> list[float]:
    rounded: list[float] = (np.round(values, DIGITS).ravel() + 0.0).tolist()  # no -0.0
    return rounded


class Table:
    """Rows of one kind as the page holds them.

    Attributes:
        room: characters that are left for rows and structures.
    """

    def __init__(self) -> None:
        self.room = 0
        self.columns: dict[str, None] = {}  # in the order of their first value
        self.rows: list[dict[str, Any]] = []
        self.structures: list[str] = []

    def add(self, row: Row, set_index: int) -> bool:
        """Add a row if there is room for it."""
        known = without_nan({**row.values, "set": set_index})
        values = {name: value for name, value in known.items() if value is not None}
        failed = bool(row.values.get("checks_failed"))
        text = _compact([encode(sample, failed) for sample in row.structures])
        nulls = len("null,") * len(self.columns.keys() - values.keys())
        needed = len(text) + len(_compact(list(values.values()))) + nulls
        if needed > self.room:
            return False
        self.room -= needed
        self.columns |= dict.fromkeys(values)
        self.rows.append(values)
        self.structures.append(text)
        return True

    def __len__(self) -> int:
        return len(self.rows)

    def as_json(self) -> Iterator[str]:
        """Yield the pieces of `{"columns": [...], "rows": [[...]], "structures": [[...]]}`."""
        names = list(self.columns)
        yield '{"columns":' + json.dumps(names) + ',"rows":['
        yield from _joined(_compact([row.get(name) for name in names]) for row in self.rows)
        yield '],"structures":['
        yield from _joined(self.structures)
        yield "]}"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _joined(pieces: Iterable[str]) -> Iterator[str]:
    for i, piece in enumerate(pieces):
        yield f",\n{piece}" if i else piece
