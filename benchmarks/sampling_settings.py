"""What steps and guidance buy and cost: validity and seconds at each setting, from equal noise.

    python benchmarks/sampling_settings.py --num 200 --seed 77 --kind crystal \
        --settings 50:1 25:2.5 50:2.5 100:2.5 50:3 --json FILE

A setting is a number of steps, a guidance scale and changes of the checkpoint's own settings
(`adit_model.sampling.KindSampling`) as JSON: `50:1:{"fresh_noise": [[1, 0.8]]}`. The release's
defaults are chosen from the rows. Use a seed that no reported figure uses. The limit in the same
run is the first row, without guidance. Several checkpoints (`--checkpoint`) have rows each, with
their size and what they have seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
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


def setting(text: str) -> tuple[int, float, dict[str, Any]]:
    """`STEPS:GUIDANCE[:JSON]`, such as `50:1.3` or `50:1:{"times": 1.5, "temperature": 0.9}`."""
    steps, scale, *other = text.split(":", 2)
    return int(steps), float(scale), json.loads(other[0]) if other else {}


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
        metavar="STEPS:GUIDANCE[:JSON]",
    )
    parser.add_argument("--sampler", default=ADiTGenerator.sampler)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--checkpoint", nargs="+", default=[None], metavar="NAME_OR_FOLDER")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for checkpoint, kind, (steps, scale, changes) in product(
        args.checkpoint, args.kind, args.settings
    ):
        sampling = tune(checkpoint, kind, changes)
        settings = {"num_steps": steps, "guidance_scale": scale, "sampler": args.sampler}
        samples, made = make_samples(kind, args.num, checkpoint, settings | {"seed": args.seed})
        counts = crystal_counts(samples) if kind == "crystal" else molecule_counts(samples)
        seconds = made["seconds_to_sample"]
        row = described(checkpoint) | {"kind": kind, **settings, "sampling": sampling}
        rows.append({**row, "samples": args.num, **counts, "seconds": seconds})
    result = {"seed": args.seed, "threads": torch.get_num_threads(), "rows": rows}
    write_json(result, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
