"""How much longer the release would have to train for a share of valid molecules.

    python benchmarks/training_needed.py --target 95.5

reads `benchmarks/results/`. From the release's training log comes how its losses fall with the
atoms seen, L = c D^-b, fitted where the learning rate is constant, with the standard error of b.
How validity goes with the loss comes from two trainings alone, the release and the largest run of
`scaling.py` (log odds against log loss): an estimate, not a law. Hours are at the rates of
`training_speed.py` on a CPU and of the release's own training on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from json_output import RESULTS, stored, write_json

from adit_model.config import KINDS

VALID = "valid (OpenBabel)"


def log_rows() -> list[dict[str, float]]:
    """Of the release's training, thinned."""
    lines = (RESULTS / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def exponent(rows: list[dict[str, float]], kind: str) -> tuple[float, float, int]:
    """b of L = c D^-b, its standard error, and of how many readings."""
    highest = max(row["learning_rate"] for row in rows)
    steady = [row for row in rows if row["learning_rate"] == highest]
    x = np.log([row["step"] for row in steady])
    y = np.log([row[f"{kind}_flow"] for row in steady])
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return -float(slope), float(math.sqrt(covariance[0, 0])), len(steady)


def log_odds(share: float) -> float:
    """Of a share between 0 and 1."""
    return math.log(share / (1 - share))


def needed_loss(target: float) -> dict[str, Any]:
    """Loss of molecules at which a share should be valid, by the line through two trainings."""
    scaling = stored("scaling")
    joint = [row for row in scaling["rows"] if len(row["kinds"]) == len(KINDS)]
    largest = max(joint, key=lambda row: row["weights"] * row["tokens"] * row["steps"])
    rates = stored("sample_quality")["molecule"]["rates"]
    (rate,) = (rate for rate in rates if rate["name"] == VALID)
    shares = [np.divide(*largest["valid"]["valid_openbabel"]), rate["percent"] / 100]
    losses = [row["losses"]["molecule"] for row in (largest, scaling["release"])]
    slope = (log_odds(shares[1]) - log_odds(shares[0])) / math.log(losses[1] / losses[0])
    fewer = (log_odds(target / 100) - log_odds(shares[1])) / slope
    return {
        "valid_percent": [round(100 * float(share), 1) for share in shares],
        "losses": losses,
        "needed_loss": round(losses[1] * math.exp(fewer), 4),
    }


def main() -> int:
    """Print what a target takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=float, default=95.5, help="percent valid by OpenBabel")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not 0 < args.target < 100:
        parser.error(f"--target is a percentage between 0 and 100; got {args.target:g}")
    rows, loss = log_rows(), needed_loss(args.target)
    found = {kind: exponent(rows, kind) for kind in KINDS}
    release = stored("scaling")["release"]
    seen = release["tokens"] * release["steps"]
    rate, error, _ = found["molecule"]
    ratio = math.log(loss["losses"][1] / loss["needed_loss"])
    atoms = [seen * math.exp(ratio / b) for b in (rate + error, rate, rate - error)]
    (cpu,) = (
        row["atoms_per_second"]
        for row in stored("training_speed")["rows"]
        if row["size"] == "release" and row["precision"] == "bfloat16"
    )
    gpu = rows[-1]["step"] * release["tokens"] / (60 * rows[-1]["minutes"])
    result = {
        "exponents": {
            kind: {"b": round(b, 3), "error": round(e, 3), "readings": n}
            for kind, (b, e, n) in found.items()
        },
        "target_percent": args.target,
        **loss,
        "million_atoms_seen": round(seen / 1e6),
        "million_atoms_needed": [round(each / 1e6) for each in atoms],
        "hours_missing_on_the_cpu": [round((a - seen) / cpu / 3600, 1) for a in atoms],
        "minutes_missing_on_the_gpu": [round((a - seen) / gpu / 60, 1) for a in atoms],
    }
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
