"""Are energies of other sources on the scale of the hull? Checked on materials known to both.

1. Rows with a formation energy of an old release (legacy corrections) and one of today's: the
   first brought to the scale of 2020, against the second.
2. Rows of other groups: where the Materials Project's rows hold the same crystal
   (`StructureMatcher`), its formation energy against theirs, as it is and brought there from each
   scale; and how many of them have an energy at all.

    python benchmarks/hull_sources.py other_crystals.parquet --known more_mp_new.parquet \\
        --known crystals.parquet --leave-out smact_binary --log shifts.jsonl \\
        --json benchmarks/results/hull_sources.json
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from pymatgen.analysis.structure_matcher import StructureMatcher
from relaxed_rows import errors, write_json

from adit_plugins.hull.building import ENERGY, GEOMETRY, Shifts, flat_formula, row_structure
from adit_plugins.hull.scales import LEGACY, RAW

COLUMNS = ["material_id", "source", "formula", ENERGY, *GEOMETRY]
# The same relaxed crystal, not a like one.
MATCHER = StructureMatcher(ltol=0.1, stol=0.15, angle_tol=3)
SEED = 0


def read(path: Path, legacy_column: str) -> pd.DataFrame:
    """Rows with their group as `source`, and the legacy energies where the file has them."""
    rows = pd.read_parquet(path)
    if "dataset" in rows:
        rows = rows.rename(columns={"dataset": "source"})
    return rows.reindex(columns=[*COLUMNS, legacy_column])


def told(found: pd.Series, expected: pd.Series) -> dict[str, Any]:
    """Errors in meV/atom, with the shares within 10 and 50."""
    off = (found - expected).dropna().abs()
    shares = {f"within_{n}_meV": round(float((off < n / 1000).mean()), 3) for n in (10, 50)}
    return errors(found, expected) | shares


def legacy(rows: pd.DataFrame, column: str, num: int, shifts: Shifts) -> dict[str, Any]:
    """Bring energies with legacy corrections to 2020, where both are known of one material."""
    both = rows[rows[ENERGY].notna() & rows[column].notna()].astype({ENERGY: float, column: float})
    chosen = both.sample(min(num, len(both)), random_state=SEED)
    moved = chosen[column] + shifts.of(chosen.rename(columns={"source": "group"}), LEGACY)
    return {
        "materials": len(chosen),
        "without a correction": int(moved.isna().sum()),
        "as they are": told(chosen[column], chosen[ENERGY]),
        "brought to 2020": told(moved, chosen[ENERGY]),
    }


def same_crystals(known: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the other rows whose crystal is among the known ones, with `expected`, eV/atom."""
    by_formula = dict(iter(known.groupby("flat")))
    kept, expected = [], []
    for row in other.itertuples():
        structure = row_structure(row)
        for candidate in by_formula.get(row.flat, known[:0]).itertuples():
            if MATCHER.fit(structure, row_structure(candidate)):
                kept.append(row.Index)
                expected.append(getattr(candidate, ENERGY))
                break
    return other.loc[kept].assign(expected=expected)


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="parquet of other sources")
    parser.add_argument("--known", type=Path, action="append", help="of the Materials Project")
    parser.add_argument("--legacy-column", default="formation_energy_2019")
    parser.add_argument("--leave-out", action="append", default=[], metavar="GROUP")
    parser.add_argument("--num", type=int, default=3000)
    parser.add_argument("--log", type=Path, help="as of the command that makes the table")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # pymatgen's, about formulas whose states it cannot guess
    known = pd.concat([read(path, args.legacy_column) for path in args.known], ignore_index=True)
    known = known[~known.source.isin(args.leave_out)]
    other = pd.read_parquet(args.other, columns=COLUMNS)
    counts = other.groupby("source")[ENERGY].agg(["size", "count"])
    energies = known[known[ENERGY].notna()]
    energies = energies.assign(flat=energies.formula.map(flat_formula))
    other = other[other[ENERGY].notna()]
    same = same_crystals(energies, other.assign(flat=other.formula.map(flat_formula)))
    shifts = Shifts(args.log)
    result: dict[str, Any] = {
        "legacy": legacy(known, args.legacy_column, args.num, shifts),
        "rows, with energy": {
            str(row.Index): [int(row.size_), int(row.count_)]
            for row in counts.rename(columns={"size": "size_", "count": "count_"}).itertuples()
        },
    }
    for group, rows in same.groupby("source"):
        moved = {
            # A log holds one scale a row; the other is not in it.
            scale: rows[ENERGY] + Shifts(None).of(rows.rename(columns={"source": "group"}), scale)
            for scale in (LEGACY, RAW)
        }
        result[str(group)] = {
            "same crystals": len(rows),
            "as they are": told(rows[ENERGY], rows.expected),
            **{f"from {scale}": told(energy, rows.expected) for scale, energy in moved.items()},
        }
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
