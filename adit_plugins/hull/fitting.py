"""Fit a potential's elements: ridge regression of its errors on the composition.

The error of a formation energy is taken as a sum over the elements, x_i d_i, with d_i drawn towards
0: where an element has few crystals, the tabulated energy stands. Some formation energies are wrong
by tenths of an eV (magnetic states, a hole of the potential), so the loss is Huber's: beyond 0.1
eV/atom an error counts linearly (iteratively reweighted least squares; Huber 1964,
doi 10.1214/aoms/1177703732). How good it is, is measured on formulas that a fit has not seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adit_plugins.hull.references import References

RIDGE = 1.0  # of the sum of squares over crystals: an element half of one crystal goes to a fifth
HUBER = 0.1  # eV/atom
ITERATIONS = 30
FOLDS = 5
MIN_ROWS = 100
OTHER_SCALE = 0.5  # eV/atom; a median error beyond it is no error, but another zero of energy

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A crystal with the error of its formation energy.

    Attributes:
        formula: reduced; crystals of one formula are held out together.
        fractions: atomic fractions.
        error: eV/atom, by the tabulated elements, against the data.
    """

    formula: str
    fractions: Mapping[str, float]
    error: float


def fit(rows: Sequence[Row], potential: str, convention: str, about: str = "") -> References:
    """Return the corrections that fit best, with their error on held-out formulas.

    Args:
        rows: of the potential's energies at the geometries of the data.
        potential: its name with its version.
        convention: of its energies.
        about: which data these are.

    Raises:
        ValueError: there are too few crystals, or the energies are on another scale.
    """
    if len(rows) < MIN_ROWS:
        raise ValueError(
            f"{len(rows)} crystals with an energy and references are too few to fit elements on; "
            f"{MIN_ROWS} at least, and thousands are better."
        )
    symbols = sorted({symbol for row in rows for symbol in row.fractions})
    fractions = np.array([[row.fractions.get(symbol, 0.0) for symbol in symbols] for row in rows])
    errors = np.array([row.error for row in rows])
    median = float(np.median(np.abs(errors)))
    if median > OTHER_SCALE:
        raise ValueError(
            f"the energies of {potential} are not on the Materials Project's scale as "
            f"{convention!r}: half of the formation energies are off by more than {median:.2f} "
            "eV/atom. Say another --convention, or keep it from the hull."
        )
    folds = np.array([zlib.crc32(row.formula.encode()) % FOLDS for row in rows])
    left = np.zeros_like(errors)
    for fold in range(FOLDS):
        seen = folds != fold
        left[~seen] = errors[~seen] - fractions[~seen] @ huber_ridge(fractions[seen], errors[seen])
    found = huber_ridge(fractions, errors)
    return References(
        potential=potential,
        corrections={s: round(float(d), 5) for s, d in zip(symbols, found, strict=True)},
        convention=convention,
        num_rows=len(rows),
        num_formulas=len({row.formula for row in rows}),
        held_out={"folds": FOLDS, "before": summary(errors), "after": summary(left)},
        about=about,
    )


def huber_ridge(fractions: Array, errors: Array) -> Array:
    """Return the correction of each element, eV/atom, [num_elements].

    Args:
        fractions: [num_crystals, num_elements].
        errors: eV/atom, [num_crystals].
    """
    weights = np.ones_like(errors)
    found: Array = np.zeros(fractions.shape[1])
    for _ in range(ITERATIONS):
        weighted = fractions * weights[:, None]
        normal = weighted.T @ fractions + RIDGE * np.eye(fractions.shape[1])
        found = np.asarray(np.linalg.solve(normal, weighted.T @ errors), dtype=np.float64)
        left = np.abs(errors - fractions @ found)
        weights = np.minimum(1.0, HUBER / np.maximum(left, 1e-12))
    return found


def summary(errors: Array) -> dict[str, Any]:
    """Return number, mean absolute error, bias and median absolute error, meV/atom."""
    return {
        "number": len(errors),
        "mae_meV": round(1000 * float(np.abs(errors).mean()), 2),
        "bias_meV": round(1000 * float(errors.mean()), 2),
        "median_absolute_meV": round(1000 * float(np.median(np.abs(errors))), 2),
    }
