"""Relax and rank another generator's samples: yield and energies by a potential.

Takes the first samples of an .npz of DiffCSP's layout or of any structure file.

    python benchmarks/peer_yield.py samples.npz --num 300 --log peer.jsonl --workers 2 \
        --json benchmarks/results/peer_yield.json
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from relaxed_rows import read_samples, relaxed, write_json

from adit_plugins.hull.calibration import metastable_probability
from adit_plugins.hull.references import references_of
from adit_plugins.hull.table import Hull, UnknownElementError, atomic_fractions


def place_all(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each sample that has an energy and references, lowest first."""
    hull = Hull.load()
    rows = []
    for name, record in records.items():
        if record["energy_per_atom"] is None:
            continue
        formula = record["formula"]
        try:
            formation = hull.formation_energy_per_atom(formula, record["energy_per_atom"])
        except UnknownElementError:
            continue
        references = references_of(record["potential"])
        if references is not None:
            formation -= references.shift(atomic_fractions(formula))
        place = hull.energy_above_hull(formula, formation)
        place = replace(place, references="" if references is None else references.label)
        probability = metastable_probability(place, record["potential"])
        rows.append(
            {
                "id": name,
                "formula": formula,
                "formation_energy_per_atom": round(formation, 4),
                "energy_above_hull": round(place.energy_above_hull, 4),
                "metastable_probability": probability,
                "covered": f"{place.num_subsystems_covered}/{place.num_subsystems}",
                "converged": record["reason"] == "converged",
            }
        )
    return sorted(rows, key=lambda row: row["energy_above_hull"])


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; made or continued")
    parser.add_argument("--relaxer", default="chgnet")
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    samples = read_samples(args.samples, args.num)
    records = relaxed(
        samples, args.log, args.relaxer, args.fmax, args.max_steps, workers=args.workers
    )
    rows = place_all(records)
    energies = np.array([row["energy_above_hull"] for row in rows])
    reasons = Counter(record["reason"].partition(":")[0] for record in records.values())
    result = {
        "samples": args.samples.name,
        "num": len(samples),
        "potential": next(iter(records.values()))["potential"],
        "max_steps": args.max_steps,
        "ended_by": dict(reasons.most_common()),
        "placed": len(rows),
        "at_most_0.1": int((energies <= 0.1).sum()),
        "at_most_0": int((energies <= 0).sum()),
        "expected_metastable_by_probability": round(
            sum(row["metastable_probability"] or 0.0 for row in rows), 1
        ),
        "energy_above_hull_quartiles": np.round(
            np.quantile(energies, [0.25, 0.5, 0.75]), 3
        ).tolist(),
        "best": rows[:20],
    }
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
