"""Structures relaxed a second: ASE one by one, ASE in processes, torch-sim by chunk size.

The same potential and the same structures (the first of a file, an .npz of a generator's samples or
anything that ASE reads) in one run. Every
process has one thread. Loading the potential is counted for processes only, with their start.

    python benchmarks/relax_speed.py samples.npz --num 24 --json benchmarks/results/relax_speed.json
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from relaxed_rows import read_samples, write_json

from adit_plugins.processes import available_cores
from adit_plugins.relax.results import RelaxResult
from adit_plugins.relax.run import RelaxerFactory, find_relaxer, relax


def measure(
    name: str, run: Callable[[], list[RelaxResult]], times: dict[str, dict[str, Any]]
) -> None:
    """Time one way of relaxing everything, and count what came out."""
    start = time.perf_counter()
    results = run()
    seconds = time.perf_counter() - start
    steps = sum(result.num_steps for result in results)
    times[name] = {
        "seconds": round(seconds, 1),
        "structures_a_second": round(len(results) / seconds, 3),
        "steps_a_second": round(steps / seconds, 1),
        "converged": sum(result.converged for result in results),
        "failed": sum(result.failed for result in results),
        "energy_sum_eV": round(sum(result.energy or 0.0 for result in results), 3),
    }
    print(name, times[name], flush=True)


def _relax(
    atoms: list[Atoms],
    factory: RelaxerFactory,
    args: argparse.Namespace,
    workers: int,
    chunk: int | None,
) -> list[RelaxResult]:
    return relax(atoms, factory, args.fmax, args.max_steps, workers, chunk_atoms=chunk)


def main() -> int:
    """Time all ways and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("structures", type=Path)
    parser.add_argument("--num", type=int, default=24)
    parser.add_argument("--potential", default="chgnet", help="chgnet, or a MACE name or path")
    parser.add_argument("--max-steps", type=int, default=30)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--chunk-atoms", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    atoms = list(read_samples(args.structures, args.num).values())
    cores = available_cores()
    serial = args.potential if args.potential == "chgnet" else f"mace:{args.potential}"
    times: dict[str, dict[str, Any]] = {}

    def by(relaxer: str, workers: int, chunk: int | None = None) -> Callable[[], list[RelaxResult]]:
        make = find_relaxer(relaxer)
        if workers == 0:
            instance = make()
            instance.relax(atoms[:1], args.fmax, 1)  # the first call allocates and compiles
            return partial(_relax, atoms, lambda: instance, args, workers, chunk)
        return partial(_relax, atoms, make, args, workers, chunk)

    torch.set_num_threads(1)  # two threads are slower than one on graphs of this size
    batched = f"torch-sim:{args.potential}"
    measure("ASE, one by one", by(serial, 0), times)
    measure(f"ASE, {cores} processes", by(serial, cores), times)
    for chunk in args.chunk_atoms:
        measure(f"torch-sim, chunks of {chunk} atoms", by(batched, 0, chunk), times)
    chunk = args.chunk_atoms[0]
    measure(f"torch-sim, chunks of {chunk}, {cores} processes", by(batched, cores, chunk), times)
    write_json(_summary(args, atoms, cores) | {"times": times}, args.json)
    return 0


def _summary(args: argparse.Namespace, atoms: list[Atoms], cores: int) -> dict[str, Any]:
    return {
        "structures": args.structures.name,
        "number": len(atoms),
        "mean_atoms": round(sum(map(len, atoms)) / len(atoms), 1),
        "potential": Path(args.potential).name,
        "fmax": args.fmax,
        "max_steps": args.max_steps,
        "cores": cores,
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "torch-sim-atomistic", "ase")},
    }


if __name__ == "__main__":
    raise SystemExit(main())
