"""Does a second potential make verdicts better? Precision and recall of "below 0.1 eV/atom".

Compounds of a table with Materials Project energies, chosen as in `hull_recall.py`: as many below
0.1 eV/atom above the hull as from there to 1 eV/atom. Each is relaxed by the first potential from
its DFT geometry, and from there by the second one in a few steps, as `adit discover --confirm` does
it. Each is placed on the shipped hull, with its own composition left out of it.

The potentials may have seen these crystals in their training, and half of them are metastable: of a
generator's crystals fewer are, and the precision is lower.

    python benchmarks/second_opinion.py crystals.parquet --log opinions.jsonl --num 150 \
        --confirm sevennet:l3i5 --confirm-steps 0 --json benchmarks/results/second_opinion.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from hull_recall import METASTABLE, SEED, choose
from relaxed_rows import row_atoms, write_json

from adit_plugins.hull.energies import ConventionError, place_energy
from adit_plugins.hull.results import HullResult
from adit_plugins.hull.table import Hull, UnknownElementError
from adit_plugins.relax.limits import CAMPAIGN_STEPS, CONFIRM_STEPS, FMAX
from adit_plugins.relax.results import RelaxResult
from adit_plugins.relax.run import load_relaxer


def opinions(
    structures: dict[str, Atoms], first: str, second: str, steps: int, log: Path
) -> dict[str, dict[str, Any]]:
    """Return what both potentials say of each structure; what the log holds is not done again."""
    done: dict[str, dict[str, Any]] = {}
    if log.exists():
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        asked = [first, second, steps]
        done = {r["id"]: r for r in lines if [r["first"], r["second"], r["steps"]] == asked}
    left = {name: atoms for name, atoms in structures.items() if name not in done}
    if not left:
        return done
    potentials = [load_relaxer(first), load_relaxer(second)]
    start = time.perf_counter()
    with log.open("a") as file:
        for name, atoms in left.items():
            (own,) = potentials[0].relax([atoms], FMAX, CAMPAIGN_STEPS)
            record = {"id": name, "first": first, "second": second, "steps": steps}
            record["own"] = _said(own)
            if not own.failed:
                for key, most in (("look", 0), ("confirmed", steps)):
                    (other,) = potentials[1].relax([own.atoms], FMAX, most)
                    record[key] = _said(other)
            done[name] = record
            file.write(json.dumps(record) + "\n")
            file.flush()
            if not len(done) % 10:
                seconds = time.perf_counter() - start
                print(f"{len(done)}/{len(structures)} {seconds:.0f} s", file=sys.stderr, flush=True)
    return done


def _said(result: RelaxResult) -> dict[str, Any]:
    """Energy and geometry: corrections of raw energies depend on it."""
    atoms = result.atoms
    return {
        "energy": result.energy,
        "reason": result.reason,
        "num_steps": result.num_steps,
        "seconds": round(result.seconds, 3),
        "potential": result.potential,
        "convention": result.convention,
        "numbers": atoms.numbers.tolist(),
        "cell": atoms.cell.array.tolist(),
        "positions": atoms.positions.tolist(),
    }


def place_all(rows: pd.DataFrame, records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return energies above the hull without the own composition, by stage; both must have one."""
    whole = Hull.load()
    found = []
    for row in rows.itertuples():
        record = records.get(row.material_id, {})
        stages = {key: record.get(key) for key in ("own", "look", "confirmed")}
        if any(each is None or each["energy"] is None for each in stages.values()):
            continue
        rest = whole.without(row.formula)
        try:
            places = {key: _place(each, rest) for key, each in stages.items()}
            heights = {key: place.energy_above_hull for key, place in places.items()}
            heights["raw"] = places["own"].raw_energy_above_hull or 0.0
            exact = rest.energy_above_hull(row.formula, row.formation_energy_per_atom)
            heights["dft"] = exact.energy_above_hull
        except (UnknownElementError, ConventionError):
            continue
        found.append(heights | {"metastable": row.energy_above_hull < METASTABLE})
    return pd.DataFrame(found)


def _place(said: dict[str, Any] | None, hull: Hull) -> HullResult:
    assert said is not None
    atoms = Atoms(said["numbers"], said["positions"], cell=said["cell"], pbc=True)
    return place_energy(atoms, said["energy"], said["convention"], said["potential"], hull)[1]


def compare(found: pd.DataFrame) -> dict[str, Any]:
    """Return precision and recall of each potential's word, and of both together."""
    own, other = found.own < METASTABLE, found.confirmed < METASTABLE
    agree = own == other
    real = found.metastable
    difference = 1000 * (found.confirmed - found.own)
    return {
        "first": _rates(own, real),
        "first, by the tabulated elements": _rates(found.raw < METASTABLE, real),
        "second": _rates(other, real),
        "both say below": _rates(own & other, real),
        "either says below": _rates(own | other, real),
        "exact DFT energies (the ceiling)": _rates(found.dft < METASTABLE, real),
        "second, at the geometry of the first": _rates(found.look < METASTABLE, real),
        "where they agree": {"number": int(agree.sum()), **_right(own[agree], real[agree])},
        "where they do not": {
            "number": int((~agree).sum()),
            "first": _right(own[~agree], real[~agree]),
            "second": _right(other[~agree], real[~agree]),
        },
        "difference": {
            "median_meV": round(float(difference.median()), 1),
            "median_absolute_meV": round(float(difference.abs().median()), 1),
            "verdicts_changed_by_confirm_steps": int(((found["look"] < METASTABLE) != other).sum()),
            "fall_in_confirm_steps_median_meV": round(
                1000 * float((found["look"] - found.confirmed).median()), 2
            ),
        },
    }


def _rates(said: pd.Series, real: pd.Series) -> dict[str, Any]:
    right = int((said & real).sum())
    return {
        "precision": round(right / max(int(said.sum()), 1), 3),
        "of_said": int(said.sum()),
        "recall": round(right / max(int(real.sum()), 1), 3),
        "of_metastable": int(real.sum()),
        "false_alarms": int((said & ~real).sum()),
        "of_others": int((~real).sum()),
    }


def _right(said: pd.Series, real: pd.Series) -> dict[str, Any]:
    return {"right": int((said == real).sum())}


def _seconds(records: dict[str, dict[str, Any]]) -> dict[str, float]:
    stages = ("own", "look", "confirmed")
    values = {key: [r[key]["seconds"] for r in records.values() if key in r] for key in stages}
    return {key: round(float(np.median(each)), 2) for key, each in values.items() if each}


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crystals", type=Path)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; made or continued")
    parser.add_argument("--dataset", default="mpts-52")
    parser.add_argument("--num", type=int, default=150, help="of each class")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--relaxer", default="chgnet")
    parser.add_argument("--confirm", default="sevennet:l3i5")
    parser.add_argument("--confirm-steps", type=int, default=CONFIRM_STEPS)
    parser.add_argument("--only-logged", action="store_true", help="count what the log holds")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = choose(pd.read_parquet(args.crystals), args.dataset, args.num, args.max_atoms)
    rows = rows.sample(len(rows), random_state=SEED)  # an unfinished log is a fair sample, too
    structures = {row.material_id: row_atoms(row) for row in rows.itertuples()}
    known = {} if args.only_logged else structures
    records = opinions(known, args.relaxer, args.confirm, args.confirm_steps, args.log)
    found = place_all(rows, records)
    write_json(
        {
            "dataset": args.dataset,
            "seed": SEED,
            "max_atoms": args.max_atoms,
            "steps": {"relaxer": CAMPAIGN_STEPS, "confirm": args.confirm_steps},
            "chosen": len(rows) if not args.only_logged else len(records),
            "placed by both": len(found),
            "median seconds": _seconds(records),
            **compare(found),
        },
        args.json,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
