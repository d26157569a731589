"""How much too low a distance from the shipped hull is likely to be: what it does not know counts.

Every phase that a table misses can only lower its hull, and so raise distances from it. By how much
was counted with two thirds of the table's formulas of three elements or more left out
(`benchmarks/hull_thinness.py`), by the number of compounds a sub-system that are left. Alexandria's
hull has about three times the phases of this one. It is a mean: a single distance may be off by far
more, or by nothing.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from typing import Any

from adit_plugins.hull.results import HullResult
from adit_plugins.hull.table import SHIPPED

FILE = "hull_thinness.json"
EDGES = (2, 4, 8)  # known compounds a sub-system
TERNARY = 4  # sub-systems of two elements or more
WORTH_SAYING = 0.02  # eV/atom; less is lost in the errors of potentials


def likely_too_low_by(found: HullResult) -> float | None:
    """Return the expected error in eV/atom.

    None for another reference than the shipped one, and for fewer than three elements, whose
    compounds are taken as known.
    """
    if found.source != SHIPPED or found.num_subsystems < TERNARY:
        return None
    return float(_calibration()["rises"][bisect_right(EDGES, density(found))])


def density(found: HullResult) -> float:
    """Return how many known compounds there are for each sub-system of the elements."""
    return found.num_reference_phases / found.num_subsystems


def thin_note(rows: Iterable[tuple[str, float | None]]) -> str:
    """Say of the rows of a table which distances are likely too low, and by how much.

    Args:
        rows: what each is called, and its `likely_too_low_by` (eV/atom).

    Returns:
        A sentence; empty where there is nothing worth saying.
    """
    named: dict[int, list[str]] = {}
    for name, error in rows:
        if error is not None and error >= WORTH_SAYING:
            named.setdefault(round(1000 * error), []).append(name)
    if not named:
        return ""
    parts = [f"by about {e} meV/atom: {', '.join(named[e])}" for e in sorted(named, reverse=True)]
    return f"E hull is likely too low, as few phases are known there, {'; '.join(parts)}."


@lru_cache(maxsize=1)
def _calibration() -> dict[str, Any]:
    text = (files("adit_plugins") / "data" / FILE).read_text(encoding="utf-8")
    return dict(json.loads(text))


def table_digest() -> str:
    """Return the SHA-256 of the shipped table, to which what is calibrated belongs."""
    return hashlib.sha256((files("adit_plugins") / "data" / "hull.csv.gz").read_bytes()).hexdigest()
