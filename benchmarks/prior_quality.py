"""The prior over elements: validity, variety and likelihood of its compositions, beside real ones.

    python benchmarks/prior_quality.py --data data/crystals.safetensors data/qm9.safetensors \
        --num 10000 --seed 0 --json FILE

The limits in the same run are the held-out structures themselves (validity, how far two halves of
them are apart) and, for the likelihood, a table that knows how often each number of atoms and each
element occurs and nothing else. Seconds are of one process, on the machine that the file names.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Composition, Element
from relaxed_rows import write_json

from adit_model import ADiT
from adit_model.config import KINDS
from adit_model.data import CompositionTable, PreparedData
from adit_plugins.validity.crystals import is_composition_valid

Rows = list[tuple[int, ...]]


def rows_of(table: CompositionTable) -> Rows:
    """Compositions without their padding."""
    return [tuple(z for z in row if z) for row in table.numbers.tolist()]


def valid_share(rows: Rows) -> float:
    """Share that holds SMACT's rule."""
    return float(np.mean([is_composition_valid(formula(row)) for row in rows]))


def formula(row: tuple[int, ...]) -> Composition:
    """The composition of a cell or molecule."""
    return Composition({Element.from_Z(z): n for z, n in Counter(row).items()})


def reduced(row: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Elements with their counts, divided by what these have in common."""
    counts = Counter(row)
    common = int(np.gcd.reduce(list(counts.values())))
    return tuple(sorted((z, n // common) for z, n in counts.items()))


def distance(one: Counter[int], other: Counter[int]) -> float:
    """Jensen-Shannon distance (base 2) of two histograms."""
    from scipy.spatial.distance import jensenshannon

    keys = sorted(one | other)
    p, q = (np.array([c[k] for k in keys], dtype=float) for c in (one, other))
    return float(jensenshannon(p, q, base=2))


def distances(rows: Rows, held_out: Rows) -> dict[str, float]:
    """Of the elements of atoms, of the numbers of elements and of atoms in a structure."""
    pairs: dict[str, tuple[Counter[int], ...]] = {
        "elements": (Counter(z for r in rows for z in r), Counter(z for r in held_out for z in r)),
        "num_elements": (
            Counter(len(set(r)) for r in rows),
            Counter(len(set(r)) for r in held_out),
        ),
        "num_atoms": (Counter(map(len, rows)), Counter(map(len, held_out))),
    }
    return {name: round(distance(*pair), 4) for name, pair in pairs.items()}


@torch.no_grad()
def likelihood(model: ADiT, table: CompositionTable) -> dict[str, float]:
    """Mean negative log-likelihood of compositions, nats a structure, nothing told.

    Those that the prior can never draw, as of an element without a training structure, are counted.
    """
    assert model.prior is not None
    parts = [
        model.prior.log_probability(table.kind, table.numbers[i : i + 512])
        for i in range(0, len(table), 512)
    ]
    found = torch.cat(parts)
    possible = found.isfinite()
    return {"nats": round(-float(found[possible].mean()), 3), "impossible": int((~possible).sum())}


def table_likelihood(train: Rows, held_out: Rows, kind: str) -> float:
    """The same for sizes and elements drawn independently, with one of each added."""
    sizes, elements = Counter(map(len, train)), Counter(z for r in train for z in r)
    total, atoms = sum(sizes.values()) + 64, sum(elements.values()) + 99

    def one(row: tuple[int, ...]) -> float:
        value = np.log((sizes[len(row)] + 1) / total)
        value += sum(np.log((elements[z] + 1) / atoms) for z in row)
        if kind == "crystal":  # orders of the same atoms are one composition
            counts: NDArray[Any] = np.array(list(Counter(row).values()))
            value += _log_factorial(len(row)) - sum(_log_factorial(n) for n in counts)
        return float(value)

    return -float(np.mean([one(row) for row in held_out]))


def _log_factorial(n: int) -> float:
    return float(np.log(np.arange(1, n + 1)).sum())


def tempered(model: ADiT, temperature: float) -> None:
    """Let the prior's draws have another temperature than the checkpoint's own."""
    sampling = {
        kind: dataclasses.replace(model.config.sampling_of(kind), temperature=temperature)
        for kind in KINDS
    }
    model.config = dataclasses.replace(model.config, sampling=sampling)


def measure(model: ADiT, data: PreparedData, num: int, seed: int) -> dict[str, Any]:
    """Figures of one kind."""
    train, test = (CompositionTable(data, split, model.device) for split in ("train", "test"))
    known, held_out = rows_of(train), rows_of(test)
    start = time.process_time()
    drawn = [tuple(each) for each in model.draw_elements(num, data.kind, seed=seed)]
    seconds = time.process_time() - start
    seen = set(map(reduced, known))
    some = np.random.default_rng(0).permutation(len(known))[:num]
    half = np.random.default_rng(0).permutation(len(held_out))
    halves = [[held_out[i] for i in part] for part in np.array_split(half, 2)]
    row: dict[str, Any] = {
        "kind": data.kind,
        "samples": num,
        "cpu_seconds": round(seconds, 2),
        "unique": len(set(map(reduced, drawn))),
        "unique_held_out": f"{len(set(map(reduced, held_out)))} of {len(held_out)}",
        "different_orders": len(set(drawn)),  # formulas whose atoms come in another order differ
        "different_orders_of_as_many_training_rows": len({known[i] for i in some}),
        "formula_not_in_training": sum(reduced(each) not in seen for each in drawn),
        "formula_not_in_training_held_out": sum(reduced(each) not in seen for each in held_out),
        "jensen_shannon_to_held_out": distances(drawn, held_out),
        "jensen_shannon_of_two_halves_of_held_out": distances(*halves),
        **likelihood(model, test),
        "nats_of_independent_elements": round(table_likelihood(known, held_out, data.kind), 3),
    }
    if data.kind == "crystal":
        row["smact_valid"] = round(valid_share(drawn), 4)
        row["smact_valid_held_out"] = round(valid_share(held_out), 4)
        near = model.draw_elements(num, seed=seed, conditions={"energy_above_hull": 0.0})
        row["smact_valid_told_on_the_hull"] = round(valid_share([tuple(e) for e in near]), 4)
    return row


def main() -> int:
    """Print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint")
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, help="of the draws; by default its own")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = ADiT.from_pretrained(args.checkpoint)
    if args.temperature is not None:
        tempered(model, args.temperature)
    rows = [measure(model, PreparedData.load(path), args.num, args.seed) for path in args.data]
    head = {
        "checkpoint": model.name,
        "hash": model.hash,
        "seed": args.seed,
        "temperature": args.temperature,
    }
    write_json(head | {"rows": rows}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
