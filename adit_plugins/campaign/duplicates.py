"""Duplicates in a set that grows in the store: the first of its kind is unique, the rest are not.

Only structures of one reduced composition are compared. Those that are met again and again stay in
memory, up to a limit; the others are read from the store.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

from adit_plugins.campaign.store import Store
from adit_plugins.campaign.work import unpack
from adit_plugins.matching.matcher import first_match, group, reduce_cell
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_KEPT = 2000  # crystals in memory


class Duplicates:
    """What is unique so far.

    Call `crystal` and `molecule` in the order of the numbers, then add the rows to the store, then
    `committed`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._crystals: OrderedDict[str, list[tuple[str, Structure | None]]] = OrderedDict()
        self._molecules: dict[str, str] = {}  # not in the store yet

    def crystal(self, name: str, composition: str, reduced: dict[str, Any] | None) -> str | None:
        """Return the id of the first unique crystal that this one matches; else it is unique."""
        if composition not in self._crystals:
            self._crystals[composition] = self._load(composition)
        self._crystals.move_to_end(composition)
        earlier = self._crystals[composition]
        mine = unpack(reduced)
        place = first_match(mine, (each for _, each in earlier)) if earlier else None
        if place is not None:
            return earlier[place][0]
        earlier.append((name, mine))
        return None

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
        """Forget what the store knows, once it is too much."""
        self._molecules.clear()
        kept = sum(map(len, self._crystals.values()))
        while kept > MAX_KEPT:
            kept -= len(self._crystals.popitem(last=False)[1])
        while len(self._crystals) > MAX_KEPT:
            self._crystals.popitem(last=False)

    def _load(self, composition: str) -> list[tuple[str, Structure | None]]:
        rows = map(self._store.row, self._store.find("composition", composition))
        return [
            (str(row.data["adit"]["id"]), unpack(row.data["reduced"]))
            for row in rows
            if row.get("unique")
        ]


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
        unique: list[tuple[str, Structure | None]] = []
        for row in store.rows(ids=[ids[place] for place in places]) if len(places) > 1 else ():
            mine = reduce_cell(cast("Structure", Sample.from_ase(row.toatoms()).to_pymatgen()))
            first = first_match(mine, (each for _, each in unique))
            found[row.id] = None if first is None else unique[first][0]
            if first is None:
                unique.append((str(row.data["adit"]["id"]), mine))
    judged = set(ids)
    known = {i: each for i, each in store.texts("relaxed_duplicate_of").items() if i in judged}
    changes = {row_id: found.get(row_id) for row_id in known.keys() | found.keys()}
    store.annotate_all(
        {i: {"relaxed_duplicate_of": name} for i, name in changes.items() if known.get(i) != name}
    )


def smiles_column(smiles: str) -> str:
    """Return a SMILES as the store's column holds it: some look like numbers or truth values."""
    return f"smiles:{smiles}"
