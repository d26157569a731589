"""Duplicates in a set that grows in the store: the first of its kind is unique, the rest are not.

Only structures of one reduced composition are compared, and a crystal with no more than
`MAX_COMPARED` of them: those whose invariants are nearest. So a campaign of one formula takes time
that grows with its length, not with its square. Compositions that are met again and again stay in
memory, up to a limit; the others are read from the store.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from adit_plugins.campaign.store import Store
from adit_plugins.campaign.work import pack, unpack
from adit_plugins.matching.fingerprints import invariants_of_primitive, num_invariants
from adit_plugins.matching.matcher import ERRORS, first_match, group, reduce_cell
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from ase.db.row import AtomsRow
    from pymatgen.core import Structure

MAX_KEPT = 5000  # crystals in memory
MAX_COMPARED = 100  # earlier crystals of a composition, by StructureMatcher


@dataclass
class Uniques:
    """The unique crystals of a composition whose primitive cells have one number of sites.

    Attributes:
        names: their ids.
        cells: as `work.pack` gives them.
        invariants: `[crystals, invariants]`, of the first of them; filled when there are many.
    """

    names: list[str] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)
    invariants: list[NDArray[np.int8]] = field(default_factory=list)

    def add(self, name: str, cell: dict[str, Any]) -> None:
        """Take one more."""
        self.names.append(name)
        self.cells.append(cell)

    def match(self, cell: dict[str, Any]) -> str | None:
        """Return the id of the first of them that a cell matches, of those that are compared."""
        places = self._nearest(cell) if len(self.cells) > MAX_COMPARED else range(len(self.cells))
        if not places:
            return None
        found = first_match(unpack(cell), (unpack(self.cells[place]) for place in places))
        return None if found is None else self.names[places[found]]

    def _nearest(self, cell: dict[str, Any]) -> list[int]:
        """Return the places of those with the nearest invariants, in their order."""
        for each in self.cells[len(self.invariants) :]:
            self.invariants.append(_invariants(each))
        differences = np.array(self.invariants).astype(float) - _invariants(cell)
        order = np.argsort((differences**2).sum(axis=1), kind="stable")
        return sorted(order[:MAX_COMPARED].tolist())


class Duplicates:
    """What is unique so far.

    Call `crystal` and `molecule` in the order of the numbers, then add the rows to the store, then
    `committed`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._crystals: OrderedDict[str, dict[int, Uniques]] = OrderedDict()
        self._molecules: dict[str, str] = {}  # not in the store yet

    def crystal(self, name: str, composition: str, reduced: dict[str, Any] | None) -> str | None:
        """Return the id of the first unique crystal that this one matches; else it is unique.

        Args:
            name: its id.
            composition: reduced.
            reduced: its cell, as `work.pack` gives it; one without a cell matches nothing.
        """
        if reduced is None:
            return None
        if composition not in self._crystals:
            self._crystals[composition] = self._load(composition)
        self._crystals.move_to_end(composition)
        earlier = self._crystals[composition].setdefault(len(reduced["numbers"]), Uniques())
        first = earlier.match(reduced)
        if first is None:
            earlier.add(name, reduced)
        return first

    def molecule(self, name: str, smiles: str) -> str | None:
        """Return the id of the first molecule with this SMILES; else it is unique."""
        first = self._molecules.get(smiles)
        if first is None:
            rows = self._store.find("smiles", smiles_column(smiles))
            first = str(self._store.row(rows[0]).data["adit"]["id"]) if rows else None
        if first is None:
            self._molecules[smiles] = name
        return first

    def committed(self) -> None:
        """Forget what the store knows, once it is too much; not the composition met last."""
        self._molecules.clear()
        kept = sum(map(_num_kept, self._crystals.values()))
        while kept > MAX_KEPT and len(self._crystals) > 1:
            kept -= _num_kept(self._crystals.popitem(last=False)[1])

    def _load(self, composition: str) -> dict[int, Uniques]:
        found: dict[int, Uniques] = {}
        for row in self._store.rows(ids=self._store.find("composition", composition)):
            reduced = row.data.get("reduced")
            if row.get("unique") and reduced is not None:
                size = len(reduced["numbers"])
                found.setdefault(size, Uniques()).add(str(row.data["adit"]["id"]), reduced)
        return found


def _num_kept(composition: dict[int, Uniques]) -> int:
    return 1 + sum(len(each.cells) for each in composition.values())


def _invariants(cell: dict[str, Any]) -> NDArray[np.int8]:
    structure = unpack(cell)
    assert structure is not None
    try:
        return invariants_of_primitive(structure)
    except ERRORS:  # nothing is near such a cell
        return np.full(num_invariants(len(set(cell["numbers"]))), 127, dtype=np.int8)


def relaxed_cell(row: AtomsRow) -> dict[str, Any] | None:
    """Return the reduced cell of a row as it was relaxed, packed; None where there is none."""
    reduced = reduce_cell(cast("Structure", Sample.from_ase(row.toatoms()).to_pymatgen()))
    return None if reduced is None else pack(reduced)


def mark_relaxed_duplicates(store: Store, below: float = math.inf) -> None:
    """Find crystals that became equal as they were relaxed; the lowest of each kind counts.

    The others get its id in the column `relaxed_duplicate_of`. The verdict depends on the set of
    results alone, not on their order, and is made anew each time.

    Args:
        store: of a campaign.
        below: judge only what lies below this distance from the hull, eV/atom; what lies higher has
            no say in it.
    """
    compositions = store.texts("composition")
    ids = [i for i in store.ranked("energy_above_hull", "relaxed", below) if i in compositions]
    found: dict[int, str | None] = {}
    for places in group(compositions[row_id] for row_id in ids).values():
        unique: dict[int, Uniques] = {}
        for row in store.rows(ids=[ids[place] for place in places]) if len(places) > 1 else ():
            cell = relaxed_cell(row)
            if cell is None:
                continue
            earlier = unique.setdefault(len(cell["numbers"]), Uniques())
            found[row.id] = earlier.match(cell)
            if found[row.id] is None:
                earlier.add(str(row.data["adit"]["id"]), cell)
    judged = set(ids)
    known = {i: each for i, each in store.texts("relaxed_duplicate_of").items() if i in judged}
    changes = {row_id: found.get(row_id) for row_id in known.keys() | found.keys()}
    store.annotate_all(
        {i: {"relaxed_duplicate_of": name} for i, name in changes.items() if known.get(i) != name}
    )


def smiles_column(smiles: str) -> str:
    """Return a SMILES as the store's column holds it: some look like numbers or truth values."""
    return f"smiles:{smiles}"
