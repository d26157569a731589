"""Transformers against equivariant diffusion: ADiT and EDM on QM9, for the same minutes.

    PYTHONPATH=. python benchmarks/equivariant_diffusion.py train --data data/qm9.safetensors \\
        --out runs/edm --minutes 1.5 --num 1000 --device cuda
    python benchmarks/equivariant_diffusion.py score runs/edm \\
        --json benchmarks/results/equivariant_diffusion.json

The first line is for a bare machine with a GPU: torch, numpy and safetensors are enough. It trains
two networks from nothing on one device, one after the other, and draws samples of both:

- `edm`: the E(n)-equivariant network of EDM in its published size with its diffusion of positions
  and elements (`edm_diffusion.py`). EDM trains 3,000 epochs in batches of 64 at a constant 1e-4;
  for minutes batches are larger (8,192 atoms), the learning rate is higher (1e-3), rises over
  `--warmup-steps` and falls over the last 35 %, as ADiT's does. float32 with TF32 matrix products
  on a GPU: bf16 would round the squared distances that the network lives on.
- `adit`: a denoiser in the size and with the options of this release, molecules alone, told
  nothing, so that it makes elements and geometry at once, as EDM does. bf16 on a GPU.

What is not equal: ADiT's denoiser works in the latents of an autoencoder that was there before, the
release's, trained on crystals and these molecules (0.9 minutes of an H200, some on a CPU before and
9 minutes of its decoder on a core after; in the result under `autoencoder`). Those minutes come on
top of ADiT's.

The minutes begin after data are loaded and a first gradient is made, for both. Sampling is timed
after a first small call, in float32 (TF32 products on a GPU) for both: EDM takes its own 1,000
steps, ADiT its 50. `--seed` names all random numbers; how many training steps the minutes hold is
up to the clock.

Of the validities only the strict one asks for a whole molecule. The other two take fragments, even
single atoms, for valid: networks that have learned next to nothing reach half.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edm_diffusion import ELEMENTS, Steps, polynomial_schedule
from edm_training import FALLS, Molecules, Training, made, sample_edm, wait

import adit_model
from adit_model import ADiT
from adit_model.data import PreparedData
from adit_model.outputs import replacing, said
from adit_model.samplers import SamplingSettings

AUTOENCODER = Path(adit_model.__file__).parent / "weights" / "adit-joint"
NETWORKS = ("edm", "adit")
ADIT_STEPS = 50
SHOWN = (
    "valid (OpenBabel)", "unique (OpenBabel)", "novel (OpenBabel)", "valid (strict)", "valid (EDM)",
    "molecules stable (EDM)", "atoms stable (EDM)", "connected",
)  # fmt: skip


def molecules_of(path: Path) -> PreparedData:
    """The data set.

    Raises:
        ValueError: it is none of molecules of H, C, N, O and F.
    """
    data = PreparedData.load(path)
    need = "This needs molecules of H, C, N, O and F: `adit data prepare qm9 --out data`."
    if data.kind != "molecule":
        raise ValueError(f"{path} holds {data.kind}s. {need}")
    strange = sorted(set(data.atomic_numbers.unique().tolist()) - set(ELEMENTS))
    if strange:
        raise ValueError(f"{path} holds atomic numbers {strange}. {need}")
    return data


def edm(data: PreparedData, args: argparse.Namespace) -> tuple[Molecules, dict[str, Any]]:
    """Train, then sample."""
    training = Training(data, args)
    generator = torch.Generator(training.device).manual_seed(0)
    training.model.sample(2, 5, 2, generator, args.eager)  # whether it can, before the minutes
    result = training.run()
    start = time.perf_counter()
    molecules = sample_edm(training.model.eval(), data.size_histogram(), args)
    wait(training.device)
    seconds = time.perf_counter() - start
    return molecules, result | {"num_steps": args.num_steps, "seconds_to_sample": round(seconds, 2)}


def adit(data: PreparedData, args: argparse.Namespace) -> tuple[Molecules, dict[str, Any]]:
    """Train by the project's own command, then sample."""
    device, run = torch.device(args.device), args.out / "adit-run"
    options = ["--optimizer", "muon", "--learning-rate", "1.5e-3", "--weight-decay", "0.05"]
    options += ["--warmup-steps", str(args.warmup_steps), "--decay", str(FALLS)]
    options += ["--ema-decay", str(args.ema_decay), "--tokens", str(args.adit_tokens)]
    options += ["--draws", str(args.draws), "--seed", str(args.seed)]
    options += ["--precision", "bfloat16" if device.type == "cuda" else "auto"]
    places = ["--autoencoder", AUTOENCODER, "--data", args.data, "--out", run]
    fixed = ["--device", args.device, "--minutes", args.minutes, "--validate-minutes", 0]
    command = ["denoiser", *places, *fixed, *options]
    subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-m", "adit_model.training", *map(str, command)], check=True
    )
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [[row["step"], row["molecule_loss"]] for row in rows]
    model = ADiT.from_pretrained(run / "model", device=device)
    assert model.denoiser is not None
    steps, seconds = int(rows[-1]["step"]), 60 * rows[-1]["minutes"]
    result = made(model.denoiser, steps, steps * args.adit_tokens, seconds, losses, device)
    described = json.loads((AUTOENCODER / "config.json").read_text(encoding="utf-8"))
    settings = SamplingSettings(ADIT_STEPS)
    model.draw(2, "molecule", SamplingSettings(2), seed=1)
    start = time.perf_counter()
    batch = model.draw(args.num, "molecule", settings, seed=args.seed).batch.to("cpu")
    seconds = time.perf_counter() - start
    molecules = [
        (numbers[mask], positions[mask])
        for numbers, positions, mask in zip(
            batch.atomic_numbers, batch.positions, batch.mask, strict=True
        )
    ]
    return molecules, result | {
        "precision": "bfloat16" if device.type == "cuda" else "float32 or bfloat16, the faster",
        "settings": " ".join(options),
        "autoencoder": described["provenance"]["autoencoder"],
        "num_steps": ADIT_STEPS,
        "seconds_to_sample": round(seconds, 2),
    }


def write(
    name: str, molecules: Molecules, result: dict[str, Any], args: argparse.Namespace
) -> None:
    """DIR/NAME.npz and, once that is there, DIR/NAME.json."""
    arrays = {
        "num_atoms": np.array([len(numbers) for numbers, _ in molecules]),
        "atomic_numbers": torch.cat([numbers.cpu() for numbers, _ in molecules]).numpy(),
        "positions": torch.cat([positions.float().cpu() for _, positions in molecules]).numpy(),
    }
    with replacing(args.out / f"{name}.npz") as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    result = {"network": name, "minutes": args.minutes, "seed": args.seed, "num": args.num} | result
    with replacing(args.out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def train(args: argparse.Namespace) -> int:
    """Train and sample the networks."""
    if (args.out / "adit-run").exists() and "adit" in args.networks:
        raise ValueError(f"{args.out} holds a run: choose another --out")
    for name in ("minutes", "num", "learning_rate", "warmup_steps", "draws"):
        if not getattr(args, name) > 0:
            told = name.replace("_", "-")
            raise ValueError(f"--{told} must be more than 0; got {getattr(args, name)}")
    Steps.of(polynomial_schedule(), args.num_steps)  # whether there can be so many
    data = molecules_of(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    on_gpu = torch.device(args.device).type == "cuda"
    args.tokens = args.tokens or (8192 if on_gpu else 1024)
    args.adit_tokens = args.adit_tokens or (24576 if on_gpu else 1024)
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    for name in args.networks:
        molecules, result = {"edm": edm, "adit": adit}[name](data, args)
        write(name, molecules, result, args)
        if on_gpu:
            torch.cuda.empty_cache()
    return 0


def judged(folder: Path, name: str, workers: int | None) -> dict[str, Any]:
    """How a network was made, with the metrics of its samples.

    Raises:
        ValueError: it was not trained in this folder.
    """
    from ase import Atoms
    from sample_quality import figures

    from adit_plugins.metrics.molecules import evaluate_molecules

    if not (folder / f"{name}.json").is_file():
        raise ValueError(f"no {name}.json in {folder}: make it with `train --out {folder}`")
    result = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as arrays:
        ends = arrays["num_atoms"].cumsum()[:-1]
        numbers = np.split(arrays["atomic_numbers"], ends)
        positions = np.split(arrays["positions"].astype(float), ends)
    molecules = [
        Atoms(n, x) if np.isfinite(x).all() else None
        for n, x in zip(numbers, positions, strict=True)
    ]
    metrics = evaluate_molecules(molecules, fast=True, workers=workers)
    return result | figures(metrics)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Networks side by side, rates with their counts, in markdown."""
    facts = {
        "weights, million": "parameters_million",
        "training, s": "seconds",
        "training steps": "steps",
        "ms a training step": "ms_a_step",
        "atoms seen": "atoms_seen",
        "sampling steps": "num_steps",
        "s for all samples": "seconds_to_sample",
    }
    rows = [["", *results], ["---"] * (1 + len(results))]
    rows += [[told, *(f"{r[key]:,}" for r in results.values())] for told, key in facts.items()]
    for name in SHOWN:
        cells = []
        for result in results.values():
            (rate,) = (each for each in result["rates"] if each["name"] == name)
            top, of = rate["numerator"], rate["denominator"]
            cells.append(f"{100 * top / of:.1f} % ({top}/{of})" if of else "-")
        rows.append([name, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def score(args: argparse.Namespace) -> int:
    """Print the table, write the JSON."""
    results = {name: judged(args.folder, name, args.workers) for name in args.networks}
    print(table(results))
    if args.json is not None:
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def arguments() -> argparse.Namespace:
    """Of either part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    first = parts.add_parser("train", help="train and sample; torch is enough")
    first.set_defaults(run=train)
    first.add_argument("--data", type=Path, required=True, help="of `adit data prepare qm9`")
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--minutes", type=float, default=1.5, help="of training, each")
    first.add_argument("--num", type=int, default=1000, help="samples of each")
    first.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    first.add_argument("--seed", type=int, default=0)
    first.add_argument("--num-steps", type=int, default=1000, help="of EDM's sampling")
    first.add_argument("--tokens", type=int, help="atoms a step of EDM [1024; on a GPU 8192]")
    first.add_argument("--adit-tokens", type=int, help="of ADiT [1024; on a GPU 24576]")
    first.add_argument("--draws", type=int, default=2, help="batches of one size in a step")
    first.add_argument("--learning-rate", type=float, default=1e-3, help="EDM's")
    first.add_argument("--warmup-steps", type=int, default=300)
    first.add_argument("--ema-decay", type=float, default=0.999)
    first.add_argument("--width", type=int, default=256, help="of EDM's network")
    first.add_argument("--depth", type=int, default=9, help="of EDM's network")
    first.add_argument("--eager", action="store_true", help="no recorded kernels in EDM's sampling")
    second = parts.add_parser("score", help="the metrics; needs all of this project")
    second.set_defaults(run=score)
    second.add_argument("folder", type=Path, metavar="DIR")
    second.add_argument("--json", type=Path)
    second.add_argument("--workers", type=int)
    for part in (first, second):
        part.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    return parser.parse_args()


def main() -> int:
    """Do the part; a mistake is one line."""
    args = arguments()
    try:
        status: int = args.run(args)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"Error: {said(error)}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
