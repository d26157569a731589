"""Shards of a campaign, made by several machines, as one campaign.

Each shard knows only its own structures, so duplicates are looked for again, in the order of the
source: the outcome is that of one machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins.campaign import records
from adit_plugins.campaign.duplicates import Duplicates, mark_relaxed_duplicates
from adit_plugins.campaign.settings import DONE, Settings
from adit_plugins.campaign.store import STORE, Row, Store, StoreError

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

CHUNK = 200  # rows a transaction


def find_shards(folder: Path) -> list[Path]:
    """Return the shards in a folder.

    Raises:
        StoreError: there are none.
    """
    found = sorted(path.parent for path in folder.glob(f"shard-*-of-*/{STORE}"))
    if not found:
        raise StoreError(f"{folder} holds no shards of adit discover --shard I/N --out {folder}.")
    return found


def merge(shards: Sequence[Path], out: Path) -> Store:
    """Make the store of the whole campaign from those of its shards, and return it open.

    Args:
        shards: folders, in any order; all of one campaign, all finished.
        out: an existing folder without a store.

    Raises:
        StoreError: a shard is missing, unfinished, at work or of another campaign; or `out` holds
            a store.
    """
    with ExitStack() as stack:
        stores = [stack.enter_context(Store(folder)) for folder in shards]
        metadata = _common(stores)
        merged = Store.create(out, metadata | {"shard": [0, 1], "total": sum(map(len, stores))})
        try:
            duplicates = Duplicates(merged)
            settings = Settings(**metadata["settings"])
            rows = (_again(row, duplicates, settings) for row in _in_order(stores))
            while chunk := list(islice(rows, CHUNK)):
                merged.add(chunk)
                duplicates.committed()
            mark_relaxed_duplicates(merged)
        except BaseException:
            merged.close()
            (out / STORE).unlink()
            raise
        return merged


def _of_all(store: Store) -> dict[str, Any]:
    """What the shards of a campaign have in common."""
    about = store.metadata
    return {
        "recipe": about["recipe"],
        "settings": Settings(**about["settings"]),
        "file of the hull": about.get("hull_sha256"),
        "number of shards": about["shard"][1],
    }


def _common(stores: Sequence[Store]) -> dict[str, Any]:
    """Return what all shards have in common.

    Raises:
        StoreError: see `merge`.
    """
    first, own = stores[0].metadata, _of_all(stores[0])
    for store in stores:
        differing = [name for name, value in _of_all(store).items() if value != own[name]]
        if differing:
            raise StoreError(
                f"{store.folder} and {stores[0].folder} are of different campaigns: not the same "
                f"{', '.join(differing)}."
            )
        left = store.total - len(store)
        waiting = store.num_waiting()
        if left or waiting:
            raise StoreError(
                f"{store.folder} is not finished ({left} structures to check, {waiting} to "
                f"relax). Finish it: adit discover --resume {store.folder}"
            )
    parts = [store.metadata["shard"][0] for store in stores]
    wanted = range(first["shard"][1])
    missing = sorted(set(wanted) - set(parts))
    if missing or len(parts) > len(wanted):
        text = f"missing: {', '.join(map(str, missing))}" if missing else "one is given twice"
        raise StoreError(f"A campaign of {len(wanted)} shards needs each of them once; {text}.")
    return dict(first)


def _in_order(stores: Sequence[Store]) -> Iterator[AtomsRow]:
    return heapq.merge(*(store.rows() for store in stores), key=lambda row: row["number"])


def _again(row: AtomsRow, duplicates: Duplicates, settings: Settings) -> Row:
    """Return a row with the verdict on its uniqueness among all shards."""
    columns, data = dict(row.key_value_pairs), dict(row.data)
    atoms = row.toatoms()
    atoms.info = {}
    if "unique" not in columns:
        return Row(atoms, columns, data)
    name = str(data["adit"]["id"])
    if row["kind"] == "molecule":
        first = duplicates.molecule(name, data["report"]["smiles"])
    else:
        first = duplicates.crystal(name, columns["composition"], data["reduced"])
    if (first is None) == bool(columns["unique"]):
        return Row(atoms, columns | {"duplicate_of": first}, data)
    if first is not None:
        return records.as_duplicate(row, first)
    return records.as_unique(row, settings.first_stage if row["kind"] == "crystal" else DONE)
