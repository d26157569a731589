"""How likely a distance from the hull means what it says: calibrated probabilities.

P(metastable) = 1 / (1 + exp((e - center) / width)) with e the energy above hull by the potential
and "metastable" an energy above hull below 0.1 eV/atom by the Materials Project's DFT. Center and
width were fitted for each potential on crystals that were left out of the table, apart for those
with all sub-systems covered and the others (`benchmarks/hull_recall.py`).
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

from adit_plugins.hull import SHIPPED, HullResult

FILE = "hull_calibration.json"


def metastable_probability(found: HullResult, potential: str) -> float | None:
    """Return the probability, or None where nothing was calibrated for this combination.

    Args:
        found: a place on the hull; only the shipped reference is calibrated.
        potential: name of the potential, with its version.
    """
    fits = calibration()["potentials"].get(potential)
    if fits is None or found.source != SHIPPED:
        return None
    fit = fits["covered" if found.all_covered else "uncovered"]
    return logistic(found.energy_above_hull, fit["center"], fit["width"])


@lru_cache(maxsize=1)
def calibration() -> dict[str, Any]:
    """Return the shipped fits with what they were fitted on."""
    text = (files("adit_plugins") / "data" / FILE).read_text(encoding="utf-8")
    return dict(json.loads(text))


def logistic(energy_above_hull: float, center: float, width: float) -> float:
    """Return the falling logistic curve; all in eV/atom."""
    return 0.5 * (1 - math.tanh((energy_above_hull - center) / (2 * width)))
