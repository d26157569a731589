"""The pre-filter `mace-adit` against its teacher: errors, relaxed geometries, and the cascade.

Only structures whose reduced formula the training held out: thresholds are chosen on the validation
formulas and reported on the test formulas. Every structure is relaxed three times in one process
with one thread: by CHGNet, by the pre-filter (in its batches), and by CHGNet from where that ended,
after a look at its energy there. Three rules to drop a structure are compared: the energy above
hull by the pre-filter, by CHGNet's look, and the lower of both. `adit discover` takes the last one,
which needs the look only at what is high by the pre-filter. Times are processor seconds. The log is
continued by a second run; the lines of the logs of several parts make one log.

    python benchmarks/prefilter.py samples.extxyz peer.npz --labels labels-a labels-b \\
        --num 500 --num-val 200 --log prefilter.jsonl --json benchmarks/results/prefilter.json
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from prefilter_errors import label_errors, runaways, where_it_fails
from pymatgen.core import Composition
from pymatgen.io.ase import AseAtomsAdaptor
from relaxed_rows import write_json

from adit_integrations import chgnet
from adit_integrations.mace_adit import relaxer as mace_adit
from adit_integrations.mace_adit.label_set import split_of
from adit_integrations.mace_adit.labels import read_source
from adit_plugins.hull.energies import place
from adit_plugins.hull.table import Hull
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import RelaxResult, displacement, outcomes
from adit_plugins.relax.run import relax
from adit_plugins.validity.crystals import is_structure_valid

FMAX, STEPS, PREFILTER_STEPS = 0.05, 100, 50  # those of `adit discover`
METASTABLE = 0.1  # eV/atom above the hull
KEEP = 0.99  # of the metastable structures
LIMITS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # eV/atom


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


def compare(name: str, atoms: Atoms, log: Log, teacher: AseRelaxer, hull: Hull) -> dict[str, Any]:
    """Relax a structure by the teacher, from the start and from where the student ended."""

    def relaxed(start: Atoms) -> dict[str, Any]:
        return record(*timed(lambda: teacher.relax([start], FMAX, STEPS)), hull)

    def look(start: Atoms) -> dict[str, Any]:
        return record(*timed(lambda: teacher.relax([start], FMAX, 0)), hull)

    direct = log.get(name, "teacher", lambda: relaxed(atoms))
    student = log.rows[name, "student"]
    looked = log.get(name, "looked", lambda: look(geometry(student)))
    refined = log.get(name, "refined", lambda: relaxed(geometry(student)))
    moved = None
    if direct["energy_per_atom"] is not None and student["energy_per_atom"] is not None:
        moved = displacement(geometry(student), geometry(direct))
    return {
        "direct": direct,
        "student": student,
        "looked": looked,
        "refined": refined,
        "rmsd": moved,
    }


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


def is_metastable(row: dict[str, Any]) -> bool:
    """Whether a relaxed structure lies below `METASTABLE`."""
    energy = row["energy_above_hull"]
    return energy is not None and energy < METASTABLE


RULES = ("student", "looked", "both")  # whose energy above hull decides


def judgement(row: dict[str, Any], rule: str, limit: float = 0.0) -> float | None:
    """Energy above hull by which a structure is dropped, eV/atom; None if nobody can judge."""
    student: float | None = row["student"]["energy_above_hull"]
    if student is None or not is_looked_at(row, rule, limit):
        return student
    looked: float | None = row["looked"]["energy_above_hull"]
    return None if looked is None else min(student, looked) if rule == "both" else looked


def end_of(row: dict[str, Any], rule: str, limit: float) -> dict[str, Any]:
    """The teacher's relaxation of what passes: as generated where its look failed."""
    failed = is_looked_at(row, rule, limit) and row["looked"]["energy_per_atom"] is None
    end: dict[str, Any] = row["direct" if failed else "refined"]
    return end


def is_looked_at(row: dict[str, Any], rule: str, limit: float) -> bool:
    """Whether the teacher's look is needed."""
    student = row["student"]["energy_above_hull"]
    return student is not None and (rule == "looked" or (rule == "both" and student >= limit))


def threshold(rows: Sequence[dict[str, Any]], rule: str) -> float:
    """The limit (eV/atom, in meV) that keeps `KEEP` of the metastable ones by a rule."""
    energies = [
        energy
        for row in rows
        if is_metastable(row["direct"]) and (energy := judgement(row, rule)) is not None
    ]
    if not energies:
        return float("inf")
    highest = float(np.quantile(energies, KEEP, method="higher"))
    return (math.floor(1000 * highest) + 1) / 1000  # above it: a limit keeps what lies below


def cascade(rows: Sequence[dict[str, Any]], rule: str, limit: float) -> dict[str, Any]:
    """What the cascade costs and keeps at a limit; what nobody can judge goes on."""

    def passes(row: dict[str, Any]) -> bool:
        energy = judgement(row, rule, limit)
        return energy is None or energy < limit

    passed = [row for row in rows if passes(row)]
    metastable = [row for row in rows if is_metastable(row["direct"])]
    others = [row for row in rows if not is_metastable(row["direct"])]
    alone = sum(row["direct"]["seconds"] for row in rows)
    student = sum(row["student"]["seconds"] for row in rows)
    looks = sum(row["looked"]["seconds"] for row in rows if is_looked_at(row, rule, limit))
    ends = [end_of(row, rule, limit) for row in passed]
    after = sum(end["seconds"] for end in ends)
    return {
        "structures": len(rows),
        "limit": round(limit, 3),
        "metastable_by_teacher": len(metastable),
        "metastable_kept": sum(map(passes, metastable)),
        "others": len(others),
        "others_removed": sum(not passes(row) for row in others),
        "not_judged": sum(judgement(row, rule, limit) is None for row in rows),
        "metastable_found_by_cascade": sum(map(is_metastable, ends)),
        "teacher_seconds": round(alone, 1),
        "student_seconds": round(student, 1),
        "look_seconds": round(looks, 1),
        "teacher_seconds_after_student": round(after, 1),
        "speedup": round(alone / (student + looks + after), 2),
    }


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
    parser.add_argument("--minutes", type=float, default=1e9, help="stop relaxing after this time")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    hull, log, start = Hull.load(), Log(args.log), time.monotonic()
    teacher = chgnet.make_relaxer(max_seconds=300, device="cpu")
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
                rows[split].append(compare(*queue[i], log, teacher, hull))
    limits = {rule: threshold(rows["val"], rule) for rule in RULES}
    found = {
        "hardware": f"{platform.machine()}, one thread",
        "settings": {"fmax": FMAX, "max_steps": STEPS, "prefilter_steps": args.steps},
        "errors_on_test_formulas": label_errors(args.labels, student.model)
        if args.labels
        else None,
        "where_it_fails": where_it_fails(args.labels, student.model) if args.labels else None,
        "runaways": runaways(args.sources, args.runaways, student, FMAX, 2 * STEPS)
        if args.runaways
        else None,
        "relaxed": {split: geometries(each) for split, each in rows.items() if each},
        "cascade_val": {rule: cascade(rows["val"], rule, limits[rule]) for rule in RULES},
        "cascade_test": {rule: cascade(rows["test"], rule, limits[rule]) for rule in RULES},
        "cascade_test_by_limit": {
            rule: {str(each): cascade(rows["test"], rule, each) for each in LIMITS}
            for rule in RULES
        },
    }
    write_json(found, args.json)


if __name__ == "__main__":
    main()
