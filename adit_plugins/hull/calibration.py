"""How likely a distance from the hull means what it says: calibrated probabilities.

"Metastable" is an energy above hull below 0.1 eV/atom by the Materials Project's DFT. The shipped
curves give the share of metastable ones against the energy above hull by a potential, counted on
crystals that were left out of the table, apart for those with all sub-systems covered and the
others (`benchmarks/hull_recall.py`). They need not fall: far below zero stand also those of which
the table misses a known phase.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from adit_plugins.hull.results import HullResult
from adit_plugins.hull.table import SHIPPED

FILE = "hull_calibration.json"


def metastable_probability(found: HullResult, potential: str) -> float | None:
    """Return the probability, or None where nothing was calibrated for this combination.

    Args:
        found: a place on the hull; only the shipped reference is calibrated, with the corrections
            of elements with which the curves were counted.
        potential: name of the potential, with its version.
    """
    fits = calibration()["potentials"].get(potential)
    if fits is None or found.source != SHIPPED or fits.get("references", "") != found.references:
        return None
    return interpolate(
        found.energy_above_hull, fits["covered" if found.all_covered else "uncovered"]
    )


@lru_cache(maxsize=1)
def calibration() -> dict[str, Any]:
    """Return the shipped fits with what they were fitted on."""
    text = (files("adit_plugins") / "data" / FILE).read_text(encoding="utf-8")
    return dict(json.loads(text))


def interpolate(energy_above_hull: float, curve: Mapping[str, Any]) -> float:
    """Return the probability on a curve of `energies` (eV/atom) and `probabilities`."""
    return float(np.interp(energy_above_hull, curve["energies"], curve["probabilities"]))
