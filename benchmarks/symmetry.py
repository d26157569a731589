"""What a model that learns symmetry by augmentation makes of rotated and translated structures.

    python benchmarks/symmetry.py --num 200

The autoencoder gives structures back as they are, rotated, translated, and both. Printed for each:
how many come back (StructureMatcher; molecules within 0.1 angstrom RMSD), how many of what comes
back are valid, and how far the answer to a moved structure is from the moved answer (0 for an
equivariant network, which is the limit). The structures are the model's own samples, or unseen ones
of prepared files (`--data`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reconstruction import compare
from sample_quality import write_json

from adit_model import ADiT, AtomBatch
from adit_model.config import KINDS
from adit_model.data import PreparedData, SizeGroups, random_rotations
from adit_plugins import ADiTGenerator, Sample, from_batch, to_batch
from adit_plugins.matching.matcher import group
from adit_plugins.metrics.crystals import judge_crystal
from adit_plugins.registry import MissingExtraError
from adit_plugins.relax.results import displacement
from adit_plugins.validity.molecules import openbabel_smiles

MOVES = ("as it is", "rotated", "translated", "both")


def moved(batch: AtomBatch, move: str, seed: int) -> AtomBatch:
    """The same structures elsewhere: turned at random, shifted by up to a cell or 1 angstrom."""
    generator = torch.Generator(batch.device).manual_seed(seed)
    lattice, positions, frac = batch.lattice, batch.positions, batch.frac_coords
    periodic = batch.periodic[:, None, None]
    if move in ("translated", "both"):
        shift = torch.rand((len(batch), 1, 3), generator=generator, device=batch.device)
        frac = torch.where(periodic, (frac + shift) % 1.0, frac)
        positions = torch.where(periodic, frac @ lattice, positions + 2 * shift - 1)
    if move in ("rotated", "both"):
        rotations = random_rotations(len(batch), generator, batch.device)
        lattice, positions = lattice @ rotations, positions @ rotations
    return AtomBatch(batch.atomic_numbers, frac, positions, lattice, batch.periodic, batch.mask)


def is_valid(sample: Sample) -> bool:
    """Crystals: structure and composition; molecules: OpenBabel's bonds, largest fragment."""
    if sample.kind == "crystal":
        return bool(judge_crystal(sample)["valid"])
    return openbabel_smiles(sample.to_ase()) is not None


def distance(first: Sample, second: Sample) -> float:
    """RMS displacement in angstrom, beside rotation and drift; infinite for other elements.

    Infinite, too, where a cell is flat.
    """
    if (first.atomic_numbers != second.atomic_numbers).any():
        return float("inf")
    try:
        return displacement(first.to_ase(), second.to_ase())
    except np.linalg.LinAlgError:
        return float("inf")


def measure(model: ADiT, batches: Sequence[AtomBatch], kind: str) -> list[dict[str, Any]]:
    """A row for each move."""
    rows = []
    plain: list[Sample] = []
    for move in MOVES:
        compared: list[dict[str, Any]] = []
        answers: list[Sample] = []
        for seed, batch in enumerate(batches):
            there = moved(batch, move, seed)
            back = model.reconstruct(there)
            compared += compare(kind, there, back)
            answers += from_batch(back)
        plain = plain or answers
        gaps = [distance(a, b) for a, b in zip(plain, answers, strict=True)]
        rows.append(
            {
                "move": move,
                "structures": len(answers),
                "come_back": sum(row["match"] for row in compared),
                "types_right": sum(row["types"] for row in compared),
                "valid": _count_valid(answers),
                "median_gap_to_the_unmoved_answer": float(np.median(gaps)),
                "same_verdict_as_unmoved": None,
                "verdicts": [row["match"] for row in compared],
            }
        )
    first = rows[0]["verdicts"]
    for row in rows:
        pairs = zip(first, row.pop("verdicts"), strict=True)
        row["same_verdict_as_unmoved"] = sum(a == b for a, b in pairs)
    return rows


def _count_valid(samples: Sequence[Sample]) -> int | None:
    try:
        return sum(is_valid(sample) for sample in samples)
    except MissingExtraError:
        return None


def own_batches(checkpoint: str | None, kind: str, num: int, seed: int) -> Iterator[AtomBatch]:
    """Fresh samples, a batch for each size."""
    samples = ADiTGenerator(kind=kind, checkpoint=checkpoint, seed=seed).samples(num)  # type: ignore[arg-type]
    for places in group(sample.num_atoms for sample in samples).values():
        yield to_batch([samples[i] for i in places])


def table(checkpoint: str | None, num: int, seed: int, data: Sequence[Path]) -> dict[str, Any]:
    """The rows of each source of structures."""
    model = ADiT.from_pretrained(checkpoint)
    device = model.device
    results: dict[str, Any] = {"checkpoint": model.name, "hash": model.hash}
    for path in data:
        prepared = PreparedData.load(path)
        groups = SizeGroups(prepared, "test", device)
        plan = groups.batches(4096, max(1, num // len(groups.groups)))
        batches = [groups.batch(size, rows) for size, rows in plan]
        results[f"unseen {prepared.kind}s"] = measure(model, batches, prepared.kind)
    for kind in () if data else KINDS:
        batches = [each.to(device) for each in own_batches(checkpoint, kind, num, seed)]
        results[f"own {kind}s"] = measure(model, batches, kind)
    return results


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=200, help="structures of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="prepared files")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    write_json(table(args.checkpoint, args.num, args.seed, args.data), args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
