"""What a composition on request costs: yield, validity and energy, by two roads.

    python benchmarks/composition_request.py --num 200 --json FILE

Each request is sampled in two ways: the elements are drawn from the prior and told to the network,
as the package does it, or imposed on the predictions of a network that is not told. The energies
are CHGNet's of the raw samples, eV/atom, at equal formula the lower the better.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pymatgen.core import Structure
from relaxed_rows import chgnet_energies

from adit_plugins import ADiTGenerator
from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid

REQUESTS: list[dict[str, Any]] = [
    {},
    {"elements": ["Li", "O", "P", "Fe", "Mn"]},
    {"exclude_elements": ["Pb", "Cd", "Hg", "Tl", "As", "U", "Th"]},
    {"chemical_system": "Li-P-O"},
    {"formula": "NaCl"},
    {"formula": "SrTiO3"},
    {"formula": "LiFePO4"},
    {"formula": "GaAs"},
]


def fits(structure: Structure, request: dict[str, Any]) -> bool:
    """Whether a structure is what was asked for, by pymatgen's reading of it."""
    symbols = {str(element) for element in structure.composition.elements}
    formula = request.get("formula")
    return (
        symbols <= set(request.get("elements", symbols))
        and not symbols & set(request.get("exclude_elements", ()))
        and symbols == set(request.get("chemical_system", "-".join(symbols)).split("-"))
        and structure.composition.reduced_formula
        == (formula or structure.composition.reduced_formula)
    )


def measure(request: dict[str, Any], num: int, seed: int, told: bool) -> dict[str, Any]:
    """Counts of one request: elements told to the network, or imposed on its predictions."""
    samples = ADiTGenerator(seed=seed, elements_first=told, **request).samples(num)
    structures = [sample.to_pymatgen() for sample in samples]
    crystals = [each for each in structures if isinstance(each, Structure)]
    # CHGNet takes no isolated atoms; how many it took is counted.
    found = [each for each in chgnet_energies(samples) if math.isfinite(each)]
    return {
        "fits": f"{sum(fits(s, request) for s in crystals)}/{num}",
        "structurally_valid": f"{sum(is_structure_valid(s) for s in crystals)}/{num}",
        "composition_valid": f"{sum(is_composition_valid(s.composition) for s in crystals)}/{num}",
        "chgnet_energies": f"{len(found)}/{num}",
        "median_energy_per_atom": round(median(found), 3),
        "lower_quartile_per_atom": round(float(np.quantile(found, 0.25)), 3),
    }


def main() -> None:
    """Measure every request and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for request in REQUESTS:
        row: dict[str, Any] = {"request": request}
        for name, told in (("elements_told", True), ("elements_imposed", False)):
            row[name] = measure(request, arguments.num, arguments.seed, told)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if arguments.json:
        model = ADiTGenerator().model
        head = {"checkpoint": model.name, "hash": model.hash, "seed": arguments.seed}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(head | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
