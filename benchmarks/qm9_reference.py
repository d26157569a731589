"""QM9's own molecules scored as if they had been generated: what the metrics can reach at most.

    python benchmarks/qm9_reference.py --data data/qm9.safetensors --num 2000 --seed 0 --fast

The published row beside it is EDM's for the data (Hoogeboom et al. 2022, arXiv:2203.17003,
Table 1 and 2). Where validity of real molecules is below 100 %, it is the rule that fails.
`--data` is a file of `adit data prepare qm9`; without it QM9 is read from `qm9pack`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from adit_plugins.metrics.molecules import evaluate_molecules

PUBLISHED = {
    "atoms stable (EDM)": 99.0,
    "molecules stable (EDM)": 95.2,
    "valid (EDM)": 97.7,
}


def qm9_molecules(num: int, seed: int, data: Path | None) -> list[Atoms]:
    """Random molecules of the whole data set, without replacement."""
    from adit_model.data import PreparedData  # worker processes import this file: no torch there
    from adit_plugins.datasets.molecules import qm9

    prepared = PreparedData.load(data) if data else qm9()
    ends = np.cumsum(prepared.num_atoms.numpy())
    starts = ends - prepared.num_atoms.numpy()
    assert prepared.coords is not None
    numbers, positions = prepared.atomic_numbers.numpy(), prepared.coords.numpy()
    chosen = np.random.default_rng(seed).permutation(len(ends))[:num]
    return [
        Atoms(numbers[a:b], positions[a:b])
        for a, b in zip(starts[chosen], ends[chosen], strict=True)
    ]


def main() -> int:
    """Print the table; write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--fast", action="store_true", help="without conformers")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    molecules = qm9_molecules(args.num, args.seed, args.data)
    start = time.perf_counter()
    metrics = evaluate_molecules(molecules, fast=args.fast, workers=args.workers)
    seconds = time.perf_counter() - start
    print(f"{'rate':55} {'count':>14} {'percent':>8} {'published':>9}  of")
    for each in metrics.rates:
        count = f"{each.numerator}/{each.denominator}"
        published = PUBLISHED.get(each.name, "")
        print(f"{each.name:55} {count:>14} {each.percent:>8} {published:>9}  {each.of}")
    for note in metrics.notes:
        print(note)
    print(f"{len(molecules)} molecules of QM9, seed {args.seed}, {seconds:.0f} s", file=sys.stderr)
    result: dict[str, Any] = {
        "num": len(molecules),
        "seed": args.seed,
        "fast": args.fast,
        "seconds": round(seconds, 1),
        "published": PUBLISHED,
        "rates": [each.as_dict() for each in metrics.rates],
        "percentiles_50_90_99": {
            name: [round(float(q), 3) for q in np.percentile(values, [50, 90, 99])]
            for name, values in metrics.distributions.items()
            if values
        },
        "notes": metrics.notes,
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
