"""How fast crystals are evaluated, and that the fast way gives the answers of brute force.

    python benchmarks/crystal_metrics.py --samples diffcsp_mp20_10k.npz --json results.json \
        --references mp20.safetensors

Validity, uniqueness and novelty (StructureMatcher in both settings) of `--num` samples against the
references; time and peak memory for a quarter, half and all of them. In the same run the plain
published way (one process, every pair to `StructureMatcher.fit`) on `--plain` samples, its time
scaled to `--num`; and a proof on `--proof` samples with planted copies that both agree.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from scipy.spatial.transform import Rotation
from smact.screening import smact_validity

from adit_plugins.metrics.crystals import evaluate_crystals
from adit_plugins.metrics.references import StructureReference, load_reference
from adit_plugins.metrics.sets import read_set
from adit_plugins.structures.samples import Sample
from adit_plugins.validity.crystals import is_structure_valid


def structure(sample: Sample) -> Structure:
    """As pymatgen has it."""
    return cast(Structure, sample.to_pymatgen())


def copies(original: Structure, rng: np.random.Generator) -> list[Structure]:
    """The same crystal again: as it is, doubled, in other order, turned, moved, resized."""
    doubled = original.copy()
    doubled.make_supercell(np.eye(3, dtype=int) + np.diag(rng.permutation([1, 0, 0])))
    shuffled = Structure.from_sites([original[int(i)] for i in rng.permutation(len(original))])
    rotation = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    turned = Structure(original.lattice.matrix @ rotation, original.species, original.frac_coords)
    moved = original.copy()
    moved.translate_sites(range(len(moved)), rng.random(3))
    scaled = original.copy()
    scaled.scale_lattice(original.volume * 1.1)
    return [original.copy(), doubled, shuffled, turned, moved, scaled]


def brute_force(
    crystals: list[Structure], references: list[Structure], matcher: StructureMatcher
) -> tuple[list[bool], list[bool]]:
    """Unique and novel by handing every pair to the matcher, unreduced and unsorted."""
    kept: list[Structure] = []
    unique, novel = [], []
    for crystal in crystals:
        unique.append(not any(matcher.fit(each, crystal) for each in kept))
        if unique[-1]:
            kept.append(crystal)
        novel.append(not any(matcher.fit(each, crystal) for each in references))
    return unique, novel


def prove(samples: list[Sample], known: StructureReference, num: int) -> dict[str, Any]:
    """Compare both ways on real samples with planted copies, some of them as references."""
    rng = np.random.default_rng(0)
    crystals = [structure(sample) for sample in samples[:num]]
    chosen = rng.permutation(num)
    planted = [copy for i in chosen[: num // 10] for copy in copies(crystals[int(i)], rng)]
    hidden = [copy for i in chosen[-num // 10 :] for copy in copies(crystals[int(i)], rng)[1:3]]
    formulas = {each.composition.reduced_formula for each in crystals}
    real = [structure(s) for formula in sorted(formulas) for s in known.of_formula(formula)]
    everything, references = crystals + planted, hidden + real
    rows = evaluate_crystals(everything, reference=references).rows
    result: dict[str, Any] = {
        "samples": num,
        "planted_copies": len(planted),
        "planted_references": len(hidden),
        "real_references_of_these_formulas": len(real),
    }
    for name, ltol in (("", 0.3), ("_lemat", 0.1)):
        matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=ltol)
        unique, novel = brute_force(everything, references, matcher)
        result[f"ltol {ltol}"] = {
            "unique_by_brute_force": sum(unique),
            "novel_by_brute_force": sum(novel),
            "unique_disagreements": sum(
                bool(row[f"unique{name}"]) != flag for row, flag in zip(rows, unique, strict=True)
            ),
            "novel_disagreements": sum(
                bool(row[f"novel{name}"]) != flag for row, flag in zip(rows, novel, strict=True)
            ),
        }
    return result


def time_plain_way(samples: list[Sample], known: StructureReference, num: int) -> float:
    """Seconds a sample against all references, and against half of 10,000 earlier samples."""
    references = [structure(s) for group in known.by_formula.values() for s in group]
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    earlier = [structure(sample) for sample in samples[: len(samples) // 2]]
    start = time.perf_counter()
    for sample in samples[-num:]:
        crystal = structure(sample)
        if is_structure_valid(crystal) and smact_validity(crystal.composition):
            any(matcher.fit(each, crystal) for each in earlier)
            any(matcher.fit(each, crystal) for each in references)
    return (time.perf_counter() - start) / num


def peak_mebibytes() -> dict[str, float]:
    """Largest resident memory so far of this process, and of the largest worker."""
    usage = {"main": resource.RUSAGE_SELF, "worker": resource.RUSAGE_CHILDREN}
    return {k: round(resource.getrusage(who).ru_maxrss / 1024, 1) for k, who in usage.items()}


def time_ours(samples: list[Sample], known: StructureReference, workers: int) -> dict[str, Any]:
    """Seconds and memory of everything `adit evaluate` does with crystals."""
    start = time.perf_counter()
    metrics = evaluate_crystals(samples, reference=known, workers=workers)
    seconds = time.perf_counter() - start
    return {
        "samples": len(samples),
        "seconds": round(seconds, 1),
        "peak_memory_mib": peak_mebibytes(),
        "rates": {f"{r.name} of {r.of}": [r.numerator, r.denominator] for r in metrics.rates},
    }


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--references", required=True)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plain", type=int, default=5, help="0 leaves the plain way out")
    parser.add_argument("--proof", type=int, default=500, help="0 leaves the proof out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    known = load_reference(args.references)
    if not isinstance(known, StructureReference):
        raise SystemExit(f"--references {args.references} are no structures.")
    seconds = {"references": round(time.perf_counter() - start, 1)}
    start = time.perf_counter()
    samples = [each for each in read_set(args.samples).crystals.samples[: args.num] if each]
    seconds["samples"] = round(time.perf_counter() - start, 1)
    results: dict[str, Any] = {"references": known.note, "seconds_to_read": seconds}
    results["ours"] = [
        time_ours(samples[: len(samples) // part], known, args.workers) for part in (4, 2, 1)
    ]
    if args.plain:
        each = time_plain_way(samples, known, args.plain)
        results["plain_way"] = {
            "measured_on": args.plain,
            "seconds_a_sample": round(each, 2),
            "seconds_scaled_to_all": round(each * len(samples)),
        }
    if args.proof:
        results["proof"] = prove(samples, known, args.proof)
    text = json.dumps(results, indent=1)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
