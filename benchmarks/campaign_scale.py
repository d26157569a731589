"""Memory and time of a campaign as it grows: real driver and store, a potential that is free.

    python benchmarks/campaign_scale.py --num 100000 --json benchmarks/results/campaign_scale.json

Structures are made as they are asked for: four of 34 elements on the four sites of a distorted
Heusler cell, so that formulas come again and some are duplicates. The relaxer returns the input
with a made-up energy. Everything runs in one process, so its memory is all there is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from adit_plugins.campaign import Campaign, Resources, Settings, StructuresSource
from adit_plugins.campaign.files import write_files
from adit_plugins.relax.results import RelaxResult, finished

METALS = (3, 4, 11, 12, 13, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 37, 38, 39, 40)
OTHERS = (7, 8, 9, 15, 16, 17, 33, 34, 35, 51, 52, 53)


class FreeRelaxer:
    """Moves nothing; the energy is a number."""

    name = "free"

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Return each structure as if it had been relaxed."""
        return [
            finished(
                atoms, atoms, -4.0 * len(atoms), np.zeros((len(atoms), 3)), np.zeros(6),
                reason="converged", num_steps=1, potential=self.name, seconds=0.0,
                convention="mp2020",
            )
            for atoms in batch
        ]  # fmt: skip


def free() -> FreeRelaxer:
    """A factory for `--relaxer campaign_scale:free`."""
    return FreeRelaxer()


def structure(number: int) -> Atoms:
    """Structure `number`, whatever was made before."""
    rng = np.random.default_rng(number)
    metals, others = rng.choice(METALS, 2, replace=False), rng.choice(OTHERS, 2, replace=False)
    atoms = Atoms(
        numbers=[metals[0], others[0], metals[1], others[1]],
        scaled_positions=[[x, x, x] for x in (0.0, 0.25, 0.5, 0.75)],
        cell=float(rng.uniform(2.8, 3.6)) * (np.ones((3, 3)) - np.eye(3)),
        pbc=True,
    )
    atoms.rattle(0.05, seed=int(rng.integers(10**6)))
    return atoms


def structures(start: int) -> Iterator[Atoms]:
    """All structures from a number on."""
    number = start
    while True:
        yield structure(number)
        number += 1


def memory() -> float:
    """Resident memory of this process in MB, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(num: int, folder: Path, every: int) -> dict[str, Any]:
    """Run a campaign and look at it every so many structures."""
    marks: list[dict[str, float]] = []
    begun = time.perf_counter()
    last = [0, begun]

    def report(stage: str, done: int, total: int) -> None:
        if stage == "structures checked" and done - last[0] >= every:
            now = time.perf_counter()
            marks.append(
                {
                    "structures": done,
                    "memory_mb": round(memory(), 1),
                    "ms_per_structure": round(1000 * (now - last[1]) / (done - last[0]), 2),
                }
            )
            last[:] = [done, now]
            print(json.dumps(marks[-1]), file=sys.stderr, flush=True)

    source = StructuresSource(structures, num)
    means = Resources(executor="serial", chunk_size=64)
    with Campaign.create(folder, source, Settings("campaign_scale:free"), means) as campaign:
        campaign.run(report)
        seconds = time.perf_counter() - begun
        write_files(campaign.store)
        written = time.perf_counter() - begun - seconds
        size = campaign.store.path.stat().st_size
    return {
        "num": num,
        "seconds": round(seconds, 1),
        "seconds_for_files": round(written, 1),
        "store_mb": round(size / 1e6, 1),
        "memory_mb_after_files": round(memory(), 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
        "marks": marks,
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args.num, Path(folder), args.every)
    text = json.dumps(result, indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
