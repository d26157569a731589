"""Which energies may stand in one hull table? Measured on the rows that it is made of.

Three tables of the same formulas: a release's own hull values alone (formation energy minus energy
above hull), with the other rows at their formation energy (which is what
`adit_plugins.cli.shipped_data hull` does), and with these rows minus their own energy above hull. A
hull has no compound above the hull of the others. Then the release's values of some groups are left
out, and given by either.

    python benchmarks/hull_table.py mp_energies.parquet more_mp_new.parquet --release mp-20 \\
        --release mpts-52 --held-out mp20_val --held-out mp20_test --held-out mp20_train_part \\
        --leave-out mp-40 --leave-out smact_binary --json benchmarks/results/hull_table.json
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pymatgen.core import Element
from relaxed_rows import write_json

from adit_plugins.hull.building import read_energies, release_hull
from adit_plugins.hull.table import Hull

REFERENCES = {element.symbol: 0.0 for element in Element}  # formation energies need no others


def compounds(formulas: Iterable[str]) -> list[str]:
    """Return those of two elements or more, by chemical system: each hull is made once."""
    systems = {formula: sorted(re.findall("[A-Z][a-z]?", formula)) for formula in formulas}
    return sorted((f for f in systems if len(set(systems[f])) > 1), key=systems.__getitem__)


def hull_at(table: Mapping[str, float], formulas: Iterable[str]) -> NDArray[np.float64]:
    """Return the hull of a table, eV/atom."""
    hull = Hull(table, REFERENCES)
    return np.array([hull.energy_above_hull(f, 0.0).hull_energy_per_atom for f in formulas])


def above_the_others(table: Mapping[str, float]) -> dict[str, Any]:
    """Count what lies above the hull of the others: the hull of all is below it."""
    formulas = compounds(table)
    above = np.array([table[f] for f in formulas]) - hull_at(table, formulas)
    return {
        "compounds": len(formulas),
        "above_the_others_by_1_meV": round(float((above > 1e-3).mean()), 4),
        "by_20_meV": round(float((above > 0.02).mean()), 4),
        "at_most_meV": round(1000 * float(above.max()), 1),
        "above_the_elements": sum(table[f] > 1e-4 for f in formulas),
    }


def errors(table: Mapping[str, float], truth: Mapping[str, float]) -> dict[str, Any]:
    """Compare the hull of a table with the release's."""
    formulas = compounds(truth)
    wrong = hull_at(table, formulas) - np.array([truth[f] for f in formulas])
    return {
        "formulas": len(formulas),
        "mae_meV": round(1000 * float(np.abs(wrong).mean()), 1),
        "within_1_meV": round(float((np.abs(wrong) < 1e-3).mean()), 3),
        "too_low_by_5_meV": round(float((wrong < -5e-3).mean()), 3),
    }


def repeated(rows: pd.DataFrame) -> dict[str, int]:
    """Count formulas of several rows, and those whose hull values disagree."""
    values = (rows.formation_energy_per_atom - rows.energy_above_hull).groupby(rows.formula)
    spread = values.max() - values.min()
    return {"formulas": int((values.size() > 1).sum()), "disagree": int((spread > 1e-3).sum())}


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", type=Path)
    for name in ("--release", "--held-out", "--leave-out"):
        parser.add_argument(name, action="append", default=[], metavar="GROUP")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    known = [*args.release, *args.held_out]
    rows = read_energies(args.sources, [*known, *args.leave_out])
    rows = rows[~rows.group.isin(args.leave_out)]
    others = rows[~rows.group.isin(known)]
    phases = others.groupby("formula").formation_energy_per_atom.min().to_dict()
    foreign = release_hull(others, list(others.group.unique()))
    release, rest = release_hull(rows, known), release_hull(rows, args.release)
    truth = {f: e for f, e in release.items() if f not in rest and f in phases}
    result = {
        "rows": len(rows),
        "more_than_once_in_the_release": repeated(rows[rows.group.isin(known)]),
        "above the others": {
            "release alone": above_the_others(release),
            "others at their formation energy": above_the_others(phases | release),
            "others minus their energy above hull": above_the_others(foreign | release),
        },
        "left out": {
            "others at their formation energy": errors(phases | rest, truth),
            "others minus their energy above hull": errors(foreign | rest, truth),
        },
    }
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
