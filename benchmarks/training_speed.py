"""Atoms a second of a training step, by size and precision, beside the machine's own matmul rate.

    adit data prepare qm9 mp20 --out data
    python benchmarks/training_speed.py --data data/mp20.safetensors data/qm9.safetensors \\
        --sizes release S --json FILE
    python benchmarks/training_speed.py --data data/mp20.safetensors data/qm9.safetensors \\
        --sizes L --modulation block --precisions bfloat16 --warmup 1 --steps 1 --seconds 0 \\
        --json FILE

The limit in the same run is the best rate of a plain matrix product in the same precision; model
FLOP utilisation is the share of it that the network's own products reach, counted as 6 FLOP a
weight and atom (forward and backward) plus the attention's. Padding is 0 by construction: batches
hold structures of one size; the share that mixed batches would have is stated beside. A size is a
name, or width x depth x heads; the published ones have `--modulation block`. The sampling step is
of `SAMPLED` crystals without guidance; the peak of memory is of the process,
so that it tells of the largest size alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sampling_speed import matmul_rate, padding_if_mixed, weights_per_atom

from adit_model import ADiT
from adit_model.config import SIZES
from adit_model.samplers import SamplingSettings
from adit_model.training.cli import architecture, parser
from adit_model.training.options import values_of
from adit_model.training.trainer import Trainer, TrainingConfig
from adit_model.training.utilisation import SIDE

SAMPLED, SAMPLED_ATOMS, SAMPLED_STEPS = 16, 20, 3


def trainer(size: str, precision: Any, options: argparse.Namespace, out: str) -> Trainer:
    """A denoiser run of a size on the release's autoencoder architecture."""
    arguments = ["denoiser", "--data", *options.data, "--out", out, "--steps", "1000"]
    arguments += ["--tokens", str(options.tokens), "--precision", precision]
    arguments += ["--compile"] if options.compile else []
    arguments += ["--modulation", options.modulation] if options.modulation else []
    if "x" in size:
        names = ("--width", "--depth", "--num-heads")
        arguments += [w for pair in zip(names, size.split("x"), strict=True) for w in pair]
    elif size != "release":
        arguments += ["--size", size]
    parsed = parser().parse_args(arguments)
    config = TrainingConfig(**values_of(TrainingConfig, parsed))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Trainer(config, ADiT(architecture(parsed)), device)


def measure(size: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    with tempfile.TemporaryDirectory() as out:
        run = trainer(size, precision, options, out)
    for _ in range(options.warmup):
        run.train_step()
    _wait(run.device)
    start, steps = time.perf_counter(), 0
    while steps < options.steps or time.perf_counter() - start < options.seconds:
        run.train_step()
        steps += 1
    _wait(run.device)
    atoms = steps * sum(run.tokens) / (time.perf_counter() - start)
    sampling = sampling_step(run.model.eval(), run.precision)
    dtype = torch.bfloat16 if run.precision == "bfloat16" else torch.float32
    limit = matmul_rate(run.device, SIDE[run.device.type], dtype)
    # Half of the steps make a first guess without gradients (self-conditioning): 2 FLOP of 6 more.
    flop = weights_per_atom(run.model) * (6 + 0.5 * 2)
    sizes = [int(n) for data in run.data for n in data.num_atoms[:2000]]
    return {
        "size": size,
        "precision": run.precision,
        "parameters_million": round(sum(p.numel() for p in run.parameters) / 1e6, 1),
        "atoms_per_second": round(atoms),
        "steps_per_second": round(atoms / sum(run.tokens), 3),
        "matmul_gflop_per_second": round(limit / 1e9, 1),
        "seconds_a_sampling_step": round(sampling, 3),
        "model_flop_utilisation": round(atoms * flop / limit, 3),
        "padding_if_mixed_64": round(padding_if_mixed(sizes, 64), 3),
        "peak_gpu_memory_megabytes": (
            torch.cuda.max_memory_allocated() // 2**20 if run.device.type == "cuda" else None
        ),
        "peak_memory_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10,
    }


def sampling_step(model: ADiT, precision: str) -> float:
    """Seconds a step of `SAMPLED` crystals, the decoder's share in it."""
    settings = SamplingSettings(SAMPLED_STEPS, precision=precision)
    seconds = []
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        model.draw(SAMPLED, "crystal", settings, num_atoms=SAMPLED_ATOMS)
        _wait(model.device)
        seconds.append(time.perf_counter() - start)
    return seconds[-1] / SAMPLED_STEPS


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure each size in each precision and print JSON."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", nargs="+", required=True)
    p.add_argument("--sizes", nargs="+", default=["release", "S"])
    p.add_argument("--precisions", nargs="+", default=["auto"])
    p.add_argument("--tokens", type=int, default=1536)
    p.add_argument("--seconds", type=float, default=20.0, help="of steps at least")
    p.add_argument("--steps", type=int, default=3, help="at least")
    p.add_argument("--warmup", type=int, default=3, help="steps before")
    p.add_argument("--modulation", help="of the denoiser; default: the release's")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--json", type=Path)
    options = p.parse_args()
    for size in options.sizes:
        if size not in ("release", *SIZES) and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2}", size):
            known = ", ".join(("release", *SIZES))
            p.error(f"no size {size!r}; known are {known}, and WIDTHxDEPTHxHEADS such as 96x2x3")
    rows = [measure(size, kind, options) for size in options.sizes for kind in options.precisions]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    result = {
        "tokens_per_step": options.tokens,
        "machine": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "rows": rows,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
