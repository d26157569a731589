"""How each structure of a campaign ended, in words: a row for every one, also those that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adit_plugins.campaign.settings import PREFILTER, RELAX
from adit_plugins.campaign.stored_rows import TEXT

STRUCTURES = "structures.csv"
COLUMNS = (
    "number", "id", "origin", "kind", "formula", "num_atoms", "ended", "rank", "energy_above_hull",
    "novelty", "structure_valid", "composition_valid", "neutral_by", "rdkit_valid", "strict_valid",
    "posebusters", "smiles", "unique", "duplicate_of", "novel", "relaxed", "converged",
    "space_group", "file",
)  # fmt: skip
_OF_RECORD = ("id", "formula", "num_atoms", "ended", "rank")
CANDIDATE = "candidate"


def ending(columns: Mapping[str, Any], data: Mapping[str, Any], rank: int | None = None) -> str:
    """Say how a structure ended.

    Args:
        columns: of its row in the store.
        data: of its row.
        rank: among the candidates.
    """
    if columns["kind"] == "molecule":
        return _molecule(columns, data)
    return _crystal(columns, data, rank)


def _crystal(columns: Mapping[str, Any], data: Mapping[str, Any], rank: int | None) -> str:
    if "problem" in columns:
        return str(columns["problem"])
    if not columns["structure_valid"]:
        return "invalid: atoms too close, or no volume"
    if not columns.get("unique"):
        return f"duplicate of {_name(columns, 'duplicate_of')}"
    if not columns.get("novel"):
        return "known structure, not relaxed"
    if rank is not None:
        return CANDIDATE
    if columns["stage"] in (PREFILTER, RELAX):
        return "waits to be relaxed"
    return _not_ranked(columns, data)


def _not_ranked(columns: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Why a valid, unique and novel crystal that waits for nothing is no candidate."""
    if "relaxed" not in columns:
        if columns.get("prefiltered") == 0:
            return "too far above the hull after the pre-filter"
        return "valid, unique, novel; nothing was relaxed"
    if not columns["relaxed"]:
        return f"relaxation failed: {data['relaxation']['reason']}"
    if "hull_problem" in columns:
        return f"relaxed, without a place on the hull: {columns['hull_problem']}"
    if "relaxed_duplicate_of" in columns:
        return f"relaxed, became {_name(columns, 'relaxed_duplicate_of')}"
    return "relaxed, beyond the limits of the ranking"


def _molecule(columns: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    if not columns.get("strict_valid"):
        return f"invalid: {columns.get('problem') or 'no reason known'}"
    if not columns.get("unique"):
        return f"duplicate of {_name(columns, 'duplicate_of')}"
    checks = data.get("report", {}).get("posebusters") or {}
    failed = [name for name, passed in checks.items() if not passed]
    if failed:
        return f"valid, fails PoseBusters: {', '.join(failed)}"
    return "valid, novel" if columns.get("novel") else "valid, known"


def _name(columns: Mapping[str, Any], column: str) -> str:
    """An id without the mark that keeps it a text for ASE."""
    return str(columns.get(column)).removeprefix(TEXT)


def structure_row(
    columns: Mapping[str, Any], data: Mapping[str, Any], record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a row of the table of all structures.

    Args:
        columns: of its row in the store.
        data: of its row.
        record: what `candidates.json` says of it.
    """
    values = {name: columns.get(name) for name in COLUMNS}
    values |= {name: record.get(name) for name in _OF_RECORD}
    values["smiles"] = data.get("report", {}).get("smiles")
    values["space_group"] = (data.get("relaxation") or {}).get("space_group_after")
    if "duplicate_of" in columns:
        values["duplicate_of"] = _name(columns, "duplicate_of")
    return values
