"""Whether a crystal's duplicate is among the nearest by invariants, where a campaign looks for it.

    python benchmarks/nearest_duplicates.py TABLE --json benchmarks/results/nearest_duplicates.json

Crystals AB2 of a table get the elements of TiO2, so that one composition has hundreds of structures
with cells of one size. Each is compared with all unique ones before it (what a campaign did), and
the place of its first match among the nearest says how many comparisons would have found it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from json_output import write_json
from pymatgen.core import Structure

from adit_plugins.campaign.duplicates import MAX_COMPARED
from adit_plugins.matching.fingerprints import invariants_of_primitive
from adit_plugins.matching.matcher import first_match, reduce_cell
from adit_plugins.structures.reading import iter_entries
from adit_plugins.structures.samples import Sample

LIMITS = (1, 3, 10, 30, MAX_COMPARED)


def cells(table: Path, num: int, sites: int) -> list[Structure]:
    """Primitive cells of crystals AB2 with the elements of TiO2."""
    found = []
    for entry in iter_entries(table):
        if entry.atoms is None or len(entry.atoms) % 3:
            continue
        structure = Sample.from_ase(entry.atoms).to_pymatgen()
        assert isinstance(structure, Structure)  # the table holds crystals
        counts = structure.composition.reduced_composition.get_el_amt_dict()
        if sorted(counts.values()) != [1, 2]:
            continue
        one, two = sorted(counts, key=counts.__getitem__)
        structure.replace_species({one: "Ti", two: "O"})
        cell = reduce_cell(structure)
        if cell is not None and len(cell) == sites:
            found.append(cell)
            if len(found) == num:
                break
    return found


def measure(crystals: list[Structure]) -> dict[str, Any]:
    """Compare each with all unique ones before it."""
    unique: list[Structure] = []
    vectors: list[Any] = []
    places, seconds, compared = [], 0.0, 0
    for crystal in crystals:
        mine = invariants_of_primitive(crystal).astype(float)
        begun = time.perf_counter()
        matches = [i for i, each in enumerate(unique) if first_match(crystal, [each]) is not None]
        seconds, compared = seconds + time.perf_counter() - begun, compared + len(unique)
        if not matches:
            unique.append(crystal)
            vectors.append(mine)
            continue
        order = np.argsort(((np.array(vectors) - mine) ** 2).sum(axis=1), kind="stable")
        places.append(min(order.tolist().index(i) for i in matches))
    return {
        "crystals": len(crystals),
        "unique_by_all_pairs": len(unique),
        "duplicates_by_all_pairs": len(places),
        "found_among_the_nearest": {str(n): sum(each < n for each in places) for n in LIMITS},
        "ms_per_comparison": round(1000 * seconds / compared, 2),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--num", type=int, default=400)
    parser.add_argument("--sites", type=int, default=6)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = measure(cells(args.table, args.num, args.sites))
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
