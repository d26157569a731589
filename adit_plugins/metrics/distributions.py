"""How far the densities, sizes, elements and space groups of a set are from the training set's.

Wasserstein distances of density and number of elements as in CDVAE (Xie et al. 2022,
arXiv:2110.06197), here of all structurally valid crystals; Jensen-Shannon distances (base 2: 0 is
equal, 1 is disjoint) of elements and space groups.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

TABLE = "distributions_crystal.json"
NUM_QUANTILES = 1001  # of the density: half a thousandth of the training set apart


def describe(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return density (g/cm^3), sizes, numbers of elements and space groups of valid crystals."""
    valid = [row for row in rows if row["struct_valid"]]
    found = {
        name: [float(row[name]) for row in valid if row[name] is not None]
        for name in ("density", "num_atoms", "num_elements", "space_group")
    }
    return {name: values for name, values in found.items() if values}


def summarise_training_set(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is shipped of a training set: quantiles and counts, no structure.

    Raises:
        ValueError: nothing is structurally valid.
    """
    values = describe(rows)
    if not values:
        raise ValueError("No structurally valid crystal to summarise.")
    density = np.quantile(values["density"], np.linspace(0, 1, NUM_QUANTILES))
    return {
        "num_crystals": len(values["density"]),
        "density": [round(float(x), 4) for x in density],
        "num_atoms": _counts(int(n) for n in values["num_atoms"]),
        "num_elements": _counts(int(n) for n in values["num_elements"]),
        "space_group": _counts(int(n) for n in values["space_group"]),
        "elements": element_counts(rows),
    }


def compare_with_training(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the distances to the shipped training set; None where no crystal is valid."""
    from scipy.stats import wasserstein_distance

    training, values = training_set(), describe(rows)

    def transport(name: str) -> float | None:
        if name not in values:
            return None
        if isinstance(training[name], list):
            return float(wasserstein_distance(values[name], training[name]))
        known = {float(key): count for key, count in training[name].items()}
        weights = list(known.values())
        return float(wasserstein_distance(values[name], list(known), None, weights))

    groups = _counts(int(n) for n in values.get("space_group", []))
    return {
        "density distance (Wasserstein, g/cm^3)": transport("density"),
        "number of elements distance (Wasserstein)": transport("num_elements"),
        "number of atoms distance (Wasserstein)": transport("num_atoms"),
        "elements distance (Jensen-Shannon)": _js(element_counts(rows), training["elements"]),
        "space groups distance (Jensen-Shannon)": _js(groups, training["space_group"]),
    }


def element_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the number of atoms of each element over all structurally valid crystals."""
    total: Counter[str] = Counter()
    for row in rows:
        if row["struct_valid"]:
            total.update(row["elements"])
    return dict(sorted(total.items()))


@lru_cache(maxsize=1)
def training_set() -> Mapping[str, Any]:
    """Return the shipped summary of the training set (`cli.shipped_data distributions`)."""
    text = (files("adit_plugins") / "data" / TABLE).read_text(encoding="utf-8")
    return dict(json.loads(text))


def _counts(values: Iterable[int]) -> dict[str, int]:
    return {str(key): count for key, count in sorted(Counter(values).items())}


def _js(first: Mapping[str, int], second: Mapping[str, int]) -> float | None:
    from scipy.spatial.distance import jensenshannon

    if not first:
        return None
    names = sorted({*first, *second})
    p, q = ([counts.get(name, 0) for name in names] for counts in (first, second))
    return float(jensenshannon(p, q, base=2))
