"""How long `mace-adit` takes to relax raw crystals of the release, one process a core.

    python benchmarks/prefilter_speed.py --num 1000 --json benchmarks/results/prefilter_speed.json

The limits are those of the pre-filter in a campaign. `--chunk-atoms` names batch sizes, each of
which relaxes all of them; None is the relaxer's own. The start of the processes is in the seconds,
sampling is not. "structures at once" is the mean number that an evaluation of the network serves,
measured on the first `--counted` of them in one process.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from ase import Atoms
from relaxed_rows import write_json

from adit_integrations.mace_adit.batched_fire import Evaluation
from adit_integrations.mace_adit.relaxer import MaceAditRelaxer
from adit_plugins import ADiTGenerator
from adit_plugins.processes import available_cores
from adit_plugins.relax import relax
from adit_plugins.relax.limits import FMAX, PREFILTER_STEPS


def raw_crystals(num: int, seed: int) -> tuple[str, list[Atoms]]:
    """The weights, and so many of their samples, nothing filtered."""
    generator = ADiTGenerator(seed=seed)
    made = [sample.to_ase() for sample in generator.stream(num)]
    return generator.model.hash, made


def cpu_seconds() -> float:
    """Of this process and those that have ended."""
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(crystals: Sequence[Atoms], workers: int, chunk: int | None) -> dict[str, Any]:
    """Relax all of them."""
    begun, used = time.perf_counter(), cpu_seconds()
    results = relax(crystals, "mace-adit", FMAX, PREFILTER_STEPS, workers, chunk_atoms=chunk)
    seconds, used = time.perf_counter() - begun, cpu_seconds() - used
    steps = sum(result.num_steps for result in results)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used, 1),
        "steps": steps,
        "cpu_ms_a_step": round(1000 * used / steps, 2),
        "converged": sum(result.converged for result in results),
        "failed": sum(result.failed for result in results),
    }


def at_once(crystals: Sequence[Atoms], chunk: int | None) -> float:
    """Mean number of structures that one evaluation serves."""
    made = MaceAditRelaxer()
    sizes: list[int] = []
    evaluate = made.model.evaluate

    def counted(batch: Sequence[Atoms]) -> list[Evaluation]:
        sizes.append(len(batch))
        return evaluate(batch)

    made.model.evaluate = counted  # type: ignore[method-assign,assignment]
    own = chunk or MaceAditRelaxer.chunk_atoms
    relax(crystals, lambda: made, FMAX, PREFILTER_STEPS, 0, chunk_atoms=own)
    return round(sum(sizes) / len(sizes), 1)


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--counted", type=int, default=100)
    parser.add_argument("--chunk-atoms", type=int, nargs="+", help="default: the relaxer's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights, crystals = raw_crystals(args.num, args.seed)
    cores = available_cores()
    rows = {}
    for chunk in args.chunk_atoms or [MaceAditRelaxer.chunk_atoms]:
        rows[f"{chunk} atoms"] = {
            **timed(crystals, cores, chunk),
            "structures_at_once": at_once(crystals[: args.counted], chunk),
        }
    results = {
        "checkpoint": weights,
        "structures": len(crystals),
        "seed": args.seed,
        "fmax": FMAX,
        "max_steps": PREFILTER_STEPS,
        "hardware": f"{platform.machine()} CPU, {cores} processes of one thread",
        "batches": rows,
    }
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
