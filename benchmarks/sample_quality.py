"""The model card's figures: raw samples, no filter, no rejection, no retry, one seed, one setting.

    python benchmarks/sample_quality.py --num 1000 --seed 0

Every rate is given with its numerator and denominator, by `adit_plugins.metrics`. The limit in the
same run: the same metrics of real structures, drawn from prepared files (`--real`), where given.
Novelty of crystals is against the shipped fingerprints, or by StructureMatcher against
`--reference` (such as the prepared file of the training set).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.config import KINDS
from adit_model.data import PreparedData, SizeGroups
from adit_plugins import ADiTGenerator, Sample, from_batch
from adit_plugins.generation.recipe import used_precision
from adit_plugins.metrics.crystals import CrystalMetrics, evaluate_crystals
from adit_plugins.metrics.molecules import MoleculeMetrics, evaluate_molecules
from adit_plugins.outputs import without_nan

SIZES = {"crystal": ((1, 6), (7, 12), (13, 20)), "molecule": ((3, 14), (15, 18), (19, 29))}
FEWEST = 10  # samples with an element that a share needs


def make_samples(
    kind: str, num: int, checkpoint: str | None, settings: dict[str, Any]
) -> tuple[list[Sample], dict[str, Any]]:
    """Raw samples, and what a reader needs to make them again."""
    generator = ADiTGenerator(kind=kind, checkpoint=checkpoint, **settings)  # type: ignore[arg-type]
    model = generator.model  # loaded before the clock runs
    start, cpu = time.perf_counter(), time.process_time()
    samples = generator.samples(num)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    recipe = {k: v for k, v in generator.as_dict().items() if not k.startswith("@") and v != []}
    recipe["precision"] = used_precision(generator.precision, model)
    made = {"checkpoint": model.name, "hash": model.hash, "settings": recipe}
    return samples, made | {
        "seconds_to_sample": round(seconds, 1),
        "cpu_seconds_to_sample": round(cpu, 3),
    }


def score(
    kind: str, samples: list[Sample], reference: str, fast: bool, workers: int | None
) -> CrystalMetrics | MoleculeMetrics:
    """The metrics of one kind."""
    if kind == "crystal":
        return evaluate_crystals(samples, reference=reference, workers=workers)
    return evaluate_molecules([each.to_ase() for each in samples], fast=fast, workers=workers)


def figures(metrics: CrystalMetrics | MoleculeMetrics) -> dict[str, Any]:
    """Rates and numbers without the rows."""
    values = getattr(metrics, "values", {})
    rates = [rate.as_dict() for rate in metrics.rates]
    return {"rates": rates, "values": values, "notes": metrics.notes}


def failures(kind: str, samples: list[Sample], metrics: Any) -> dict[str, Any]:
    """Shares of valid samples (counts) by size and by element: where the weights are weak."""
    names = ("struct_valid", "comp_valid") if kind == "crystal" else ("connected", "valid_strict")
    by_size, by_element = {}, {}
    for low, high in SIZES[kind]:
        rows = [r for r in metrics.rows if low <= r["num_atoms"] <= high]
        by_size[f"{low}-{high}"] = {n: f"{sum(r[n] for r in rows)}/{len(rows)}" for n in names}
    elements = [set(sample.to_ase().symbols) for sample in samples]
    for element in sorted(set().union(*elements)):
        rows = [r for r, own in zip(metrics.rows, elements, strict=True) if element in own]
        if len(rows) >= FEWEST:
            by_element[element] = {n: f"{sum(r[n] for r in rows)}/{len(rows)}" for n in names}
    return {"by_size": by_size, "by_element": by_element}


def real_samples(path: Path, num: int, seed: int) -> tuple[str, list[Sample]]:
    """Random structures of a prepared file's training split."""
    data = PreparedData.load(path)
    groups = SizeGroups(data, "train", "cpu")
    everything = [
        (size, row) for size, group in groups.groups.items() for row in range(len(group[0]))
    ]
    order = np.random.default_rng(seed).permutation(len(everything))[:num]
    samples = []
    for place in order:
        size, row = everything[place]
        samples += from_batch(groups.batch(size, slice(row, row + 1)))
    return data.kind, samples


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how samples are made and scored."""
    parser.add_argument("--num", type=int, default=1000, help="samples of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-steps", type=int, help="default: the checkpoint's own")
    parser.add_argument("--guidance-scale", type=float, default=ADiTGenerator.guidance_scale)
    parser.add_argument("--sampler", default=ADiTGenerator.sampler)
    parser.add_argument("--precision", default=ADiTGenerator.precision)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--reference", default="crystal", help="known crystals, for novelty")
    parser.add_argument("--fast", action="store_true", help="without PoseBusters' energy check")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", type=Path)


def described(generator: ADiTGenerator, num: int) -> dict[str, Any]:
    """What a result says of the network and of how its samples were made."""
    return {
        "checkpoint": generator.model.name,
        "hash": generator.model.hash,
        "seed": generator.seed,
        "num": num,
        "num_steps": generator.steps(),
        "precision": generator.precision,
    }


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The generator's fields."""
    names = ("seed", "num_steps", "guidance_scale", "sampler", "precision")
    return {name: getattr(args, name) for name in names}


def write_json(results: dict[str, Any], path: Path | None) -> None:
    """Print, and write where asked to."""
    text = json.dumps(without_nan(results), indent=1) + "\n"
    if path is not None:
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_sampling_arguments(parser)
    parser.add_argument("--checkpoint")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="prepared files")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for kind in args.kind:
        samples, made = make_samples(kind, args.num, args.checkpoint, sampling_settings(args))
        metrics = score(kind, samples, args.reference, args.fast, args.workers)
        results[kind] = made | figures(metrics) | failures(kind, samples, metrics)
    for path in args.real:
        kind, samples = real_samples(path, args.num, args.seed)
        metrics = score(kind, samples, args.reference, args.fast, args.workers)
        results[f"real {kind}s"] = figures(metrics)
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
