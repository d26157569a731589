"""The model card's figures: raw samples, no filter, no rejection, no retry, one seed, one setting.

    python benchmarks/sample_quality.py --num 1000 --seed 0

Every rate is given with its numerator and denominator. The limit in the same run: the same
checks on real structures, the training set's own (`--reference` prepared files), where given;
crystals are then also compared with the training set by StructureMatcher, not by fingerprints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
from pymatgen.core import Composition, Element, Structure

from adit_model.data import PreparedData, SizeGroups
from adit_plugins import ADiTGenerator, Sample, from_batch
from adit_plugins.matching import (
    Fingerprints,
    duplicate_labels,
    find_duplicates,
    is_match,
)
from adit_plugins.registry import MissingExtraError
from adit_plugins.validity import (
    check_molecules,
    is_composition_valid,
    is_structure_valid,
    openbabel_smiles,
)


def rate(flags: list[bool], of: int | None = None) -> dict[str, Any]:
    """Numerator, denominator and percentage."""
    total = len(flags) if of is None else of
    return {
        "count": sum(flags),
        "of": total,
        "percent": round(100 * sum(flags) / total, 1) if total else None,
    }


def crystal_figures(samples: list[Sample]) -> dict[str, Any]:
    """Validity of all; uniqueness and novelty of the structurally valid ones."""
    structures = [cast(Structure, sample.to_pymatgen()) for sample in samples]
    valid = [is_structure_valid(s) for s in structures]
    neutral = [is_composition_valid(s.composition) for s in structures]
    kept = [s for s, ok in zip(structures, valid, strict=True) if ok]
    unique = [first is None for first in find_duplicates(kept)]
    known = Fingerprints.load("crystal")
    novel = [not known.contains(s) for s in kept]
    return {
        "structurally_valid": rate(valid),
        "composition_valid_smact14": rate(neutral),
        "both_valid": rate([a and b for a, b in zip(valid, neutral, strict=True)]),
        "unique_of_structurally_valid": rate(unique),
        "novel_of_structurally_valid": rate(novel),
        "mean_elements": round(float(np.mean([len(s.composition) for s in structures])), 2),
    }


def molecule_figures(samples: list[Sample]) -> dict[str, Any]:
    """The lenient OpenBabel rule, connectedness, the strict rule, PoseBusters of the strict."""
    atoms = [sample.to_ase() for sample in samples]
    reports = check_molecules(atoms)
    strict = [r.strict_valid for r in reports]
    smiles = [r.smiles for r in reports if r.strict_valid]
    known = Fingerprints.load("molecule")
    figures = {
        "connected": rate([r.connected for r in reports]),
        "rdkit_valid": rate([r.rdkit_valid for r in reports]),
        "strictly_valid": rate(strict),
        "posebusters_all_of_strict": rate(
            [all(r.posebusters.values()) for r in reports if r.strict_valid and r.posebusters],
            sum(strict),
        ),
        "unique_of_strict": rate([first is None for first in duplicate_labels(smiles)]),
        "novel_of_strict": rate([not known.contains(s) for s in smiles if s]),
    }
    try:
        lenient = [openbabel_smiles(a) for a in atoms]
    except MissingExtraError as error:
        print(f"No OpenBabel figure: {error}", file=sys.stderr)
        return figures
    valid = [s for s in lenient if s]
    return figures | {
        "openbabel_valid_largest_fragment": rate([s is not None for s in lenient]),
        "unique_of_openbabel_valid": rate([first is None for first in duplicate_labels(valid)]),
    }


FIGURES = {"crystal": crystal_figures, "molecule": molecule_figures}


def novel_by_matcher(samples: list[Sample], path: Path) -> dict[str, Any]:
    """Novelty of the structurally valid against the training crystals themselves."""
    groups = SizeGroups(PreparedData.load(path), "train", "cpu")
    known: dict[str, list[tuple[int, int]]] = {}
    for size, (numbers, _, _) in groups.groups.items():
        for row, types in enumerate(numbers.tolist()):
            formula = Composition(Counter(map(Element.from_Z, types))).reduced_formula
            known.setdefault(formula, []).append((size, row))

    def is_known(structure: Structure) -> bool:
        same = known.get(structure.composition.reduced_formula, [])
        batches = [groups.batch(size, slice(row, row + 1)) for size, row in same]
        others = [cast(Structure, from_batch(batch)[0].to_pymatgen()) for batch in batches]
        return any(is_match(structure, other) for other in others)

    structures = [cast(Structure, sample.to_pymatgen()) for sample in samples]
    return rate([not is_known(s) for s in structures if is_structure_valid(s)])


def real_samples(path: Path, num: int, seed: int) -> tuple[str, list[Sample]]:
    """Random structures of a prepared file's training split."""
    data = PreparedData.load(path)
    groups = SizeGroups(data, "train", "cpu")
    everything = [
        (size, row) for size, group in groups.groups.items() for row in range(len(group[0]))
    ]
    order = np.random.default_rng(seed).permutation(len(everything))[:num]
    samples = []
    for place in order:
        size, row = everything[place]
        samples += from_batch(groups.batch(size, slice(row, row + 1)))
    return data.kind, samples


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-steps", type=int, default=ADiTGenerator.num_steps)
    parser.add_argument("--guidance-scale", type=float, default=ADiTGenerator.guidance_scale)
    parser.add_argument("--sampler", default=ADiTGenerator.sampler)
    parser.add_argument("--checkpoint")
    parser.add_argument("--kind", choices=FIGURES, nargs="+", default=list(FIGURES))
    parser.add_argument("--reference", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for kind in args.kind:
        generator = ADiTGenerator(
            kind=kind,
            checkpoint=args.checkpoint,
            num_steps=args.num_steps,
            guidance_scale=args.guidance_scale,
            seed=args.seed,
            sampler=args.sampler,
            batch_size=max(256, args.num),
        )
        start = time.perf_counter()
        samples = generator.samples(args.num)
        seconds = time.perf_counter() - start
        settings = generator.as_dict()
        results[kind] = {
            "checkpoint": generator.model.name,
            "hash": generator.model.hash,
            "settings": {k: v for k, v in settings.items() if not k.startswith("@")},
            "seconds_to_sample": round(seconds, 1),
        } | FIGURES[kind](samples)
        for path in args.reference:
            if kind == "crystal" == PreparedData.load(path).kind:
                results[kind]["novel_by_structure_matcher"] = novel_by_matcher(samples, path)
    for path in args.reference:
        kind, samples = real_samples(path, args.num, args.seed)
        results[f"real {kind}s"] = FIGURES[kind](samples)
    json.dump(results, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
