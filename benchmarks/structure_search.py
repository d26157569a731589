"""Structure search: of held-out crystals, is the right one found, and does it win?

    python benchmarks/structure_search.py --data data/crystals.safetensors --num 30 \\
        --log search.jsonl --json benchmarks/results/structure_search.json

Three ways with the same number of relaxations a target (`--budget`), by the pipeline of
`adit predict` (`mace-adit`, equal structures to one; the five lowest with a second potential):

- samples: crystals of the network, told the elements.
- random: random crystals of random space groups by PyXtal (`pip install pyxtal`), its volumes.
- ensemble: the first half of those samples, then as many variations of the lowest.

Targets are a random choice of MP-20's test split. Each way is told the elements and the number of
atoms of the target's cell. A structure is the target if StructureMatcher says so: with the
published tolerances (`found`), or, of the target as the first potential relaxes it, with those by
which the search tells structures apart (`strict`). CPU seconds are of sampling and relaxing by the
first potential. The log takes each target as it is finished: a run that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from pymatgen.core import Structure
from relaxed_rows import write_json
from structure_prediction import by_size, held_out

from adit_model import ADiT
from adit_model.data import PreparedData
from adit_plugins import ADiTGenerator
from adit_plugins.matching import first_match
from adit_plugins.matching.matcher import rms_distance
from adit_plugins.prediction.ensemble import children
from adit_plugins.prediction.ranking import Contestant, distinct, matcher, primitive_cell
from adit_plugins.relax import relax
from adit_plugins.relax.limits import CONFIRM_STEPS, PREDICTION_FMAX, PREDICTION_STEPS
from adit_plugins.relax.results import bare_structure
from adit_plugins.structures.provenance import KEY

FIRST, SECOND = "mace-adit", "chgnet"
LOWEST = 5  # groups that the second potential sees, and that count as a short list
CLOSE = 0.02  # eV/atom above the lowest
SAME = 0.005  # eV/atom; energies of one minimum agree to this
WAYS = ("samples", "random", "ensemble")
# Primitive cells in PyXtal's conventional one, by the first letter of the space group.
CENTRINGS = {"P": 1, "A": 2, "B": 2, "C": 2, "I": 2, "R": 3, "F": 4}


def random_crystals(target: Structure, num: int, seed: int) -> list[Atoms]:
    """Random crystals of the target's composition and number of atoms, of any space group."""
    from pyxtal import pyxtal
    from pyxtal.symmetry import Group

    draw = np.random.default_rng(seed)
    amounts = {e.symbol: int(n) for e, n in target.composition.items()}
    made: list[Atoms] = []
    while len(made) < num:
        group = Group(int(draw.integers(1, 231)))
        numbers = [n * CENTRINGS[group.symbol[0]] for n in amounts.values()]
        if not group.check_compatible(numbers)[0]:
            continue
        crystal = pyxtal()
        try:
            crystal.from_random(3, group.number, list(amounts), numbers, random_state=draw)
            cell = crystal.to_pymatgen().get_primitive_structure()
        except (RuntimeError, ValueError):  # no room on these positions
            continue
        if crystal.valid and len(cell) <= len(target):
            name = f"random/{seed}/{len(made)}"
            atoms = Atoms(cell.atomic_numbers, cell.cart_coords, cell=cell.lattice.matrix, pbc=True)
            atoms.info[KEY] = {"id": name, "kind": "crystal"}
            made.append(atoms)
    return made


def by_first(structures: Sequence[Atoms]) -> list[Contestant]:
    """Relax by the first potential; what has no energy does not compete."""
    results = relax(structures, FIRST, PREDICTION_FMAX, PREDICTION_STEPS, workers=0)
    return [Contestant(r, (str(r.atoms.info[KEY]["id"]),)) for r in results if not r.failed]


def by_second(groups: Sequence[Contestant]) -> list[Contestant]:
    """The lowest few in the order of the second potential, which takes some steps more."""
    atoms = [each.result.atoms for each in groups[:LOWEST]]
    results = relax(atoms, SECOND, PREDICTION_FMAX, CONFIRM_STEPS, workers=0) if atoms else []
    return distinct(Contestant(r, (r.atoms.info[KEY]["id"],)) for r in results if not r.failed)


def place_of(
    groups: Sequence[Contestant], is_target: Callable[[Structure], bool]
) -> dict[str, Any] | None:
    """Rank, from 1, and distance from the lowest, eV/atom, of the first that is the target."""
    for rank, each in enumerate(groups, start=1):
        if is_target(bare_structure(each.result.atoms)):
            return {"rank": rank, "above_lowest": each.energy - groups[0].energy}
    return None


def judged(
    relaxed: Sequence[Contestant], raw: Sequence[Atoms], truth: Structure, minimum: Structure | None
) -> dict[str, Any]:
    """What a way found.

    Args:
        relaxed: what it relaxed.
        raw: what it began with.
        truth: the target.
        minimum: the target as relaxed; None where that failed.
    """

    def published(structure: Structure) -> bool:
        return rms_distance(truth, structure) is not None

    def strict(structure: Structure) -> bool:
        cells = [None if minimum is None else primitive_cell(minimum)]
        return first_match(primitive_cell(structure), cells, matcher=matcher()) is not None

    groups = distinct(relaxed)
    second = by_second(groups)
    return {
        "raw": any(published(bare_structure(atoms)) for atoms in raw),
        "relaxed": len(relaxed),
        "distinct": len(groups),
        "lowest": groups[0].energy if groups else None,
        FIRST: {"found": place_of(groups, published), "strict": place_of(groups, strict)},
        SECOND: {"found": place_of(second, published), "strict": place_of(second, strict)},
    }


class Clock:
    """CPU seconds since the last look."""

    def __init__(self) -> None:
        self.last = time.process_time()

    def look(self) -> float:
        now = time.process_time()
        spent, self.last = now - self.last, now
        return spent


def searched(place: int, truth: Structure, budget: int, checkpoint: str) -> dict[str, Any]:
    """Search for one target in each way."""
    formula = "".join(f"{e.symbol}{int(n)}" for e, n in truth.composition.items())
    known = Atoms(truth.atomic_numbers, truth.cart_coords, cell=truth.lattice.matrix, pbc=True)
    known.info[KEY] = {"id": "target", "kind": "crystal"}
    own = by_first([known])
    minimum = bare_structure(own[0].result.atoms) if own else None
    # The place is the seed, so that targets do not share their noise.
    generator = ADiTGenerator(
        checkpoint=checkpoint, formula=formula, num_atoms=len(truth), seed=place
    )
    half, clock = budget // 2, Clock()
    names = [f"{generator.model.name}/{place}/{i}" for i in range(budget)]
    raw = {"samples": [sample.to_ase() for sample in generator.sample_ids(names[:half])]}
    relaxed = {"samples": by_first(raw["samples"])}
    seconds = {"samples": clock.look()}
    varied = list(islice(children(generator, distinct(relaxed["samples"]), 0), budget - half))
    raw["ensemble"] = raw["samples"] + varied
    relaxed["ensemble"] = relaxed["samples"] + by_first(varied)
    seconds["ensemble"] = seconds["samples"] + clock.look()
    more = [sample.to_ase() for sample in generator.sample_ids(names[half:])]
    raw["samples"] = raw["samples"] + more
    relaxed["samples"] = relaxed["samples"] + by_first(more)
    seconds["samples"] += clock.look()
    raw["random"] = random_crystals(truth, budget, place)
    relaxed["random"] = by_first(raw["random"])
    seconds["random"] = clock.look()
    ways = {way: judged(relaxed[way], raw[way], truth, minimum) for way in WAYS}
    for way in WAYS:
        ways[way]["seconds"] = round(seconds[way], 2)
    return {
        "place": place,
        "formula": formula,
        "num_atoms": len(truth),
        "target_energy": own[0].energy if own else None,
        "ways": ways,
    }


def counted(rows: Sequence[dict[str, Any]], way: str) -> dict[str, Any]:
    """Of how many targets a way did what."""
    ways = [row["ways"][way] for row in rows]
    result: dict[str, Any] = {
        "targets": len(rows),
        "raw_structure_matches": sum(each["raw"] for each in ways),
    }
    for potential in (FIRST, SECOND):
        for rule in ("found", "strict"):
            places = [each[potential][rule] for each in ways]
            known = [place for place in places if place is not None]
            result[f"{potential}, {rule}"] = {
                "lowest": sum(place["rank"] == 1 for place in known),
                "within_20_meV": sum(place["above_lowest"] <= CLOSE for place in known),
                "five_lowest": sum(place["rank"] <= LOWEST for place in known),
                "anywhere": len(known),
            }
    result["as_low_as_any"] = sum(as_low_as_any(row, way) for row in rows)
    result["relaxed"] = sum(each["relaxed"] for each in ways)
    result["mean_distinct"] = round(float(np.mean([each["distinct"] for each in ways])), 1)
    result["mean_cpu_seconds"] = round(float(np.mean([each["seconds"] for each in ways])), 1)
    return result


def as_low_as_any(row: dict[str, Any], way: str) -> bool:
    """Whether a way's lowest is as low as those of all ways and the target itself."""
    every = [each["lowest"] for each in row["ways"].values()] + [row["target_energy"]]
    mine = row["ways"][way]["lowest"]
    return mine is not None and mine <= min(e for e in every if e is not None) + SAME


def result_of(rows: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """Settings and counts, of all and by size."""
    sizes = by_size(rows)
    order = sorted(sizes, key=lambda name: -1 if name == "all" else int(name.split("-")[0]))
    counts = {name: {way: counted(sizes[name], way) for way in WAYS} for name in order}
    below = [
        row for row in rows if row["target_energy"] is not None
        and min(w["lowest"] for w in row["ways"].values() if w["lowest"] is not None)
        < row["target_energy"] - SAME
    ]  # fmt: skip
    lost = sum(row["target_energy"] is None for row in rows)
    return {
        **about,
        "targets_without_an_energy": lost,
        "targets_with_something_lower": len(below),
        "results": counts,
    }


def main() -> None:
    """Search target after target; what is finished is on the disk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; made or continued")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--checkpoint", default="adit-joint")
    parser.add_argument("--num", type=int, default=100, help="targets")
    parser.add_argument("--max-atoms", type=int, default=12, help="of a target")
    parser.add_argument("--budget", type=int, default=20, help="relaxations a target and way")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of targets")
    parser.add_argument("--minutes", type=float, help="after which no other target begins")
    args = parser.parse_args()
    if find_spec("pyxtal") is None:
        parser.error("random crystals are made by PyXtal, which is not here: pip install pyxtal")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    model = ADiT.from_pretrained(args.checkpoint, device="cpu")
    about = {
        "checkpoint": model.name,
        "hash": model.hash,
        "seed": args.seed,
        "max_atoms": args.max_atoms,
        "relaxations_a_target_and_way": args.budget,
        "potentials": [FIRST, f"{SECOND}, {CONFIRM_STEPS} steps more of the {LOWEST} lowest"],
        "fmax": PREDICTION_FMAX,
        "max_steps": PREDICTION_STEPS,
        "hardware": f"{platform.machine()} CPU, 1 thread, shared",
    }
    rows: list[dict[str, Any]] = []
    if args.log.exists():
        lines = [json.loads(line) for line in args.log.read_text().splitlines()]
        rows = [line["row"] for line in lines if line["about"] == about]
    done = {row["place"] for row in rows}
    begun = time.monotonic()
    targets = held_out(PreparedData.load(args.data), args.num, args.seed, args.max_atoms)
    with args.log.open("a") as log:
        for place, truth in targets.items():
            if place in done:
                continue
            if args.minutes is not None and time.monotonic() - begun > 60 * args.minutes:
                break
            rows.append(searched(place, truth, args.budget, args.checkpoint))
            log.write(json.dumps({"about": about, "row": rows[-1]}) + "\n")
            log.flush()
    write_json(result_of(rows, about), args.json)


if __name__ == "__main__":
    main()
