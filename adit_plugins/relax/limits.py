"""How far and how long a structure is relaxed: the numbers that commands share, named once.

Nothing is imported, so that `adit --help` stays instant.
"""

from __future__ import annotations

import math

FMAX = 0.05  # eV/angstrom
TIME_LIMIT_SECONDS = 300.0  # a structure, whatever the potential does

# Optimiser steps a structure in every command and call that relaxes, as in Matbench Discovery:
# energies of one potential are then comparable, whichever command they come from.
MAX_STEPS = 500
# A campaign sorts thousands of crystals, of which a few are looked at: those that 100 steps do not
# bring down are marked as upper bounds, and `adit relax` takes the ones that matter further.
CAMPAIGN_STEPS = 100
# A search relaxes hundreds of samples of one formula; what 300 steps do not bring down lies far
# above the lowest. The force limit is tight: at 0.05 equal structures still differ so much that
# neither their symmetry nor their primitive cell is found.
PREDICTION_STEPS, PREDICTION_FMAX = 300, 0.01
# A second potential begins where the first one ended. Its energy there is nearly its own word: 20
# steps took 2 meV/atom off it and changed no verdict (benchmarks/second_opinion.py).
CONFIRM_STEPS = 5
CONFIRM_LIMIT = 0.2  # eV/atom above the hull: what lies higher is no candidate, whoever is asked
# The pre-filter only has to tell what lies far above the hull.
PREFILTER_STEPS = 50


def check_limits(fmax: float, max_steps: int, workers: int | None) -> None:
    """Refuse limits that mean nothing.

    Raises:
        ValueError: one is out of range.
    """
    if not 0 < fmax < math.inf or max_steps < 0 or (workers is not None and workers < 0):
        message = f"{fmax=} must be above 0, {max_steps=} and {workers=} at least 0"
        raise ValueError(message)
