"""The pre-filter `mace-adit` before a judge: errors, relaxed geometries, and the cascade.

Only structures whose reduced formula the training held out: thresholds are chosen on the validation
formulas and reported on the test formulas. Every structure is relaxed three times in one process
with one thread: by the judge (CHGNet), by the pre-filter (in its batches), and by the judge from
where that ended, after a look at its energy there. Three rules to drop
a structure are compared (`prefilter_rules`). Times are processor seconds. The log is
continued by a second run; the lines of the logs of several parts make one log. With --judged-only
there is no cascade: what the pre-filter alone would keep of what a judge, slow here or asked
elsewhere (its relaxations are the log's stage `teacher`), finds metastable.

    python benchmarks/prefilter.py samples.extxyz peer.npz --labels labels-a labels-b \\
        --num 500 --num-val 200 --log prefilter.jsonl --json benchmarks/results/prefilter.json
    python benchmarks/prefilter.py samples.extxyz peer.npz --num 700 --num-val 300 \\
        --judge sevennet:l3i5 --judged-only --log sevennet.jsonl --json JSON
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from prefilter_errors import label_errors, runaways, where_it_fails
from prefilter_rules import cascaded, judged
from pymatgen.core import Composition
from pymatgen.io.ase import AseAtomsAdaptor
from relaxed_rows import write_json

from adit_integrations.mace_adit import relaxer as mace_adit
from adit_integrations.mace_adit.label_set import split_of
from adit_integrations.mace_adit.sources import read_source
from adit_plugins.hull.energies import place
from adit_plugins.hull.table import Hull
from adit_plugins.relax.results import RelaxResult, displacement, outcomes
from adit_plugins.relax.run import Relaxer, load_relaxer, relax
from adit_plugins.validity.crystals import is_structure_valid

FMAX, STEPS, PREFILTER_STEPS = 0.05, 100, 50  # those of `adit discover`


def held_out(sources: Iterable[Path], num: int, split: str) -> list[tuple[str, Atoms]]:
    """Return the first valid structures of a split, from the sources in turn, with names."""
    queues = [
        [
            (f"{path.name}/{i}", atoms)
            for i, atoms in enumerate(read_source(path, 20))
            if split_of(Composition(atoms.get_chemical_formula()).reduced_formula) == split
            and is_structure_valid(AseAtomsAdaptor.get_structure(atoms))
        ]
        for path in sources
    ]
    mixed = [queue[i] for i in range(max(map(len, queues))) for queue in queues if i < len(queue)]
    return mixed[:num]


def timed(relax: Callable[[], list[RelaxResult]]) -> tuple[RelaxResult, float]:
    """Return the result of one structure and the processor seconds that it took."""
    start = time.process_time()
    (result,) = relax()
    return result, time.process_time() - start


def record(result: RelaxResult, seconds: float, hull: Hull) -> dict[str, Any]:
    """Return what the comparison needs of a relaxation."""
    energy_above_hull = None
    if not result.failed:
        try:
            energy_above_hull = place(result, hull)[1].energy_above_hull
        except (ValueError, ArithmeticError):
            energy_above_hull = None
    return {
        "reason": result.reason,
        "steps": result.num_steps,
        "seconds": round(seconds, 3),
        "energy_per_atom": result.energy_per_atom,
        "energy_above_hull": energy_above_hull,
        "volume": result.atoms.cell.volume / len(result.atoms),
        "numbers": result.atoms.numbers.tolist(),
        "positions": result.atoms.positions.tolist(),
        "cell": result.atoms.cell.array.tolist(),
    }


class Log:
    """JSON lines by structure and stage; what is there is not computed again."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier run left."""
        self.path = path
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["name"], row["stage"]] = row

    def get(self, name: str, stage: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a row, computing and writing it if it is not there."""
        if (name, stage) not in self.rows:
            row = {"name": name, "stage": stage, **make()}
            self.rows[name, stage] = row
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return self.rows[name, stage]


def geometry(row: dict[str, Any]) -> Atoms:
    """Return the structure of a row."""
    return Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=True)


@lru_cache(maxsize=1)
def judge_of(name: str) -> Relaxer:
    """Load the judge once it is needed: what a log holds needs none."""
    return load_relaxer(name)


def compare(
    name: str, atoms: Atoms, log: Log, judge: str, hull: Hull, in_cascade: bool
) -> dict[str, Any]:
    """Relax a structure by the judge, from the start and from where the student ended."""

    def relaxed(start: Atoms, steps: int = STEPS) -> dict[str, Any]:
        relaxer = judge_of(judge)
        return record(*timed(lambda: relaxer.relax([start], FMAX, steps)), hull)

    direct = log.get(name, "teacher", lambda: relaxed(atoms))
    student = log.rows[name, "student"]
    row: dict[str, Any] = {"direct": direct, "student": student, "rmsd": None}
    if in_cascade:
        row["looked"] = log.get(name, "looked", lambda: relaxed(geometry(student), 0))
        row["refined"] = log.get(name, "refined", lambda: relaxed(geometry(student)))
    if direct["energy_per_atom"] is not None and student["energy_per_atom"] is not None:
        row["rmsd"] = displacement(geometry(student), geometry(direct))
    return row


def prefilter(
    structures: Sequence[tuple[str, Atoms]],
    log: Log,
    student: mace_adit.MaceAditRelaxer,
    steps: int,
    hull: Hull,
) -> None:
    """Relax all that the log does not hold by the student, in its batches."""
    identity = {"steps": steps, "channels": student.model.config.channels,
                "trained": student.model.config.provenance}  # fmt: skip
    if log.get("", "student", lambda: {"identity": identity})["identity"] != identity:
        raise SystemExit(f"{log.path} holds relaxations by other weights or of other steps")
    missing = [(name, atoms) for name, atoms in structures if (name, "student") not in log.rows]
    if not missing:
        return
    start = time.process_time()
    results = relax(
        [atoms for _, atoms in missing],
        lambda: student,
        FMAX,
        steps,
        workers=0,
        chunk_atoms=student.chunk_atoms,
    )
    seconds = (time.process_time() - start) / len(missing)
    for (name, _), result in zip(missing, results, strict=True):
        row = record(result, seconds, hull)
        row["disagreement"] = float(student.model.disagreement([result.atoms])[0])
        log.get(name, "student", lambda row=row: row)  # type: ignore[misc]


def geometries(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How near the student's geometry and energy come to the teacher's, and what fails."""
    moved = [row["rmsd"] for row in rows if row["rmsd"] is not None]
    both = [row for row in rows if row["rmsd"] is not None]
    energy = [
        abs(row["student"]["energy_above_hull"] - row["direct"]["energy_above_hull"])
        for row in both
        if row["direct"]["energy_above_hull"] is not None
        and row["student"]["energy_above_hull"] is not None
    ]
    volume = [abs(row["student"]["volume"] / row["direct"]["volume"] - 1) for row in both]
    return {
        "structures": len(rows),
        "median_rmsd_angstrom": round(float(np.median(moved)), 3),
        "rmsd_90_percent": round(float(np.quantile(moved, 0.9)), 3),
        "median_volume_error_percent": round(100 * float(np.median(volume)), 2),
        "mean_energy_error_mev_atom": round(1000 * float(np.mean(energy)), 1),
        "median_energy_error_mev_atom": round(1000 * float(np.median(energy)), 1),
        "student_milliseconds_a_step": _step_time(rows, "student"),
        "teacher_milliseconds_a_step": _step_time(rows, "direct"),
        "student_ends": outcomes_of(rows, "student"),
        "teacher_ends": outcomes_of(rows, "direct"),
    }


def outcomes_of(rows: Sequence[dict[str, Any]], stage: str) -> dict[str, int]:
    """Count how a stage ended."""
    empty = Atoms()
    return outcomes(RelaxResult.failure(empty, row[stage]["reason"], "") for row in rows)


def _step_time(rows: Sequence[dict[str, Any]], stage: str) -> float:
    steps = sum(row[stage]["steps"] + 1 for row in rows)
    return round(1000 * sum(row[stage]["seconds"] for row in rows) / steps, 1)


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path, help="generators' samples")
    parser.add_argument("--labels", nargs="*", type=Path, default=[], help="of adit train labels")
    parser.add_argument("--weights", type=Path, help="default: the shipped ones")
    parser.add_argument("--num", type=int, default=100, help="structures of test formulas")
    parser.add_argument("--num-val", type=int, default=100, help="of those that choose the limits")
    parser.add_argument("--steps", type=int, default=PREFILTER_STEPS, help="of the pre-filter")
    parser.add_argument("--runaways", type=int, default=0, help="relaxations of raw samples")
    parser.add_argument("--part", default="0/1", help="of the structures: 0/2 and 1/2 on two cores")
    parser.add_argument("--judge", default="chgnet", help="a relaxer's name")
    parser.add_argument("--judged-only", action="store_true", help="no cascade")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop relaxing after this time")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    hull, log, start = Hull.load(), Log(args.log), time.monotonic()
    student = mace_adit.MaceAditRelaxer(args.weights, 300, "cpu")
    nums = {"val": args.num_val, "test": args.num}
    queues = {split: held_out(args.sources, num, split) for split, num in nums.items()}
    part, parts = map(int, args.part.split("/"))
    queues = {split: queue[part::parts] for split, queue in queues.items()}
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in queues}
    prefilter([each for queue in queues.values() for each in queue], log, student, args.steps, hull)
    for i in range(max(nums.values())):
        for split, queue in queues.items():
            if i < len(queue) and time.monotonic() - start < 60 * args.minutes:
                rows[split].append(compare(*queue[i], log, args.judge, hull, not args.judged_only))
    found = {
        "hardware": f"{platform.machine()}, one thread",
        "settings": {
            "judge": args.judge, "fmax": FMAX, "max_steps": STEPS, "prefilter_steps": args.steps,
            "trained": student.model.config.provenance,
        },
        "errors_on_test_formulas": label_errors(args.labels, student.model)
        if args.labels
        else None,
        "where_it_fails": where_it_fails(args.labels, student.model) if args.labels else None,
        "runaways": runaways(args.sources, args.runaways, student, FMAX, 2 * STEPS)
        if args.runaways
        else None,
        "relaxed": {split: geometries(each) for split, each in rows.items() if each},
    }  # fmt: skip
    found |= judged(rows) if args.judged_only else cascaded(rows)
    write_json(found, args.json)


if __name__ == "__main__":
    main()
