"""Does "metastable" by a potential mean metastable by DFT? Recall, and its calibration.

Crystals of a table with Materials Project energies (parquet with material_id, formula, dataset,
atomic_numbers, frac_coords, a ... gamma, formation_energy_per_atom, energy_above_hull) are placed
on the shipped hull, each with its own composition left out of it. The same is done with the exact
DFT energies: no potential can do better on this table. The curves of
`adit_plugins.hull.calibration` are counted here; for the reliability plot, on one half of the
chemical systems, and tested on the other half.

The potential may have seen these crystals in its training, and they are given at their DFT
geometry: on crystals of a generator it can err more.

    python benchmarks/hull_recall.py crystals.parquet --log hull.jsonl \
        --json benchmarks/results/hull_recall.json --plot docs/hull_reliability.png \
        --calibration adit_plugins/data/hull_calibration.json
"""

from __future__ import annotations

import argparse
import json
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from relaxed_rows import relaxed, row_atoms, write_json

from adit_plugins.hull.calibration import FILE, interpolate
from adit_plugins.hull.references import references_of
from adit_plugins.hull.table import Hull, UnknownElementError, atomic_fractions
from adit_plugins.hull.thinness import table_digest

METASTABLE, UPPER = 0.1, 1.0  # eV/atom
SEED = 0
BINS = np.linspace(0, 1, 6)
PART = 25  # crystals a point of the curve


def choose(table: pd.DataFrame, dataset: str, num: int, max_atoms: int) -> pd.DataFrame:
    """Return `num` compounds below 0.1 eV/atom and as many from there to 1 eV/atom."""
    rows = table[
        (table.dataset == dataset)
        & (table.num_atoms <= max_atoms)
        & (table.formula.str.count("[A-Z]") > 1)
    ]
    near = rows[rows.energy_above_hull < METASTABLE]
    far = rows[(rows.energy_above_hull >= METASTABLE) & (rows.energy_above_hull <= UPPER)]
    parts = [part.sample(min(num, len(part)), random_state=SEED) for part in (near, far)]
    return pd.concat(parts)


def place_all(rows: pd.DataFrame, records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return energies above the hull without the queried composition, by potential and by DFT."""
    hull = Hull.load()
    found = []
    for row in rows.itertuples():
        energy = records[row.material_id]["energy_per_atom"]
        if energy is None:
            continue
        rest = hull.without(row.formula)
        try:
            formation = rest.formation_energy_per_atom(row.formula, energy)
        except UnknownElementError:
            continue
        references = references_of(records[row.material_id]["potential"])
        shift = 0.0 if references is None else references.shift(atomic_fractions(row.formula))
        place = rest.energy_above_hull(row.formula, formation - shift)
        exact = rest.energy_above_hull(row.formula, row.formation_energy_per_atom)
        found.append(
            {
                "formula": row.formula,
                "potential": place.energy_above_hull,
                "raw": place.energy_above_hull + shift,
                "dft": exact.energy_above_hull,
                "covered": place.all_covered,
                "metastable": row.energy_above_hull < METASTABLE,
            }
        )
    return pd.DataFrame(found)


def rates(found: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return recall and true-negative rate with their denominators."""
    said = found[column] < METASTABLE
    real = found.metastable
    return {
        "recall": round(float(said[real].mean()), 3),
        "of_metastable": int(real.sum()),
        "true_negative_rate": round(float((~said)[~real].mean()), 3),
        "of_others": int((~real).sum()),
        "area_under_curve": round(area_under_curve(found[column], real), 3),
    }


def area_under_curve(energies: pd.Series, real: pd.Series) -> float:
    """Return how often a metastable crystal lies below another: the limit does not matter."""
    ranks = energies.rank()
    above = float(ranks[~real].sum()) - (~real).sum() * ((~real).sum() + 1) / 2
    return above / (real.sum() * (~real).sum())


def fit(energies: NDArray[np.float64], real: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the share of metastable ones in parts of equal number, from the lowest energy up.

    There are as many metastable ones as others, so the probability is that at even odds: how many
    of a generator's crystals are metastable is not for this table to say.
    """
    parts = np.array_split(np.argsort(energies), max(len(real) // PART, 2))
    return {
        "energies": [round(float(np.median(energies[part])), 4) for part in parts],
        # One of each is added, so that nothing is certain (Laplace).
        "probabilities": [round((int(real[p].sum()) + 1) / (len(p) + 2), 3) for p in parts],
        "number": len(real),
    }


def reliability(found: pd.DataFrame, column: str, fits: dict[str, Any]) -> dict[str, Any]:
    """Compare probabilities with frequencies, on crystals that were not fitted."""
    names = ["covered" if covered else "uncovered" for covered in found.covered]
    pairs = zip(found[column], names, strict=True)
    chances = np.array([interpolate(e, fits[n]) for e, n in pairs])
    real = found.metastable.to_numpy()
    rows = []
    for low, high in pairwise(BINS):
        inside = (chances >= low) & (chances < high if high < 1 else chances <= high)
        if inside.any():
            rows.append(
                {
                    "mean_probability": round(float(chances[inside].mean()), 3),
                    "frequency": round(float(real[inside].mean()), 3),
                    "number": int(inside.sum()),
                }
            )
    gaps = [row["number"] * abs(row["mean_probability"] - row["frequency"]) for row in rows]
    return {
        "bins": rows,
        "expected_calibration_error": round(sum(gaps) / len(found), 3),
        "brier_score": round(float(((chances - real) ** 2).mean()), 3),
    }


def calibrate(found: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return curves of all crystals, and how those of one half of the systems do on the other."""
    whole = _curves(found, column)
    systems = found.formula.str.replace(r"[^A-Za-z]", "", regex=True)
    half = systems.map(lambda name: zlib.crc32(name.encode()) % 2 == 0)
    fits = _curves(found[half], column)
    tested = {**reliability(found[~half], column, fits), "tested_on": int((~half).sum())}
    return {"curves_of_all": whole, **tested}


def _curves(found: pd.DataFrame, column: str) -> dict[str, Any]:
    parts = {"covered": found[found.covered], "uncovered": found[~found.covered]}
    return {
        name: fit(rows[column].to_numpy(), rows.metastable.to_numpy())
        for name, rows in parts.items()
    }


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw frequency against probability."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4, 4))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, result in results.items():
        rows = result["bins"]
        x, y = [r["mean_probability"] for r in rows], [r["frequency"] for r in rows]
        axes.plot(x, y, "o-", label=f"{name} ({result['tested_on']} crystals)")
        for row in rows:
            axes.annotate(str(row["number"]), (row["mean_probability"], row["frequency"]), size=7)
    axes.set(xlabel="probability of being metastable", ylabel="share that is (DFT)")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> int:
    """Print the JSON; write the plot and the calibration where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; made or continued")
    parser.add_argument("--dataset", default="mpts-52")
    parser.add_argument("--num", type=int, default=600, help="of each class")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--relaxer", default="chgnet")
    parser.add_argument("--max-steps", type=int, default=0, help="0: at the geometry given")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--calibration", type=Path, help=f"write the product's {FILE} here")
    args = parser.parse_args()
    rows = choose(pd.read_parquet(args.crystals), args.dataset, args.num, args.max_atoms)
    structures = {row.material_id: row_atoms(row) for row in rows.itertuples()}
    records = relaxed(structures, args.log, args.relaxer, 0.05, args.max_steps, args.workers)
    (name,) = {record["potential"] for record in records.values()}
    found = place_all(rows, records)
    calibrated = {name: calibrate(found, "potential"), "dft": calibrate(found, "dft")}
    result = {
        "dataset": args.dataset,
        "seed": SEED,
        "max_atoms": args.max_atoms,
        "max_steps": args.max_steps,
        "chosen": len(rows),
        "placed": len(found),
        "all_covered": int(found.covered.sum()),
        name: rates(found, "potential"),
        f"{name}, raw": rates(found, "raw"),
        "exact DFT energies (the ceiling)": rates(found, "dft"),
        "calibration": calibrated,
    }
    if args.plot is not None:
        plot(calibrated, args.plot)
    if args.calibration is not None:
        fits = {potential: each["curves_of_all"] for potential, each in calibrated.items()}
        if (references := references_of(name)) is not None:
            fits[name]["references"] = references.label
        about = "benchmarks/hull_recall.py; compounds of the Materials Project (MPTS-52), even odds"
        content = {"fitted": about, "table": table_digest(), "potentials": fits}
        args.calibration.write_text(json.dumps(content, indent=1))
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
