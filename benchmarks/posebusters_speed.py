"""PoseBusters in worker processes beside PoseBusters as published, on the same molecules.

    python benchmarks/posebusters_speed.py --data data/qm9.safetensors --num 100 --seed 0

The peer is `PoseBusters(config="mol").bust(molecule)` on one core, one molecule after another, as
the published figures were made; one cage can take it minutes. `--spare-peer` leaves out of its run
the molecules whose time limit was hit in ours and adds the limit itself, which is less than they
would take. The goal is 1.2 x serial time / cores. The time of `evaluate_molecules` holds all that
it does: starting the workers, bonds by three rules, strain energy. Verdicts must be the same.
After `--peer-budget` seconds the peer gets no further molecule: its time is then a lower bound.
Memory: the largest process for a quarter of the molecules and for all, without conformers.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import time
from pathlib import Path

from ase import Atoms
from qm9_reference import qm9_molecules
from rdkit import rdBase

from adit_plugins.metrics.molecules import evaluate_molecules
from adit_plugins.structures.bonds import openbabel_bonds
from adit_plugins.validity.molecules import TIME_LIMIT


def serial(molecules: list[Atoms], budget: float) -> tuple[list[dict[str, bool]], float]:
    """Verdicts and seconds of the published way on one core, until the budget is spent."""
    import posebusters

    logging.getLogger("posebusters").setLevel(logging.ERROR)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    verdicts = []
    start = time.perf_counter()
    try:
        buster = posebusters.PoseBusters(config="mol")
        for atoms in molecules:
            if time.perf_counter() - start > budget:
                break
            with rdBase.BlockLogs():
                row = buster.bust(openbabel_bonds(list(atoms.symbols), atoms.positions)).iloc[0]
            verdicts.append({name: bool(value == 1) for name, value in row.items()})
    finally:
        os.sched_setaffinity(0, cores)
    return verdicts, time.perf_counter() - start


def is_valid(atoms: Atoms) -> bool:
    """Whether OpenBabel's bonds stand, as only such molecules are compared."""
    try:
        openbabel_bonds(list(atoms.symbols), atoms.positions)
    except ValueError:
        return False
    return True


def largest_process_mb(molecules: list[Atoms], workers: int) -> dict[str, float]:
    """Peak memory of this process and of the largest worker so far, MB."""
    evaluate_molecules(molecules, fast=True, workers=workers)
    return {
        "this": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "worker": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--spare-peer", action="store_true")
    parser.add_argument("--peer-budget", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    everything = [a for a in qm9_molecules(args.num, args.seed, args.data) if is_valid(a)]
    some = max(1, len(everything) // 4)
    memory = {
        str(num): largest_process_mb(everything[:num], args.workers)
        for num in (some, len(everything))
    }
    start = time.perf_counter()
    metrics = evaluate_molecules(everything, workers=args.workers, time_limit=args.time_limit)
    ours = time.perf_counter() - start
    finished = [i for i, row in enumerate(metrics.rows) if not row["problem"]]
    stopped = len(everything) - len(finished)
    peer = finished if args.spare_peer else range(len(everything))
    expected, seconds = serial([everything[i] for i in peer], args.peer_budget)
    if args.spare_peer:
        seconds += stopped * args.time_limit
    result = {
        "molecules": len(everything),
        "seed": args.seed,
        "workers": args.workers,
        "time_limit": args.time_limit,
        "stopped": stopped,
        "seconds": round(ours, 1),
        "peer_spared": args.spare_peer,
        "peer_molecules": len(expected),
        "serial_seconds": round(seconds, 1),
        "goal_seconds": round(1.2 * seconds / args.workers, 1),
        "ratio_to_serial_by_cores": round(ours * args.workers / seconds, 2),
        "verdicts_compared": sum(len(each) for each in expected),
        "verdicts_that_differ": [
            {"molecule": i, "check": name, "serial": ok}
            for i, verdicts in zip(peer, expected, strict=False)
            for name, ok in verdicts.items()
            if i in finished and metrics.rows[i]["posebusters"].get(name) is not ok
        ],
        "peak_memory_mb_without_conformers": memory,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
