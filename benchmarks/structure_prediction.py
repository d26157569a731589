"""Structure prediction: of held-out crystals, told their elements, how many samples match.

    python benchmarks/structure_prediction.py --data data/crystals.safetensors --num 9000 \\
        --samples 1 --json FILE

The `test` split of the prepared data is taken, a random choice of it by the seed. StructureMatcher
with stol 0.5, angle_tol 10, ltol 0.3, and the root mean square displacement of those that match in
units of (volume / atom)^(1/3): the protocol of CDVAE, DiffCSP and FlowMM on MP-20, whose published
figures are beside. A crystal counts as found if any of its samples matches.

METRe (arXiv 2509.12178) compares every crystal with all samples of its formula, those made for a
polymorph of it too; cRMSE counts what nothing matches as a displacement of stol.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pymatgen.core import Structure
from relaxed_rows import write_json

from adit_model import ADiT
from adit_model.data import PreparedData, SizeGroups
from adit_model.samplers import SamplingSettings
from adit_plugins.matching.matcher import STOL, rms_distance
from adit_plugins.structures.samples import from_batch

# Match rate (%) and RMSE of one sample a crystal on the whole MP-20 test split.
PUBLISHED = {
    "CDVAE (arXiv 2110.06197, by DiffCSP's authors)": (33.90, 0.1045),
    "DiffCSP (arXiv 2309.04475)": (51.49, 0.0631),
    "FlowMM (arXiv 2406.04713)": (61.39, 0.0566),
}
BANDS = ((1, 4), (5, 8), (9, 12), (13, 20))


def held_out(
    data: PreparedData, num: int, seed: int, max_atoms: int | None = None
) -> dict[int, Structure]:
    """A random choice of the test split by place in it, in the order of the draw.

    So the first of many are a random choice, too.
    """
    groups = SizeGroups(data, "test", "cpu")
    places = [(size, row) for size, group in groups.groups.items() for row in range(len(group[0]))]
    fitting = [i for i, (size, _) in enumerate(places) if max_atoms is None or size <= max_atoms]
    found = {}
    for place in np.random.default_rng(seed).permutation(fitting)[:num].tolist():
        size, row = places[place]
        (sample,) = from_batch(groups.batch(size, slice(row, row + 1)))
        found[place] = cast(Structure, sample.to_pymatgen())
    return found


def predicted(
    model: ADiT, truth: list[Structure], samples: int, args: argparse.Namespace
) -> list[list[Structure]]:
    """Samples of each crystal's own elements."""
    elements = [sorted(each.atomic_numbers) for each in truth for _ in range(samples)]
    settings = SamplingSettings(args.num_steps, precision=args.precision)
    batch = model.draw(len(elements), "crystal", settings, seed=args.seed, elements=elements).batch
    made = [cast(Structure, sample.to_pymatgen()) for sample in from_batch(batch)]
    return [made[i : i + samples] for i in range(0, len(made), samples)]


def nearest(crystal: Structure, made: Iterable[Structure]) -> float | None:
    """The least displacement of a crystal from samples; None where none matches."""
    found = (rms_distance(crystal, each) for each in made)
    return min((rms for rms in found if rms is not None), default=None)


def compared(truth: list[Structure], made: list[list[Structure]]) -> list[dict[str, Any]]:
    """Displacements of each crystal from its own samples, and from all of its formula."""
    formulas = [each.composition.reduced_formula for each in truth]
    rows = []
    for place, crystal in enumerate(truth):
        own = nearest(crystal, made[place])
        alike = (i for i, formula in enumerate(formulas) if formula == formulas[place])
        others = nearest(crystal, (each for i in alike if i != place for each in made[i]))
        every = [rms for rms in (own, others) if rms is not None]
        row = {"num_atoms": len(crystal), "rms": own, "metre": min(every, default=None)}
        rows.append(row)
    return rows


def by_size(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """All rows, and those of each band of sizes."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found["all"].append(row)
        low, high = next(band for band in BANDS if band[0] <= row["num_atoms"] <= band[1])
        found[f"{low}-{high} atoms"].append(row)
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Match rate and mean displacement, of all and by size."""
    return {
        name: {
            "crystals": len(part),
            "matched": sum(r["rms"] is not None for r in part),
            "match_rate": round(sum(r["rms"] is not None for r in part) / len(part), 4),
            "mean_rms": round(float(np.mean([r["rms"] for r in part if r["rms"] is not None])), 4)
            if any(r["rms"] is not None for r in part)
            else None,
            "metre": round(sum(r["metre"] is not None for r in part) / len(part), 4),
            "crmse": round(
                float(np.mean([STOL if r["metre"] is None else r["metre"] for r in part])), 4
            ),
        }
        for name, part in by_size(rows).items()
    }


def main() -> None:
    """Sample, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", default="adit-joint")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1, help="of each crystal")
    parser.add_argument("--num-steps", type=int, help="default: the checkpoint's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = ADiT.from_pretrained(args.checkpoint, device="cpu")
    data = PreparedData.load(args.data)
    if data.kind != "crystal":
        parser.error(f"--data {args.data} holds {data.kind}s; prepare crystals")
    args.num_steps = args.num_steps or model.config.sampling_of("crystal").num_steps
    chosen = held_out(data, args.num, args.seed)
    truth = [chosen[place] for place in sorted(chosen)]
    start = time.process_time()
    made = predicted(model, truth, args.samples, args)
    seconds = time.process_time() - start
    result = {
        "checkpoint": model.name,
        "hash": model.hash,
        "seed": args.seed,
        "samples_a_crystal": args.samples,
        "num_steps": args.num_steps,
        "precision": args.precision,
        "hardware": f"{platform.machine()} CPU, {args.threads} thread",
        "cpu_milliseconds_a_sample": round(1000 * seconds / (len(truth) * args.samples), 1),
        "results": summary(compared(truth, made)),
    }
    if args.samples == 1:
        result["published_match_rate_percent_and_rms"] = PUBLISHED
    write_json(result, args.json)


if __name__ == "__main__":
    main()
