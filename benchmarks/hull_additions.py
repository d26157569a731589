"""What does a deeper table change for a generator's crystals? Two tables, the same compositions.

The hull at the compositions of samples in both tables: how far distances rise, how much more of
their chemical systems is covered, and what the thinness of the first had said. With --log, the
energies that `benchmarks/peer_yield.py` kept, also how many verdicts at 0.1 eV/atom change.

    python benchmarks/hull_additions.py samples.npz --before old.csv.gz --log peer.jsonl \\
        --json benchmarks/results/hull_additions.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hull_thinness import formulas_of
from relaxed_rows import read_samples, write_json

from adit_plugins.hull.references import references_of
from adit_plugins.hull.table import Hull, UnknownElementError, atomic_fractions
from adit_plugins.hull.thinness import EDGES, density

LIMIT = 0.1  # eV/atom


def placed(formulas: list[str], before: Hull, after: Hull) -> pd.DataFrame:
    """Return the rise of the distance (eV/atom) and the coverage by both, a row a formula."""
    rows = []
    for formula in formulas:
        old, new = (hull.energy_above_hull(formula, 0.0) for hull in (before, after))
        rows.append(
            {
                "rise": old.hull_energy_per_atom - new.hull_energy_per_atom,
                "known": old.num_reference_phases,
                "density": density(old) if old.num_subsystems else 0.0,
                "covered_before": old.all_covered,
                "covered_after": new.all_covered,
                "known_after": new.num_reference_phases,
            }
        )
    return pd.DataFrame(rows)


def summary(rise: pd.Series) -> dict[str, Any]:
    """Quantiles in meV/atom."""
    quartiles = np.round(1000 * np.quantile(rise, [0.25, 0.5, 0.75, 0.9]), 1).tolist()
    return {
        "compositions": len(rise),
        "mean_meV": round(1000 * float(rise.mean()), 1),
        "quartiles_and_ninth_tenth_meV": quartiles,
        "above_20_meV": round(float((rise > 0.02).mean()), 3),
        "lower_by_more_than_1_meV": round(float((rise < -0.001).mean()), 4),
    }


def verdicts(log: Path, before: Hull, after: Hull) -> dict[str, Any]:
    """Count what is below the limit on either table, by the logged energies."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    old, new = [], []
    for record in records:
        if record["energy_per_atom"] is None:
            continue
        formula, references = record["formula"], references_of(record["potential"])
        try:
            energy = after.formation_energy_per_atom(formula, record["energy_per_atom"])
        except UnknownElementError:
            continue
        energy -= 0.0 if references is None else references.shift(atomic_fractions(formula))
        old.append(before.energy_above_hull(formula, energy).energy_above_hull)
        new.append(after.energy_above_hull(formula, energy).energy_above_hull)
    distances = np.array([old, new])
    below = distances <= LIMIT
    return {
        "potential": sorted({record["potential"] for record in records}),
        "placed": len(old),
        "at_most_0.1_before": int(below[0].sum()),
        "at_most_0.1_after": int(below[1].sum()),
        "at_most_0_before": int((distances[0] <= 0).sum()),
        "at_most_0_after": int((distances[1] <= 0).sum()),
        "verdicts_that_change": int((below[0] != below[1]).sum()),
        "median_before": round(float(np.median(distances[0])), 3),
        "median_after": round(float(np.median(distances[1])), 3),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--before", type=Path, required=True, help="an earlier table, .csv.gz")
    parser.add_argument("--num", type=int, default=3000)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before, after = Hull.load(args.before), Hull.load()
    found = placed(formulas_of(read_samples(args.samples, args.num)), before, after)
    labels = np.searchsorted(EDGES, found.density, "right")
    result: dict[str, Any] = {
        "samples": args.samples.name,
        "before": before.source,
        "after": after.source,
        "all": summary(found.rise),
        "all sub-systems covered before": summary(found.rise[found.covered_before]),
        "all_covered": [round(float(found[f"covered_{c}"].mean()), 3) for c in ("before", "after")],
        "known_compounds_median": [float(found[c].median()) for c in ("known", "known_after")],
        f"mean rise in meV by known compounds a sub-system before, edges {list(EDGES)}": [
            round(1000 * float(found.rise[labels == i].mean()), 1) if (labels == i).any() else None
            for i in range(len(EDGES) + 1)
        ],
    }  # fmt: skip
    if args.log is not None:
        result["verdicts"] = verdicts(args.log, before, after)
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
