"""The denoiser's loss on unseen structures, with equal times and noise for each checkpoint.

    python benchmarks/validation_loss.py adit-joint runs/denoiser/model \
        --data data/crystals.safetensors data/qm9.safetensors

Training losses are too noisy to tell two checkpoints apart; this one has the same random numbers
each time. The limit in the same run is the loss of a checkpoint that is known. Only checkpoints
that share an autoencoder can be compared: the loss is in units of its latents. Networks that can be
told the elements are asked with and without (at their rate of withholding).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from json_output import write_json

from adit_model import ADiT
from adit_model.data import PreparedData, SizeGroups
from adit_model.flow import flow_loss
from adit_model.precision import faster_precision
from adit_model.training.trainer import draw_latent

TOKENS = 1200  # atoms a batch


@torch.no_grad()
def validation_loss(model: ADiT, groups: SizeGroups, batches: int, seed: int, told: bool) -> float:
    """Mean flow-matching loss of batches that are drawn evenly over the sizes."""
    if model.denoiser is None:
        raise ValueError(f"{model.name!r} holds no denoiser")
    generator = torch.Generator(model.device).manual_seed(seed)
    conditions = model.denoiser.config.conditions[: 2 if told else 1]
    lower = faster_precision(model.device) == "bfloat16"
    total = 0.0
    for place in range(batches):
        size, rows = groups.choose(TOKENS, generator, (place + 0.5) / batches)
        latent = draw_latent(model, groups.batch(size, rows), generator, groups.kind == "crystal")
        labels = groups.labels(size, rows, conditions)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=lower):
            loss, _ = flow_loss(
                model.denoiser, latent, labels, model.config.flow, generator, place % 2 == 0
            )
        total += float(loss)
    return total / batches


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=40, help="of each data set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in args.checkpoints:
        model = ADiT.from_pretrained(name)
        row: dict[str, Any] = {"checkpoint": name, "hash": model.hash}
        for path in args.data:
            groups = SizeGroups(PreparedData.load(path), args.split, model.device)
            for told in (False, True):
                loss = validation_loss(model, groups, args.batches, args.seed, told)
                row[groups.kind + (", elements told" if told else "")] = round(loss, 4)
        rows.append(row)
    write_json({"split": args.split, "seed": args.seed, "rows": rows}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
