"""How faithfully autoencoders give back unseen structures.

    python benchmarks/reconstruction.py --data data/crystals.safetensors data/qm9.safetensors \
        --per-size 100 --json benchmarks/results/reconstruction.json

Crystals: share matched by StructureMatcher (stol 0.5, angle 10, ltol 0.3), and valid. Molecules:
all types right and within 0.05 angstrom RMSD after superposition, connected, strictly valid. The
limit in the same run: the same decoder when its latent is disturbed by Gaussian noise, in units
of the latent's deviation. The divergence from the unit Gaussian is in nats an atom.

With `--per-bin` at most so many structures of each range of sizes are drawn at random (the same
for each checkpoint), and each range is told of by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from relaxed_rows import write_json
from scipy.spatial.transform import Rotation

from adit_model import ADiT, AtomBatch
from adit_model.data import PreparedData, SizeGroups
from adit_plugins import from_batch
from adit_plugins.matching.matcher import is_match
from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid
from adit_plugins.validity.molecules import examine

MAX_RMSD = 0.05  # angstrom
BINS = ((1, 20), (21, 30), (31, 40), (41, 64))  # atoms, with both ends
Plan = Sequence[tuple[int, slice | torch.Tensor]]  # sizes, and rows of that size


def superposed_rmsd(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """RMSD (angstrom) of `[num_atoms, 3]` in the same order, after the best rigid motion."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    if len(a) == 1:
        return 0.0
    return float(Rotation.align_vectors(a, b)[1] / np.sqrt(len(a)))


def displacement(before: Structure, after: Structure) -> float:
    """RMS displacement (angstrom) of atoms of the same order, by nearest images, in a cell."""
    moved = after.frac_coords - before.frac_coords
    moved = (moved - moved.round()) @ before.lattice.matrix
    return float(np.sqrt((moved**2).sum(axis=1).mean()))


def compare(kind: str, before: AtomBatch, after: AtomBatch) -> list[dict[str, Any]]:
    """One row a structure: types right, RMSD or match."""
    rows = []
    for a, b in zip(from_batch(before), from_batch(after), strict=True):
        types = bool((a.atomic_numbers == b.atomic_numbers).all())
        row: dict[str, Any] = {"types": types, "num_atoms": a.num_atoms}
        if kind == "molecule":
            row["rmsd"] = superposed_rmsd(a.positions, b.positions)
            row["match"] = types and row["rmsd"] <= MAX_RMSD
            report, _ = examine(b.to_ase())
            row |= {"connected": report.connected, "valid": report.strict_valid}
        else:
            first, second = (cast(Structure, s.to_pymatgen()) for s in (a, b))
            row["rmsd"] = displacement(first, second)
            row["match"] = types and is_match(first, second)
            row["valid"] = is_structure_valid(second) and is_composition_valid(second.composition)
        rows.append(row)
    return rows


def drawn(groups: SizeGroups, bins: Sequence[tuple[int, int]], num: int) -> Plan:
    """At most so many structures of each range of sizes, at random, in batches of one size."""
    rng = np.random.default_rng(0)
    plan: list[tuple[int, slice | torch.Tensor]] = []
    for low, high in bins:
        sizes = [size for size in sorted(groups.groups) if low <= size <= high]
        every = [(size, row) for size in sizes for row in range(groups.number(size))]
        places = rng.permutation(len(every))[:num]
        chosen = [every[place] for place in places]
        for size in sizes:
            rows = sorted(row for n, row in chosen if n == size)
            if rows:
                plan.append((size, torch.tensor(rows)))
    return plan


def reconstruct(
    model: ADiT, groups: SizeGroups, kind: str, noise: float, plan: Plan
) -> list[dict[str, Any]]:
    """Rows for the planned batches, with noise on the standardised latent."""
    generator = torch.Generator(model.device).manual_seed(0)
    rows: list[dict[str, Any]] = []
    for size, chosen in plan:
        batch = groups.batch(size, chosen)
        latent = model.encode(batch)[0]
        disturbance = torch.randn(latent.shape, generator=generator, device=latent.device)
        latent = latent + noise * model.latent_std * disturbance
        rows += compare(kind, batch, model.decode(latent, batch))
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates with their counts."""
    result: dict[str, Any] = {"structures": len(rows), "match": sum(r["match"] for r in rows)}
    names = {"match": "match_rate", "types": "all_types_right", "valid": "valid_rate"}
    if "connected" in rows[0]:
        names["connected"] = "connected_rate"
    for name, rate in names.items():
        result[rate] = round(sum(r[name] for r in rows) / len(rows), 4)
    if "rmsd" in rows[0]:
        result["median_rmsd"] = round(float(np.median([r["rmsd"] for r in rows])), 4)
    return result


def by_size(
    rows: list[dict[str, Any]], bins: Sequence[tuple[int, int]]
) -> dict[str, dict[str, Any]]:
    """A summary of each range of sizes that has structures."""
    parts = {
        f"{low}-{high}": [row for row in rows if low <= row["num_atoms"] <= high]
        for low, high in bins
    }
    return {name: summary(part) for name, part in parts.items() if part}


def divergence(model: ADiT, groups: SizeGroups, plan: Plan) -> float:
    """Mean KL divergence of an atom's latent from the unit Gaussian, nats."""
    total, atoms = 0.0, 0
    for size, chosen in plan:
        mean, std = model.encode(groups.batch(size, chosen))
        kl = 0.5 * (mean**2 + std**2 - 1) - std.log()
        total += float(kl.sum())
        atoms += mean.shape[0] * mean.shape[1]
    return round(total / atoms, 2)


def measured(model: ADiT, args: argparse.Namespace) -> dict[str, Any]:
    """What one checkpoint gives back of each data set."""
    results: dict[str, Any] = {"checkpoint": model.name, "hash": model.hash, "split": args.split}
    for path in args.data:
        data = PreparedData.load(path)
        groups = SizeGroups(data, args.split, model.device)
        plan: Plan = groups.batches(4096, args.per_size)
        if args.per_bin:
            plan = drawn(groups, BINS, args.per_bin)
        found: dict[str, Any] = {"kl_nats_an_atom": divergence(model, groups, plan)}
        for noise in args.noise:
            rows = reconstruct(model, groups, data.kind, noise, plan)
            parts = {"atoms": by_size(rows, BINS)} if args.per_bin else {}
            found[f"noise {noise}"] = summary(rows) | parts
        alike = sum(each.stem == path.stem for each in args.data) > 1
        name = f"{path.parent.name}/{path.stem}" if alike else path.stem
        results[name] = {"kind": data.kind, **found}
    return results


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--checkpoint", nargs="+", default=[None], help="the release by default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.05, 0.1, 0.2])
    parser.add_argument("--per-size", type=int, help="most structures of each size")
    parser.add_argument("--per-bin", type=int, help="most structures of each range of sizes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    every = [measured(ADiT.from_pretrained(name), args) for name in args.checkpoint]
    write_json(every[0] if len(every) == 1 else {"checkpoints": every}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
