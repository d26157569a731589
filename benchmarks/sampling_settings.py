"""What steps and guidance buy and cost: validity and seconds at each setting, from equal noise.

    python benchmarks/sampling_settings.py --num 200 --seed 77 --kind crystal \
        --settings 50:1 25:2.5 50:2.5 100:2.5 50:3 --json FILE
    python benchmarks/sampling_settings.py --num 1000 --threads 1 \
        --sampler ancestral euler heun --settings 10 15 20 30 50 --json FILE

A setting is a number of steps, a guidance scale (the checkpoint's own where it is left out) and
changes of the checkpoint's own settings (`adit_model.sampling.KindSampling`) as JSON:
`50:1:{"fresh_noise": [[1, 0.8]]}`. Each step rule (`--sampler`) runs at each of them. CPU time of
one thread is what a sample costs whatever else the machine does. The release's
defaults are chosen from the rows. Use a seed that no reported figure uses. The limit in the same
run is the first row, without guidance. Several checkpoints (`--checkpoint`) have rows each, with
their size and what they have seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from pymatgen.core import Structure
from relaxed_rows import write_json
from sample_quality import make_samples

from adit_model import ADiT
from adit_model.config import KINDS
from adit_plugins import ADiTGenerator, Sample
from adit_plugins.generation.recipe import last_change, load_model
from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid
from adit_plugins.validity.molecules import examine, openbabel_smiles


def crystal_counts(samples: list[Sample]) -> dict[str, int]:
    """How many are valid by the published rules, and how many formulas there are."""
    structures = [cast(Structure, sample.to_pymatgen()) for sample in samples]
    structural = [is_structure_valid(structure) for structure in structures]
    composition = [is_composition_valid(structure.composition) for structure in structures]
    return {
        "struct_valid": sum(structural),
        "comp_valid": sum(composition),
        "valid": sum(a and b for a, b in zip(structural, composition, strict=True)),
        "formulas": len({structure.composition.reduced_formula for structure in structures}),
    }


def molecule_counts(samples: list[Sample]) -> dict[str, int]:
    """How many are valid by the published and by the strict rule, and how many differ."""
    reports = [examine(sample.to_ase())[0] for sample in samples]
    smiles = [openbabel_smiles(sample.to_ase()) for sample in samples]
    return {
        "valid_openbabel": sum(each is not None for each in smiles),
        "unique_openbabel": len(set(smiles) - {None}),
        "connected": sum(report.connected for report in reports),
        "valid_strict": sum(report.strict_valid for report in reports),
    }


def setting(text: str) -> tuple[int, float | None, dict[str, Any]]:
    """`STEPS[:GUIDANCE[:JSON]]`, such as `50`, `50:1.3` or `50:1:{"times": 1.5}`."""
    steps, scale, other = (*text.split(":", 2), "", "")[:3]
    return int(steps), float(scale) if scale else None, json.loads(other) if other else {}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for a reader: what was set, what was counted, what it cost."""
    hidden = ("hash", "parameters", "training", "sampling", "seconds")
    lines: list[str] = []
    head: list[str] = []
    for row in rows:
        shown = {name: value for name, value in row.items() if name not in hidden}
        if head != list(shown):
            head = list(shown)
            lines.append("  ".join(head))
        lines.append("  ".join(f"{value!s:>{len(name)}}" for name, value in shown.items()))
    return "\n".join(lines)


def tune(checkpoint: str | None, kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Change how a checkpoint samples a kind in this process; returns all of its settings."""
    model = load_model(checkpoint, None, last_change(checkpoint))
    own = dataclasses.replace(ADiT.from_pretrained(checkpoint).config.sampling_of(kind), **changes)
    model.config = dataclasses.replace(model.config, sampling=model.config.sampling | {kind: own})
    return dataclasses.asdict(own)


def described(checkpoint: str | None) -> dict[str, Any]:
    """Name, checksum, parameters of the denoiser and the atoms that its training has seen."""
    model = ADiT.from_pretrained(checkpoint)
    assert model.denoiser is not None
    return {
        "checkpoint": model.name,
        "hash": model.hash,
        "parameters": sum(p.numel() for p in model.denoiser.parameters()),
        "training": model.config.provenance.get("denoiser"),
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=200, help="samples a row")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument(
        "--settings",
        type=setting,
        nargs="+",
        default=[(50, 1.0, {})],
        metavar="STEPS[:GUIDANCE[:JSON]]",
    )
    parser.add_argument("--sampler", nargs="+", default=[ADiTGenerator.sampler])
    parser.add_argument("--precision", default=ADiTGenerator.precision)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--checkpoint", nargs="+", default=[None], metavar="NAME_OR_FOLDER")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for checkpoint, kind, sampler, (steps, scale, changes) in product(
        args.checkpoint, args.kind, args.sampler, args.settings
    ):
        sampling = tune(checkpoint, kind, changes)
        settings = {"num_steps": steps, "guidance_scale": scale, "sampler": sampler}
        recipe = settings | {"seed": args.seed, "precision": args.precision}
        samples, made = make_samples(kind, args.num, checkpoint, recipe)
        counts = crystal_counts(samples) if kind == "crystal" else molecule_counts(samples)
        row = described(checkpoint) | {
            "kind": kind,
            **settings,
            "guidance_scale": samples[0].provenance["guidance_scale"],
            "precision": made["settings"]["precision"],
            "sampling": sampling,
            "samples": args.num,
            **counts,
            "seconds": made["seconds_to_sample"],
            "cpu_ms_per_sample": round(1e3 * made["cpu_seconds_to_sample"] / args.num, 1),
        }
        rows.append(row)
        print(table(rows[-1:]), file=sys.stderr, flush=True)
    print(table(rows), file=sys.stderr)
    result = {"seed": args.seed, "threads": torch.get_num_threads(), "rows": rows}
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
