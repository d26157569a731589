"""Structures a second by kind, batch size and steps, and how much of the work was padding.

    python benchmarks/sampling_speed.py

The limit in the same run: the machine's own rate of matrix products, measured just before, from
which follows the share of the hardware that sampling uses. Beside it stands the share of padding
that batches of mixed sizes, padded to their largest, would have had on the same samples.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from typing import Any

import torch

from adit_model import ADiT
from adit_model.config import KINDS


def matmul_rate(
    device: torch.device, width: int = 1024, dtype: torch.dtype = torch.float32
) -> float:
    """Best of several products of `[width, width]` matrices, in FLOP a second."""
    a = torch.randn(width, width, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * width**3 / best


def weights_per_atom(model: ADiT) -> int:
    """Matrix weights that every atom passes in one denoiser call."""
    assert model.denoiser is not None
    modulation = ("adaLN_modulation", "t_embedder", "condition_embedders")
    return sum(
        p.numel()
        for name, p in model.denoiser.named_parameters()
        if p.dim() == 2 and not any(part in name for part in modulation)
    )


def padding_if_mixed(sizes: list[int], batch_size: int) -> float:
    """Share of padded places when samples are batched in order, whatever their size."""
    places = sum(
        len(chunk) * max(chunk)
        for chunk in (sizes[i : i + batch_size] for i in range(0, len(sizes), batch_size))
    )
    return 1.0 - sum(sizes) / places


def measure(model: ADiT, kind: str, batch_size: int, num_steps: int, num: int) -> dict[str, Any]:
    """One row: time of `num` samples in batches of equal size."""
    model.sample(min(num, 8), kind=kind, num_steps=2)  # warm up
    assert model.denoiser is not None
    places: list[int] = []  # atoms that the denoiser was given in each call, padding included
    hook = model.denoiser.register_forward_pre_hook(
        lambda _, inputs: places.append(inputs[0].shape[0] * inputs[0].shape[1])
    )
    start = time.perf_counter()
    batch = model.sample(num, kind=kind, num_steps=num_steps, batch_size=batch_size)
    seconds = time.perf_counter() - start
    hook.remove()
    atoms = int(batch.num_atoms.sum())
    sizes = batch.num_atoms.tolist()
    flop = 2 * weights_per_atom(model) * atoms * num_steps * 2  # guidance runs two labels
    return {
        "kind": kind,
        "batch_size": batch_size,
        "num_steps": num_steps,
        "structures": num,
        "structures_per_second": round(num / seconds, 2),
        "atoms_per_second": round(atoms / seconds, 1),
        "padding": round(1.0 - 2 * num_steps * atoms / sum(places), 3),
        "padding_if_sizes_were_mixed": round(padding_if_mixed(sizes, batch_size), 3),
        "gflop_per_second": round(flop / seconds / 1e9, 1),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint")
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--num-steps", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--device")
    args = parser.parse_args()
    model = ADiT.from_pretrained(args.checkpoint, device=args.device)
    limit = matmul_rate(model.device)
    rows = []
    for kind in KINDS:
        for num_steps in args.num_steps:
            for batch_size in args.batch_size:
                num = min(args.num, 16 * batch_size)
                row = measure(model, kind, batch_size, num_steps, num)
                row["share_of_matmul_rate"] = round(row["gflop_per_second"] * 1e9 / limit, 3)
                rows.append(row)
    gpu = torch.cuda.get_device_name() if model.device.type == "cuda" else ""
    json.dump(
        {
            "checkpoint": model.name,
            "hash": model.hash,
            "hardware": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
            "matmul_gflop_per_second": round(limit / 1e9, 1),
            "rows": rows,
        },
        sys.stdout,
        indent=2,
    )
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
