"""Two ways to symmetry in the latent: equivariant by construction, or learned from turned copies.

    adit data prepare qm9 mp20 --out data
    python benchmarks/equivariance.py --data data/mp20.safetensors data/qm9.safetensors \
        --out runs/equivariance --seeds 0 1 --json benchmarks/results/equivariance.json

Autoencoders of about equal size learn from the same structures for as many steps of as many atoms
(one transformer for about as much CPU time as the equivariant one), and on each a denoiser of one
size does. So each variant has a row: weights, CPU time of a training step and of a sample,
reconstruction of unseen structures (as they are, and turned and shifted), validity of samples by
the project's metrics. Plain "transformer" is what `adit train` does by default: turned and shifted
copies, molecules on their principal axes for the denoiser. Everything is small, to be trained in
minutes on a core: rows compare with each other, not with the release. The same command goes on
after an interruption.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pymatgen.core import Structure
from reconstruction import reconstruct, summary
from sample_quality import figures, make_samples, score
from symmetry import measure
from talk_tables import COLUMNS, RATES, cells, stored_rates

from adit_model import ADiT
from adit_model.batch import principal_frame
from adit_model.data import SPLITS, PreparedData, SizeGroups
from adit_model.training.cli import architecture, parser
from adit_model.training.options import values_of
from adit_model.training.saving import STATE
from adit_model.training.stages import initial_model
from adit_model.training.trainer import Trainer, TrainingConfig
from adit_plugins import from_batch
from adit_plugins.matching.matcher import rms_distance, structure_matcher
from adit_plugins.metrics.names import plain
from adit_plugins.outputs import without_nan

SHARED = ["--threads", "1", "--warmup-steps", "50", "--decay", "0.5", "--ema-decay", "0.995"]
AUTOENCODER = [*SHARED, "--tokens", "1024", "--learning-rate", "2e-3", "--precision", "float32"]
DENOISER = [*SHARED, "--tokens", "2048", "--learning-rate", "1e-3", "--precision", "float32"]
DENOISER += ["--width", "128", "--depth", "4", "--num-heads", "4"]
SMALL = ["--width", "64", "--num-heads", "4"]
TRANSFORMER = [*SMALL, "--encoder-depth", "3", "--decoder-depth", "4"]
NOISE = 0.1  # of a latent's deviation: what a denoiser may leave


@dataclass(frozen=True)
class Variant:
    """An autoencoder, by its name and options.

    Attributes:
        autoencoder: name of its run.
        options: of its training.
        times: its steps in `--steps`.
        denoiser: whether one is trained on it; without, only reconstruction is measured.
    """

    autoencoder: str
    options: Sequence[str]
    times: float = 1.0
    denoiser: bool = True


VARIANTS = {
    "equivariant": Variant(
        "equivariant",
        [*SMALL, "--architecture", "equivariant", "--encoder-depth", "2", "--decoder-depth", "2"],
    ),
    "transformer": Variant("transformer", TRANSFORMER),
    # About as much CPU time as the equivariant one.
    "transformer, 2.4 times the steps": Variant("longer", TRANSFORMER, times=2.4),
    "transformer, no augmentation": Variant(
        "plain", [*TRANSFORMER, "--augmentation", "none"], denoiser=False
    ),
}


def subset(path: Path, train: int, test: int, out: Path) -> Path:
    """Write random structures of a prepared file: `train` to learn from, `test` unseen ones."""
    target = out / path.name
    data = PreparedData.load(path)
    assert data.coords is not None
    random = torch.Generator().manual_seed(0)
    keep = torch.zeros(len(data.num_atoms), dtype=torch.bool)
    for split, num in (("train", train), ("test", test)):
        rows = torch.nonzero(data.split == SPLITS.index(split)).flatten()
        keep[rows[torch.randperm(len(rows), generator=random)[:num]]] = True
    atoms = keep.repeat_interleave(data.num_atoms.long())
    replace(
        data,
        atomic_numbers=data.atomic_numbers[atoms],
        coords=data.coords[atoms],
        num_atoms=data.num_atoms[keep],
        split=data.split[keep],
        cell=None if data.cell is None else data.cell[keep],
        labels={name: values[keep] for name, values in data.labels.items()},
    ).save(target)
    return target


def train(stage: str, options: Sequence[str], data: Sequence[Path], out: Path) -> None:
    """One run of `adit train`; goes on where it was, and returns at once if it is done."""
    log, state = out / "log.jsonl", out / STATE
    rows = log.read_text().splitlines() if log.exists() else []
    if rows and json.loads(rows[-1]).get("progress", 0.0) >= 1.0:
        return
    words = [stage, "--data", *map(str, data), "--out", str(out), *options]
    words += ["--resume"] if state.exists() else []
    subprocess.run([sys.executable, "-m", "adit_model.training", *words], check=True)  # noqa: S603


def step_cost(options: Sequence[str], data: Sequence[Path], steps: int = 30) -> dict[str, Any]:
    """Weights, and CPU milliseconds of a step of the autoencoder, the median of several."""
    words = ["autoencoder", "--data", *map(str, data), "--out", "unused", "--steps", "1000"]
    parsed = parser().parse_args([*words, *options])
    config = TrainingConfig(**values_of(TrainingConfig, parsed))
    torch.set_num_threads(1)
    model = initial_model(config, architecture(parsed), None)
    trainer = Trainer(config, model, torch.device("cpu"))
    seconds = []
    for _ in range(steps):
        start = time.process_time()
        trainer.train_step()
        seconds.append(time.process_time() - start)
    weights = sum(p.numel() for p in model.autoencoder.parameters())
    return {"weights": weights, "cpu_ms_a_step": round(1000 * float(np.median(seconds[3:])), 1)}


def reconstruction(model: ADiT, data: Sequence[Path], num: int) -> dict[str, Any]:
    """Unseen structures given back: all as they are, some turned and shifted."""
    results: dict[str, Any] = {}
    # Noise is in units of the latents' deviation, which is measured for a denoiser.
    noises = (0.0,) if model.denoiser is None else (0.0, NOISE)
    for path in data:
        prepared = PreparedData.load(path)
        groups = SizeGroups(prepared, "test", model.device)
        if prepared.kind == "molecule":  # as the denoiser sees them; turned ones come below
            for size, (numbers, positions, lattice) in groups.groups.items():
                groups.groups[size] = (numbers, principal_frame(positions), lattice)
        results[prepared.kind] = {
            f"noise {noise}": summary(
                reconstruct(model, groups, prepared.kind, noise, groups.batches(4096))
            )
            for noise in noises
        }
        if prepared.kind == "crystal":
            results["crystal"]["rmsd"] = crystal_rmsd(model, groups)
        plan = groups.batches(4096, max(1, num // len(groups.groups)))
        batches = [groups.batch(size, rows) for size, rows in plan]
        results[prepared.kind]["moved"] = measure(model, batches, prepared.kind)
    return results


def crystal_rmsd(model: ADiT, groups: SizeGroups) -> dict[str, float]:
    """RMS displacement of matched sites in (volume / atom)^(1/3), as published match rates have."""
    matcher, found = structure_matcher(), []
    for size, rows in groups.batches(4096):
        batch = groups.batch(size, rows)
        pairs = zip(from_batch(batch), from_batch(model.reconstruct(batch)), strict=True)
        for before, after in pairs:
            first, second = (cast(Structure, s.to_pymatgen()) for s in (before, after))
            found.append(rms_distance(first, second, matcher))
    matched = [value for value in found if value is not None]
    return {
        "structures": len(found),
        "matched": len(matched),
        "mean": round(float(np.mean(matched)), 4) if matched else float("nan"),
    }


def samples(checkpoint: Path, num: int, seed: int) -> dict[str, Any]:
    """Raw samples of both kinds, scored."""
    results = {}
    settings = {"seed": seed, "device": "cpu", "precision": "float32"}
    for kind in RATES:
        made, how = make_samples(kind, num, str(checkpoint), settings)
        metrics = score(kind, made, "crystal", True, 0)
        how["settings"]["checkpoint"] = how["checkpoint"]  # its folder is of this machine alone
        results[kind] = how | figures(metrics)
    return results


def runs_of(variant: Variant, out: Path, seed: int) -> tuple[Path, Path]:
    """Folders of the autoencoder and of its denoiser."""
    one = out / f"{variant.autoencoder}-{seed}"
    return one, out / f"{one.name}-denoiser"


def train_variant(
    variant: Variant, args: argparse.Namespace, data: Sequence[Path], seed: int
) -> None:
    """Both stages."""
    one, two = runs_of(variant, args.out, seed)
    budget = ["--seed", str(seed), "--steps"]
    steps = str(round(args.steps * variant.times))
    train("autoencoder", [*AUTOENCODER, *variant.options, *budget, steps], data, one)
    if variant.denoiser:
        more = [*DENOISER, "--name", two.name, "--autoencoder", str(one / "model")]
        train("denoiser", [*more, *budget, str(args.denoiser_steps)], data, two)


def variant_row(
    variant: Variant, args: argparse.Namespace, data: Sequence[Path], seed: int
) -> dict[str, Any]:
    """What one trained variant reaches."""
    one, two = runs_of(variant, args.out, seed)
    model = ADiT.from_pretrained((two if variant.denoiser else one) / "model", device="cpu")
    row: dict[str, Any] = {
        "autoencoder": variant.autoencoder,
        "seed": seed,
        "losses": {"autoencoder": last_row(one)},
        "reconstruction": reconstruction(model, data, args.num_moved),
    }
    if variant.denoiser:
        row["losses"]["denoiser"] = last_row(two)
        row["samples"] = samples(two / "model", args.num, args.seed)
    return row


def last_row(run: Path) -> dict[str, Any]:
    """What the log of a run ends with."""
    return cast(dict[str, Any], json.loads((run / "log.jsonl").read_text().splitlines()[-1]))


def markdown(results: dict[str, Any]) -> str:
    """Three tables: what training costs, reconstruction, samples."""
    tables = [[COST], [RECONSTRUCTION], [SAMPLES]]
    for name, variant in VARIANTS.items():
        if cost := results["cost"].get(variant.autoencoder):
            tables[0].append([name, f"{cost['weights']:,}", f"{cost['cpu_ms_a_step']:.0f}"])
    for name, row in results["rows"].items():
        tables[1].append([name, *_reconstruction_cells(row["reconstruction"])])
        if "samples" in row:
            tables[2].append([name, *_sample_cells(row["samples"])])
    for table in tables:
        table.insert(1, ["---"] * len(table[0]))
    return "\n\n".join("\n".join(f"| {' | '.join(r)} |" for r in table) for table in tables)


COST = ["autoencoder", "weights", "CPU ms a step"]
RECONSTRUCTION = ["crystals:", "match", "types right", "RMSD", "match, moved", "match, noise"]
RECONSTRUCTION += ["molecules:", "within 0.05 A", "types right", "median RMSD (A)", "within, moved"]
RECONSTRUCTION += ["median RMSD, noise"]
SAMPLES = ["crystals:", *COLUMNS["crystal"][:3], "CPU ms a sample"]
SAMPLES += ["molecules:", *COLUMNS["molecule"][:2], "CPU ms a sample"]


def _reconstruction_cells(found: dict[str, Any]) -> list[str]:
    columns = []
    for kind in ("crystal", "molecule"):
        plain, moved = found[kind]["noise 0.0"], found[kind]["moved"][-1]
        noisy = found[kind].get(f"noise {NOISE}")
        rmsd = found[kind]["rmsd"]["mean"] if kind == "crystal" else plain["median_rmsd"]
        columns += [] if kind == "crystal" else [""]
        columns += [f"{plain['match']}/{plain['structures']}"]
        columns += [f"{100 * plain['all_types_right']:.1f} %", f"{rmsd:.3f}"]
        columns += [f"{moved['come_back']}/{moved['structures']}"]
        if noisy is None:
            columns.append("-")
        elif kind == "crystal":
            columns.append(f"{noisy['match']}/{noisy['structures']}")
        else:
            columns.append(f"{noisy['median_rmsd']:.3f}")
    return columns


def _sample_cells(found: dict[str, Any]) -> list[str]:
    columns = []
    for kind, num in (("crystal", 3), ("molecule", 2)):
        rates = stored_rates(found[kind]["rates"])
        made = next(r.denominator for r in rates if r.name == plain(RATES[kind][0]))
        columns += [] if kind == "crystal" else [""]
        columns += cells(kind, rates)[:num]
        columns.append(f"{1000 * found[kind]['cpu_seconds_to_sample'] / made:.0f}")
    return columns


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """What an interrupted run of the same settings left, or nothing yet."""
    more = ("data", "out", "json", "variants", "seeds")
    settings = {key: value for key, value in vars(args).items() if key not in more}
    if args.json is not None and args.json.exists():
        results = cast(dict[str, Any], json.loads(args.json.read_text()))
        if results["settings"] == settings:
            return results
    return {"settings": settings, "cost": {}, "rows": {}}


def save(results: dict[str, Any], path: Path | None) -> None:
    """Seeds of a variant beside each other, with the tables; also of an unfinished run."""
    order = [variant.autoencoder for variant in VARIANTS.values()]
    rows = results["rows"].items()
    places = sorted(rows, key=lambda each: (order.index(each[1]["autoencoder"]), each[1]["seed"]))
    results["rows"] = dict(places)
    results["tables"] = markdown(results).split("\n")
    if path is not None:
        path.write_text(json.dumps(without_nan(results), indent=1) + "\n")


def main() -> int:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", type=Path, nargs="+", required=True, help="one of each kind")
    p.add_argument("--out", type=Path, required=True, help="folder for the runs")
    p.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    p.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    p.add_argument("--steps", type=int, default=1500, help="of each autoencoder")
    p.add_argument("--denoiser-steps", type=int, default=1000)
    p.add_argument("--structures", type=int, default=20000, help="to learn from, of each kind")
    p.add_argument("--unseen", type=int, default=500, help="to reconstruct, of each kind")
    p.add_argument("--num-moved", type=int, default=150, help="of these, to turn and shift")
    p.add_argument("--num", type=int, default=400, help="samples of each kind")
    p.add_argument("--seed", type=int, default=0, help="of the samples")
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = [subset(path, args.structures, args.unseen, args.out) for path in args.data]
    results = measured(args)
    planned = [(seed, name) for seed in args.seeds for name in args.variants]
    for seed, name in planned:
        train_variant(VARIANTS[name], args, data, seed)
    for seed, name in planned:
        variant, title = VARIANTS[name], f"{name}, seed {seed}" if seed else name
        if title in results["rows"]:
            continue
        if variant.autoencoder not in results["cost"]:
            cost = step_cost([*AUTOENCODER, *variant.options], data)
            results["cost"][variant.autoencoder] = cost
        results["rows"][title] = variant_row(variant, args, data, seed)
        save(results, args.json)
    save(results, args.json)
    sys.stdout.write("\n".join(results["tables"]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
