"""What steering gains: energy above hull and S.U.N. at equal network calls.

    python benchmarks/steering.py --num 100 --particles 4 --json FILE

Three ways to spend num x particles samples' network calls: plain samples; the best of each
`particles` of these by mace-adit's energy above hull; and samples that are steered to a low energy
above hull with so many particles. CHGNet, which steers nothing, judges them all: its energy above
hull of the structure as it is, and after relaxation. S.U.N. is stable (relaxed below --stable above
the hull), unique (StructureMatcher) and novel (the shipped fingerprints of the training set).
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from pymatgen.core import Structure
from sample_quality import write_json

from adit_plugins import ADiTGenerator, Sample
from adit_plugins.generation.steering import energy_above_hull
from adit_plugins.hull.energies import place
from adit_plugins.hull.table import Hull
from adit_plugins.matching.fingerprints import Fingerprints
from adit_plugins.matching.matcher import find_duplicates
from adit_plugins.relax.run import relax


def heights(samples: Sequence[Sample], relaxer: str) -> list[float]:
    """Energy above hull of samples as they are, eV/atom; NaN where there is none."""
    score = energy_above_hull(relaxer)
    found = []
    for sample in samples:
        try:
            found.append(float(score([sample.to_ase()])[0]))
        except Exception:  # noqa: BLE001 - isolated atoms, unknown elements
            found.append(math.nan)
    return found


def judged(samples: list[Sample], max_steps: int, stable: float) -> dict[str, Any]:
    """Energies by CHGNet, as they are and relaxed, and how many are S.U.N."""
    raw = [each for each in heights(samples, "chgnet") if math.isfinite(each)]
    report: dict[str, Any] = {
        "samples": len(samples),
        "raw_energies": len(raw),
        "median_raw_energy_above_hull": median(raw),
    }
    if not max_steps:
        return report
    hull, known = Hull.load(), Fingerprints.load("crystal")
    relaxed: list[tuple[float, Structure]] = []
    for result in relax([s.to_ase() for s in samples], "chgnet", max_steps=max_steps):
        try:
            _, found = place(result, hull)
        except ValueError:  # it failed, or an element has no reference energy
            continue
        structure = Sample.from_ase(result.atoms).to_pymatgen()
        assert isinstance(structure, Structure)
        relaxed.append((found.energy_above_hull, structure))
    unique = [d is None for d in find_duplicates([structure for _, structure in relaxed])]
    low = [height <= stable for height, _ in relaxed]
    new = [not known.contains(structure) for _, structure in relaxed]
    return report | {
        "relaxed": len(relaxed),
        "median_relaxed_energy_above_hull": median(height for height, _ in relaxed),
        "stable": sum(low),
        "unique": sum(unique),
        "novel": sum(new),
        "sun": sum(map(all, zip(low, unique, new, strict=True))),
    }


def best_of(samples: list[Sample], particles: int) -> list[Sample]:
    """Of each group of samples the one that mace-adit finds lowest."""
    scores = np.array(heights(samples, "mace-adit"))
    scores[np.isnan(scores)] = math.inf
    groups = scores.reshape(-1, particles)
    return [samples[row * particles + int(col)] for row, col in enumerate(groups.argmin(axis=1))]


def main() -> int:
    """Measure the three ways and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--num-steps", type=int, help="default: the checkpoint's own")
    parser.add_argument("--steer-weight", type=float)
    parser.add_argument("--max-steps", type=int, default=200, help="of relaxation; 0 for none")
    parser.add_argument("--stable", type=float, default=0.1, help="eV/atom")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    recipe = {"seed": args.seed, "num_steps": args.num_steps, "checkpoint": args.checkpoint}
    generator = ADiTGenerator(**recipe)
    plain = generator.samples(args.num * args.particles)
    steered = ADiTGenerator(
        steer="energy_above_hull",
        steer_weight=args.steer_weight,
        particles=args.particles,
        **recipe,
    ).samples(args.num)
    told = [sample.provenance["steering"] for sample in steered]
    sizes = zip(*(each["effective_sample_size"] for each in told), strict=True)
    results: dict[str, Any] = {
        "checkpoint": generator.model.name,
        "hash": generator.model.hash,
        "seed": args.seed,
        "num_steps": generator.steps(),
        "particles": args.particles,
        "mean_effective_sample_size": [mean(s for s in each if s is not None) for each in sizes],
        "mean_ancestors": mean(each["ancestors"] for each in told),
        "failed_scores": sum(each["failed"] for each in told),
    }
    for name, samples in (
        ("plain", plain),
        ("best_of", best_of(plain, args.particles)),
        ("steered", steered),
    ):
        results[name] = judged(samples, args.max_steps, args.stable)
        print(name, results[name], flush=True)
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
