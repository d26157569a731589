"""Whether molecules have the property that the network was told, by DFT as in QM9.

    python benchmarks/conditions_molecules.py --data data/qm9.safetensors --num 8 \\
        --json benchmarks/results/conditions_molecules.json

Each property of a raw sample (nothing filtered, the geometry as it is) is computed by PySCF, as
qm9_level.py says; how far that level is from QM9's values on QM9's geometries is measured with it.
The mean absolute error to the target stands beside the limits: random molecules of QM9, by their
own values, and samples that were told nothing.

The calculations can run elsewhere, and be cut off there:

    python benchmarks/conditions_molecules.py --data data/qm9.safetensors --tasks tasks.jsonl
    python benchmarks/qm9_level.py tasks.jsonl --log computed.jsonl --processes 14
    python benchmarks/conditions_molecules.py --data data/qm9.safetensors --log computed.jsonl \\
        --computed-only --json benchmarks/results/conditions_molecules.json

Molecules that the calculation does not finish are counted, and left out of the means.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qm9_level
import torch
from numpy.typing import NDArray
from qm9_level import DEAREST, LEVEL, Found
from sample_quality import described, write_json

from adit_model.data import SPLITS, PreparedData
from adit_plugins import ADiTGenerator, Sample

TARGETS = {
    "homo_lumo_gap": (5.0, 7.0, 9.0),
    "dipole_moment": (1.0, 3.0, 6.0),
    "polarizability": (65.0, 75.0, 85.0),
}  # eV, D, bohr3: about a tenth, half and nine tenths of QM9, and a dipole that few have

Task = dict[str, Any]


def tasks_of(samples: Sequence[Sample], wanted: str) -> list[Task]:
    """What is to be computed of molecules."""
    return [
        qm9_level.task(each.atomic_numbers.tolist(), each.positions.tolist(), wanted)
        for each in samples
    ]


class Known:
    """QM9's own molecules and values."""

    def __init__(self, path: Path) -> None:
        self.data = PreparedData.load(path)
        self.ends = self.data.num_atoms.long().cumsum(0).tolist()

    def molecule(self, row: int) -> Sample:
        """One of its geometries."""
        data, end = self.data, self.ends[row]
        assert data.coords is not None
        part = slice(end - int(data.num_atoms[row]), end)
        numbers = data.atomic_numbers[part].long().numpy()
        return Sample("molecule", numbers, data.coords[part].double().numpy())

    def spread(self, num: int) -> list[int]:
        """Rows of test molecules spread over it."""
        rows = (self.data.split == SPLITS.index("test")).nonzero().flatten()
        return rows[torch.linspace(0, len(rows) - 1, num + 2).long()[1:-1]].tolist()

    def check(self, rows: list[int], found: list[Found]) -> dict[str, Any]:
        """How far computed properties of its molecules are from its values."""
        errors = {
            name: [
                abs(each[name] - float(self.data.labels[name][row]))
                for row, each in zip(rows, found, strict=True)
                if each is not None
            ]
            for name in TARGETS
        }
        finished = len(errors[DEAREST])
        if not finished:
            raise SystemExit(f"none of the {len(rows)} molecules of QM9 is computed; --check 0")
        largest = {f"largest_error_{name}": max(values) for name, values in errors.items()}
        return {"molecules": finished} | largest

    def limits(self, name: str, target: float) -> dict[str, float]:
        """Mean distance to a target of training molecules drawn at random, and of the nearest."""
        values = self.data.labels[name][self.data.split == 0]
        distances = (values[~values.isnan()] - target).abs()
        nearest = distances.sort().values[: len(distances) // 100]
        return {
            "qm9_at_random": float(distances.mean()),
            "qm9_drawn_at_the_target": float(nearest.mean()),
        }


@dataclass
class Drawn:
    """Molecules of one column of the table, and what is to be computed of them."""

    name: str  # of the property that is told; empty for those told nothing and for QM9's own
    target: float
    column: str
    tasks: list[Task]


def drawn(args: argparse.Namespace, recipe: dict[str, Any]) -> Iterator[Drawn]:
    """Samples that were told nothing, then those of each target and scale."""
    dearest = DEAREST if DEAREST in dict(args.target) else ""
    samples = ADiTGenerator(**recipe).samples(args.num)
    yield Drawn("", 0.0, "untold", tasks_of(samples, dearest))
    for name, target in args.target:
        for scale in args.scales:
            samples = ADiTGenerator(
                conditions={name: target}, condition_guidance={name: scale}, **recipe
            ).samples(args.num)
            yield Drawn(name, target, f"guidance {scale:g}", tasks_of(samples, name))


def found_of(tasks: Sequence[Task], log: dict[str, Found]) -> list[Found]:
    """The properties of each molecule; None for one that failed, and for one that log lacks."""
    return [log.get(task["id"]) for task in tasks]


def errors_of(rows: list[Found], name: str, target: float) -> dict[str, Any]:
    """Distances of computed properties to a target."""
    values: NDArray[np.float64] = np.array([row[name] for row in rows if row is not None])
    return {
        "computed": f"{len(values)}/{len(rows)}",
        "mean_absolute_error": float(np.abs(values - target).mean()) if len(values) else None,
        "values": [round(float(value), 2) for value in values],
    }


def table(columns: Sequence[Drawn], known: Known, log: dict[str, Found]) -> dict[str, Any]:
    """Limits and errors by property and target."""
    untold, *told = columns
    results: dict[str, Any] = {}
    for each in told:
        targets = results.setdefault(each.name, {})
        key = f"{each.target:g}"
        if key not in targets:
            targets[key] = known.limits(each.name, each.target)
            free = found_of(untold.tasks, log)
            targets[key]["untold"] = errors_of(free, each.name, each.target)
        found = found_of(each.tasks, log)
        targets[key][each.column] = errors_of(found, each.name, each.target)
    return results


def write_tasks(tasks: Sequence[Task], path: Path) -> None:
    """As JSON lines."""
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")


def compute(tasks: Sequence[Task], log: Path, processes: int) -> None:
    """Append what a log lacks, by qm9_level.py: its processes hold no network.

    Raises:
        SystemExit: it fails, for which it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.jsonl"
        write_tasks(tasks, path)
        command = [sys.executable, qm9_level.__file__, str(path), "--log", str(log)]
        command += ["--processes", str(processes)]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own command
            raise SystemExit("the calculations stopped; the same command goes on with --log")


def asked_target(text: str) -> tuple[str, float]:
    """`NAME=VALUE`.

    Raises:
        ArgumentTypeError: no property that is computed here, or no number.
    """
    name, _, value = text.partition("=")
    try:
        if name in TARGETS:
            return name, float(value)
    except ValueError:
        pass
    known = ", ".join(TARGETS)
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER with one of {known}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared QM9")
    parser.add_argument(
        "--target", nargs="+", type=asked_target, help="such as homo_lumo_gap=5; default: all",
        default=[(name, target) for name, targets in TARGETS.items() for target in targets],
    )  # fmt: skip
    parser.add_argument("--num", type=int, default=8, help="molecules of each target")
    parser.add_argument("--check", type=int, default=3, help="molecules of QM9 computed too")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--checkpoint")
    parser.add_argument("--tasks", type=Path, help="write what is to be computed here, and stop")
    parser.add_argument("--log", type=Path, help="what is computed, by qm9_level.py or here")
    parser.add_argument("--processes", type=int, default=1, help="calculations at a time")
    parser.add_argument(
        "--computed-only", action="store_true", help="leave out what --log lacks; compute nothing"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.computed_only and (args.log is None or not args.log.exists()):
        parser.error(f"--computed-only needs a --log that exists, and it is {args.log}")
    return args


def main() -> int:
    """Print the JSON."""
    args = arguments()
    warnings.filterwarnings("ignore")
    start = time.perf_counter()
    recipe: dict[str, Any] = {
        "kind": "molecule", "seed": args.seed, "precision": args.precision,
        "checkpoint": args.checkpoint,
    }  # fmt: skip
    known = Known(args.data)
    rows = known.spread(args.check)
    own = tasks_of([known.molecule(row) for row in rows], DEAREST)
    columns = list(drawn(args, recipe))
    tasks = qm9_level.in_turns([own, *(column.tasks for column in columns)])
    if args.tasks is not None:
        write_tasks(tasks, args.tasks)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = args.log or Path(folder) / "computed.jsonl"
        if not args.computed_only:
            compute(tasks, path, args.processes)
        log = qm9_level.read_log(path)
    if not any(task["id"] in log for task in tasks):
        raise SystemExit(f"{path} has none of these molecules; draw them as its --tasks were")
    results: dict[str, Any] = {
        **described(ADiTGenerator(**recipe), args.num), "level": LEVEL,
        **({"check": known.check(rows, found_of(own, log))} if rows else {}),
        **table(columns, known, log),
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }  # fmt: skip
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
