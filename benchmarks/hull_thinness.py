"""How much too low are distances from a hull of which phases are missing?

Two thirds of the shipped table's formulas of three elements or more (those of two are nearly all
known) are left out at random, and the compositions of a generator's samples, of three elements or
more, placed on the rest: putting the others back lowers the hull, so distances rise. How far
depends on how much of the chemical system is left. Three ways to tell are compared, each by the
means of one half of the chemical systems against the rises in the other; the product's numbers
(`adit_plugins.hull.thinness`) are the means of all by the first.

    python benchmarks/hull_thinness.py samples.npz --num 3000 \\
        --json benchmarks/results/hull_thinness.json --calibration \\
        adit_plugins/data/hull_thinness.json
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from relaxed_rows import read_samples, write_json

from adit_plugins.hull.results import HullResult
from adit_plugins.hull.table import Hull
from adit_plugins.hull.thinness import EDGES, FILE, density, table_digest

SHARES = (0.667, 0.5, 0.75, 0.875)  # left out; the first is calibrated
SEEDS = (0, 1)
LEAST = 3  # elements
# What may tell how thin a system is known, and the edges of its classes.
PREDICTORS: dict[str, tuple[Callable[[HullResult], float], tuple[float, ...]]] = {
    "known compounds a sub-system": (density, EDGES),
    "known compounds": (lambda found: found.num_reference_phases, (4, 8, 16, 32, 64, 128)),
    "share of sub-systems covered": (
        lambda found: found.num_subsystems_covered / found.num_subsystems,
        (0.25, 0.5, 0.75, 0.999),
    ),
}


def formulas_of(samples: dict[str, Atoms], least: int = 2) -> list[str]:
    """Return the different formulas of so many elements or more, by chemical system.

    Those with an element that the shipped table has no reference for are left out.
    """
    hull, found = Hull.load(), {}
    for atoms in samples.values():
        formula = atoms.get_chemical_formula(empirical=True)
        elements = sorted(set(atoms.get_chemical_symbols()))
        if len(elements) >= least and hull.references.keys() >= set(elements):
            found["".join(elements), formula] = formula
    return [found[key] for key in sorted(found)]


def thinned(table: dict[str, float], share: float, seed: int) -> Hull:
    """Return the hull of a table without a share of its formulas of many elements, at random."""
    names = sorted(table)
    lost = np.random.default_rng(seed).random(len(names)) < share
    gone = {name for name, out in zip(names, lost, strict=True) if out}
    return Hull({n: e for n, e in table.items() if n not in gone or len(elements_of(n)) < LEAST})


def elements_of(formula: str) -> list[str]:
    """Return its symbols, sorted."""
    return sorted(set(re.findall("[A-Z][a-z]?", formula)))


def rises(deep: dict[str, float], share: float, seed: int) -> pd.DataFrame:
    """Return by how much the hull is lower with the share that was left out, eV/atom.

    Args:
        deep: the whole hull by formula, eV/atom.
        share: left out.
        seed: of what is left out.
    """
    rest = thinned(shipped_energies(), share, seed)
    rows = []
    for formula, energy in deep.items():
        thin = rest.energy_above_hull(formula, 0.0)
        told = {name: place(thin) for name, (place, _) in PREDICTORS.items()}
        system = "".join(elements_of(formula))
        rise = max(thin.hull_energy_per_atom - energy, 0.0)
        rows.append({"system": system, "rise": rise, "all_covered": thin.all_covered} | told)
    return pd.DataFrame(rows)


def shipped_energies() -> dict[str, float]:
    """The shipped table, by formula."""
    packed = (files("adit_plugins") / "data" / "hull.csv.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()[1:]
    return {name: float(energy) for name, energy in (line.split(",") for line in lines)}


def classes(found: pd.DataFrame, name: str) -> pd.Series:
    """Return the class of each row by a predictor."""
    return pd.Series(np.searchsorted(PREDICTORS[name][1], found[name], "right"), found.index)


def compared(found: pd.DataFrame, name: str) -> dict[str, Any]:
    """Give the rises in one half of the systems by the means of the other half's classes."""
    half = found.system.map(lambda system: zlib.crc32(system.encode()) % 2 == 0)
    labels = classes(found, name)
    means = found.rise[half].groupby(labels[half]).mean()
    tested = found.rise[~half]
    told = labels[~half].map(means).fillna(found.rise[half].mean())
    by_class = (tested - told).groupby(labels[~half]).mean()
    return {
        "explained_variance": round(1 - float(((tested - told) ** 2).mean() / tested.var()), 3),
        "bias_meV": round(1000 * float((told - tested).mean()), 1),
        "largest_bias_of_a_class_meV": round(1000 * float(by_class.abs().max()), 1),
        "mean_absolute_error_meV": round(1000 * float((tested - told).abs().mean()), 1),
        "tested_on": len(tested),
    }


def described(found: pd.DataFrame) -> dict[str, Any]:
    """Quantiles of the rise, meV/atom."""
    rise = 1000 * found.rise
    return {
        "compositions": len(found),
        "mean_meV": round(float(rise.mean()), 1),
        "quartiles_meV": np.round(np.quantile(rise, [0.25, 0.5, 0.75]), 1).tolist(),
        "above_20_meV": round(float((rise > 20).mean()), 3),
        "all_covered_mean_meV": round(float(rise[found.all_covered].mean()), 1),
    }


def main() -> int:
    """Print the JSON; write the calibration where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--num", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--calibration", type=Path, help=f"write the product's {FILE} here")
    args = parser.parse_args()
    formulas = formulas_of(read_samples(args.samples, args.num), LEAST)
    whole = Hull.load()
    deep = {f: whole.energy_above_hull(f, 0.0).hull_energy_per_atom for f in formulas}
    parts = {share: [rises(deep, share, seed) for seed in SEEDS] for share in SHARES}
    found = {share: pd.concat(part, ignore_index=True) for share, part in parts.items()}
    first_share = found[SHARES[0]]
    first = next(iter(PREDICTORS))
    labels = classes(first_share, first)
    parts_of_it = [first_share.rise[labels == label] for label in range(len(EDGES) + 1)]
    curve = [
        {
            "mean_meV": round(1000 * float(rise.mean()), 1) if len(rise) else 0.0,
            "median_meV": round(1000 * float(rise.median()), 1) if len(rise) else 0.0,
            "number": len(rise),
        }
        for rise in parts_of_it
    ]
    result = {
        "samples": args.samples.name,
        "formulas": len(formulas),
        "table": table_digest(),
        "seeds": list(SEEDS),
        "left out": {str(share): described(rows) for share, rows in found.items()},
        "held out by chemical system": {name: compared(first_share, name) for name in PREDICTORS},
        f"by {first} (edges {list(EDGES)})": curve,
    }
    write_json(result, args.json)
    if args.calibration is not None:
        about = "benchmarks/hull_thinness.py; two thirds of 3 elements or more left out, the mean"
        values = [round(each["mean_meV"] / 1000, 4) for each in curve]
        content = {"fitted": about, "table": table_digest(), "rises": values}
        args.calibration.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
