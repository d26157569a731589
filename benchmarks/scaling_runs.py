"""Denoisers of several sizes and budgets, joint and of one kind, trained for `scaling.py`.

    PYTHONPATH=. python benchmarks/scaling_runs.py --data data/crystals.safetensors \
        data/qm9.safetensors --out runs/scaling --device cuda --processes 13

For a bare machine with a GPU: torch, numpy and safetensors are enough. Every run is that of
`adit train denoiser`, from nothing on the release's autoencoder, told the elements. Two plans:

- law: `SIZES` times `BUDGETS`, jointly, one seed.
- transfer: sizes `TRANSFER`, three seeds, jointly and each kind alone, with as many atoms of that
  kind and as many steps.

Of each run one JSON file: weights, atoms and operations of training, losses on unseen structures
with the same batches, times and noise for all, and samples whose elements are the same for all
(drawn by the release's prior) in an `.npz` beside it. Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sampling_speed import weights_per_atom
from validation_loss import validation_loss

from adit_model import ADiT
from adit_model.config import KINDS
from adit_model.data import PreparedData, SizeGroups
from adit_model.samplers import SamplingSettings
from adit_model.training.cli import architecture, parser
from adit_model.training.options import values_of
from adit_model.training.stages import initial_model
from adit_model.training.trainer import Trainer, TrainingConfig

SIZES = {"0.7M": (96, 6, 3), "2.8M": (192, 6, 3), "10M": (320, 8, 5), "32M": (512, 10, 8)}
# Million atoms of both kinds together: thousand atoms a step.
BUDGETS = {0.25: 2, 1: 4, 4: 8}
TRANSFER, TRANSFER_BUDGET, SEEDS = ("0.7M", "10M"), 4, (0, 1, 2)
OPTIONS = (
    "--condition elements --optimizer muon --learning-rate 1.5e-3 --weight-decay 0.05 "
    "--warmup-steps 50 --decay 0.5 --ema-decay 0.99 --validate-minutes 0"
)
BATCHES, SEED = 80, 3  # of the losses on unseen structures


@dataclass(frozen=True)
class Run:
    """One training: a size, a budget of atoms of both kinds, the kinds that it has, a seed."""

    size: str
    budget: float
    kinds: tuple[str, ...] = KINDS
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its files."""
        kinds = "joint" if len(self.kinds) > 1 else self.kinds[0]
        return f"{self.size}-{self.budget}M-{kinds}-{self.seed}"

    @property
    def tokens(self) -> int:
        """Atoms a step, a half for each kind."""
        return 1000 * BUDGETS[self.budget] * len(self.kinds) // len(KINDS)

    @property
    def steps(self) -> int:
        """The same with one kind as with both."""
        return round(1000 * self.budget / BUDGETS[self.budget])


def planned(plans: Sequence[str], sizes: Sequence[str], largest: float) -> list[Run]:
    """All runs, the longest first so that none is waited for at the end."""
    found = [Run(size, budget) for size in SIZES for budget in BUDGETS] if "law" in plans else []
    if "transfer" in plans:
        kinds = [KINDS, *((kind,) for kind in KINDS)]
        found += [Run(s, TRANSFER_BUDGET, k, n) for s in TRANSFER for k in kinds for n in SEEDS]
    found = [run for run in dict.fromkeys(found) if run.budget <= largest and run.size in sizes]

    def cost(run: Run) -> float:
        width, depth, _ = SIZES[run.size]
        return run.steps * (run.tokens * width**2 * depth + 1e9)

    return sorted(found, key=cost, reverse=True)


def make(run: Run, args: argparse.Namespace) -> str:
    """Train, measure, sample and write; says how it went."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    done = args.out / f"{run.name}.json"
    if done.exists():
        return f"{run.name}: there"
    data = [path for path in args.data if PreparedData.load(path).kind in run.kinds]
    start = time.perf_counter()
    trainer = trained(run, data, args)
    seconds = time.perf_counter() - start
    trainer.swap_ema()
    model = trainer.model.eval()
    row = asdict(run) | {
        "weights": sum(p.numel() for p in trainer.parameters),
        "weights_per_atom": weights_per_atom(model),
        "tokens": run.tokens,
        "steps": trainer.step,
        "seconds": round(seconds, 1),
        "hardware": _hardware(args.device),
        "losses": losses(model, data, args.device),
    }
    samples(model, run, args)
    done.write_text(json.dumps(row) + "\n")
    return f"{run.name}: {seconds:.0f} s, {row['losses']}"


def trained(run: Run, data: Sequence[Path], args: argparse.Namespace) -> Trainer:
    """What `adit train denoiser` does, without its log and its checkpoints."""
    width, depth, heads = SIZES[run.size]
    words = ["denoiser", "--data", *map(str, data), "--out", str(args.out / run.name)]
    words += OPTIONS.split()
    words += ["--width", str(width), "--depth", str(depth), "--num-heads", str(heads)]
    words += ["--tokens", str(run.tokens), "--steps", str(args.steps or run.steps)]
    words += ["--precision", args.precision, "--seed", str(run.seed)]
    parsed = parser().parse_args(words)
    config = TrainingConfig(**values_of(TrainingConfig, parsed))
    model = initial_model(config, architecture(parsed), Path(args.autoencoder), parsed.condition)
    trainer = Trainer(config, model, torch.device(args.device))
    while trainer.progress() < 1.0:
        trainer.train_step()
    return trainer


def losses(model: ADiT, data: Sequence[Path], device: str) -> dict[str, float]:
    """Of the val split, with elements told, by kind."""
    found = {}
    for path in data:
        groups = SizeGroups(PreparedData.load(path), "val", device)
        found[groups.kind] = round(validation_loss(model, groups, BATCHES, SEED, True), 5)
    return found


def samples(model: ADiT, run: Run, args: argparse.Namespace) -> None:
    """Structures of given elements, in one file."""
    arrays = {}
    for kind in run.kinds:
        elements = json.loads((args.out / f"elements-{kind}.json").read_text())
        settings = SamplingSettings(args.num_steps, precision=args.precision)
        batch = model.draw(len(elements), kind, settings, seed=1, elements=elements).batch
        for name in ("atomic_numbers", "frac_coords", "positions", "lattice", "mask"):
            values = getattr(batch, name).cpu().numpy()
            small = name in ("atomic_numbers", "mask")
            arrays[f"{kind}.{name}"] = values.astype(np.uint8 if small else np.float32)
    np.savez_compressed(args.out / f"{run.name}.npz", **arrays)


def _hardware(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"{device}, one thread"


def arguments() -> argparse.Namespace:
    """Options."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, nargs="+", required=True, help="one file of each kind")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--autoencoder", default="adit_model/weights/adit-joint")
    p.add_argument("--plans", nargs="+", default=["law", "transfer"], choices=("law", "transfer"))
    p.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    p.add_argument("--largest", type=float, default=max(BUDGETS), help="budget, million atoms")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--precision", default="bfloat16")
    p.add_argument("--num", type=int, default=300, help="samples of each kind")
    p.add_argument("--num-steps", type=int, default=50)
    p.add_argument("--processes", type=int, default=1)
    p.add_argument("--steps", type=int, help="of every run, to try the command")
    p.add_argument("--minutes", type=float, default=60.0, help="after which no other run begins")
    return p.parse_args()


def main() -> int:
    """Make what is missing."""
    args = arguments()
    kinds = sorted(PreparedData.load(path).kind for path in args.data)
    if kinds != sorted(KINDS):
        raise ValueError(f"--data must be one file of each kind ({', '.join(KINDS)}); got {kinds}")
    begun = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    release = ADiT.from_pretrained(device="cpu")
    for kind in KINDS:
        given = args.out / f"elements-{kind}.json"
        if not given.exists():
            given.write_text(json.dumps(release.draw_elements(args.num, kind, seed=77)))
    about = {"hardware": _hardware(args.device), "torch": torch.__version__, "options": OPTIONS}
    about |= {"num": args.num, "num_steps": args.num_steps, "precision": args.precision}
    about |= {"processes": args.processes}
    (args.out / "about.json").write_text(json.dumps(about))
    context = multiprocessing.get_context("spawn")
    runs = planned(args.plans, args.sizes, args.largest)
    with ProcessPoolExecutor(args.processes, context) as pool:
        work = partial(_in_time, args=args, end=time.time() + 60 * args.minutes)
        for number, said in enumerate(pool.map(work, runs), 1):
            print(f"{time.monotonic() - begun:.0f} s, {number}/{len(runs)} {said}", flush=True)
    return 0


def _in_time(run: Run, args: argparse.Namespace, end: float) -> str:
    return make(run, args) if time.time() < end else f"{run.name}: no time left"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except ValueError as error:
        raise SystemExit(f"Error: {error}") from None
