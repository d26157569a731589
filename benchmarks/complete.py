"""How well given atoms are completed, on structures that the network has not seen.

    python benchmarks/complete.py --crystals data/crystals.safetensors \\
        --molecules data/qm9.safetensors --num 100 --json FILE

Crystals: every Li is taken out and as many are filled in again, in the given cell. Counted are
completions that StructureMatcher maps onto the original, the Li that are then within 0.3 angstrom
of theirs, and CHGNet's energy of the completions as they are against the original's. Beside them
stands a limit from below: the same elements sampled without the host.

Molecules: one ring, or else one functional group, is kept as it is, and the rest is drawn anew, of
the same number of atoms. Counted are scaffolds that are kept, to the last digit and as bonds,
strictly valid molecules beside those of free sampling, and distinct ones.

The structures come from the test split of prepared files (`adit data prepare`).
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pymatgen.core import Element, Lattice, Structure
from rdkit import Chem, rdBase
from relaxed_rows import chgnet_energies
from sample_quality import write_json

from adit_model.config import KINDS
from adit_model.data import SPLITS, PreparedData
from adit_plugins import ADiTGenerator, Sample
from adit_plugins.matching.matcher import structure_matcher
from adit_plugins.structures.bonds import perceive_bonds
from adit_plugins.validity.molecules import check_molecules

REMOVED = 3  # lithium
NEAR = 0.3  # angstrom

# Kept where a molecule has no ring; the first that fits.
GROUPS = ("C(=O)N", "C(=O)O", "C#N", "C=O", "[OX2][CX4]", "[NX3][CX4]", "C#C", "C=C")


def unseen(path: Path, num: int, kind: str) -> list[Sample]:
    """Test structures of a prepared file, spread over it; of crystals those with Li and others."""
    data = PreparedData.load(path)
    if data.kind != kind or data.coords is None:
        raise SystemExit(f"{path} holds no {kind}s with geometry")
    ends = data.num_atoms.long().cumsum(0).tolist()
    found = []
    for row in (data.split == SPLITS.index("test")).nonzero().flatten().tolist():
        chosen = slice(ends[row] - int(data.num_atoms[row]), ends[row])
        numbers = data.atomic_numbers[chosen].long().numpy()
        coords = data.coords[chosen].double().numpy()
        if kind == "molecule":
            found.append(Sample(kind, numbers, coords))
        elif REMOVED in numbers and len(set(numbers.tolist())) > 1 and data.cell is not None:
            cell = Lattice.from_parameters(*data.cell[row].tolist()).matrix
            found.append(Sample(kind, numbers, coords @ cell, cell))
    places = np.linspace(0, len(found) - 1, min(num, len(found))).round().astype(int)
    return [found[place] for place in places]


def crystal_of(sample: Sample) -> Structure:
    """A crystal as pymatgen has it."""
    structure = sample.to_pymatgen()
    assert isinstance(structure, Structure)
    return structure


def filled_again(original: Sample, made: Sample) -> tuple[bool, int]:
    """Whether a completion is the original again, and how many Li are then near theirs."""
    first, second = crystal_of(original), crystal_of(made)
    if not structure_matcher().fit(first, second):
        return False, 0
    # In one cell nothing is scaled or reduced: the host may only be mapped onto itself.
    matcher = structure_matcher()
    matcher._scale = matcher._primitive_cell = False
    alike = matcher.get_s2_like_s1(first, second)
    pairs = [] if alike is None else list(zip(first, alike, strict=True))
    return True, sum(bool(a.distance(b) < NEAR) for a, b in pairs if a.specie.Z == REMOVED)


def crystals(originals: list[Sample], each: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """Fill Li in again, and sample the same elements without the host."""
    generator = ADiTGenerator(kind="crystal", **recipe)
    matched, any_matched, near, removed, free = 0, 0, 0, 0, 0
    firsts = []
    for number, original in enumerate(originals):
        count = int((original.atomic_numbers == REMOVED).sum())
        symbol = Element.from_Z(REMOVED).symbol
        made = generator.complete(original, each, replace=[symbol], elements=f"{symbol}{count}")
        firsts.append(made[0])
        answers = [filled_again(original, sample) for sample in made]
        matched += sum(match for match, _ in answers)
        any_matched += any(match for match, _ in answers)
        near += sum(close for _, close in answers)
        removed += count * each
        formula = original.to_pymatgen().formula.replace(" ", "")
        whole = ADiTGenerator(formula=formula, num_atoms=original.num_atoms, **recipe)
        structure = crystal_of(original)
        free += sum(
            structure_matcher().fit(structure, crystal_of(sample)) for sample in whole.samples(each)
        )
        print(f"crystal {number + 1}/{len(originals)}: {formula} {answers}", flush=True)
    pairs = zip(chgnet_energies(firsts), chgnet_energies(originals), strict=True)
    differences = [a - b for a, b in pairs if math.isfinite(a - b)]
    total = len(originals) * each
    return {
        "crystals": len(originals),
        "completions_each": each,
        "match": matched / total,
        "any_match": any_matched / len(originals),
        "li_within_0.3_angstrom": near / removed,
        "match_without_host": free / total,
        "chgnet_energies": len(differences),
        "median_energy_difference_per_atom": median(differences),
        "share_within_0.05_eV_per_atom": float(np.mean(np.array(differences) < 0.05)),
    }


def scaffold(sample: Sample) -> list[int] | None:
    """Heavy atoms of the largest ring, or of a functional group; None without either."""
    try:
        mol = perceive_bonds(sample.atomic_numbers, sample.positions)
    except ValueError:
        return None
    rings = mol.GetRingInfo().AtomRings()
    if rings:
        return sorted(max(rings, key=lambda ring: len(tuple(ring))))
    for smarts in GROUPS:
        found = mol.GetSubstructMatch(Chem.MolFromSmarts(smarts))
        if found and len(found) < mol.GetNumHeavyAtoms():
            return sorted(found)
    return None


def has_bonds_of(made: Sample, original: Sample, kept: list[int]) -> bool | None:
    """Whether the kept atoms are bonded as they were; None where no bonds fit."""
    try:
        new = perceive_bonds(made.atomic_numbers, made.positions)
    except ValueError:
        return None
    old = perceive_bonds(original.atomic_numbers, original.positions)
    places = {atom: place for place, atom in enumerate(kept)}
    before = {
        (places[b.GetBeginAtomIdx()], places[b.GetEndAtomIdx()])
        for b in old.GetBonds()
        if b.GetBeginAtomIdx() in places and b.GetEndAtomIdx() in places
    }
    return all(new.GetBondBetweenAtoms(*pair) is not None for pair in before)


def molecules(originals: list[Sample], each: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """Keep a ring or a group and draw the rest anew; sample as many freely."""
    generator = ADiTGenerator(kind="molecule", **recipe)
    made, exact, bonded, distinct, scaffolds = [], 0, [], 0, 0
    for original in originals:
        kept = scaffold(original)
        if kept is None:
            continue
        scaffolds += 1
        answers = generator.complete(original, each, fixed=kept)
        exact += sum((s.positions[: len(kept)] == original.positions[kept]).all() for s in answers)
        bonded += [has_bonds_of(sample, original, kept) for sample in answers]
        reports = check_molecules(answers, posebusters=False)
        distinct += len({r.smiles for r in reports if r.strict_valid})
        made += reports
        print(f"molecule {scaffolds}: {[r.smiles for r in reports]}", flush=True)
    free = check_molecules(generator.samples(len(made)), posebusters=False)
    known = [each for each in bonded if each is not None]
    valid = sum(report.strict_valid for report in made)
    return {
        "scaffolds": scaffolds,
        "completions_each": each,
        "kept_exactly": exact / len(made),
        "kept_as_bonds": f"{sum(known)}/{len(known)}, where bonds fit",
        "strictly_valid": valid / len(made),
        "strictly_valid_free": sum(report.strict_valid for report in free) / len(free),
        "distinct_of_valid": distinct / max(1, valid),
    }


def main() -> int:
    """Measure what is given and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crystals", type=Path, help="prepared file")
    parser.add_argument("--molecules", type=Path, help="prepared file")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--each", type=int, default=4, help="completions of each")
    parser.add_argument("--num-steps", type=int, help="default: the checkpoint's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    recipe = {"seed": args.seed, "num_steps": args.num_steps, "checkpoint": args.checkpoint}
    generator = ADiTGenerator(**recipe)
    model = generator.model
    results: dict[str, Any] = {"checkpoint": model.name, "hash": model.hash} | {
        "seed": args.seed,
        "num_steps": {kind: generator.steps(kind) for kind in KINDS},
    }
    with rdBase.BlockLogs():
        if args.crystals:
            originals = unseen(args.crystals, args.num, "crystal")
            results["crystals"] = crystals(originals, args.each, recipe)
        if args.molecules:
            originals = unseen(args.molecules, args.num, "molecule")
            results["molecules"] = molecules(originals, args.each, recipe)
    write_json(results, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
