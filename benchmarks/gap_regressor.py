"""Band gaps of crystals by a small regressor that knows nothing of the generator's network.

Randomised trees on statistics of the elements' tabulated properties, the density and the
volume of an atom, trained on the gaps of a prepared file's training split; it knows no bonds, so
that it tells metals from insulators rather than polymorphs. Needs scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure
from sklearn.ensemble import ExtraTreesRegressor

from adit_model.data import SPLITS, PreparedData

AVOGADRO = 1.66053906660  # g/cm3 of 1 u per cubic angstrom
Values = NDArray[np.float64]


def _table() -> Values:
    """Properties of the elements, `[119, properties]`, NaN where pymatgen knows none."""
    table = np.full((119, 9), np.nan)
    for element in Element:
        if element.Z > 118 or element.symbol in ("D", "T"):
            continue
        radius = element.atomic_radius
        table[element.Z] = (
            element.Z, element.X, element.row, element.group, element.mendeleev_no or np.nan,
            np.nan if radius is None else float(radius), float(element.is_transition_metal),
            max(element.common_oxidation_states, default=0),
            min(element.common_oxidation_states, default=0),
        )  # fmt: skip
    return table


@dataclass
class GapRegressor:
    """Trees, the elements' table, and how good they are on unseen crystals."""

    trees: ExtraTreesRegressor
    table: Values
    report: dict[str, Any]

    def predict(self, crystals: Sequence[Structure]) -> Values:
        """Gaps in eV, at least 0."""
        rows = [
            features(self.table, np.array(each.atomic_numbers), float(each.density))
            for each in crystals
        ]
        return np.clip(self.trees.predict(np.stack(rows)), 0.0, None)


def features(table: Values, numbers: NDArray[np.int64], density: float) -> Values:
    """One crystal: mean, deviation, lowest and highest of each property, and the packing."""
    own = table[numbers]
    mass = sum(float(Element.from_Z(z).atomic_mass) for z in numbers.tolist())
    volume = mass * AVOGADRO / (density * len(numbers))
    held = [np.nanmean(own, 0), np.nanstd(own, 0), np.nanmin(own, 0), np.nanmax(own, 0)]
    sums = [float(np.nansum(own[:, -2])), float(np.nansum(own[:, -1]))]  # can charges balance?
    return np.concatenate([*held, [density, volume, len(set(numbers.tolist())), *sums]])


def train_gaps(path: Path, seed: int = 0) -> GapRegressor:
    """A regressor for the gaps of a prepared file, judged by its test split."""
    data = PreparedData.load(path)
    ends = data.num_atoms.long().cumsum(0).tolist()
    gaps, densities = data.labels["band_gap"].numpy(), data.labels["density"].numpy()
    table = _table()

    def split(name: str) -> tuple[Values, Values]:
        chosen = (data.split == SPLITS.index(name)).numpy() & np.isfinite(gaps + densities)
        rows = [
            features(
                table,
                data.atomic_numbers[ends[i] - int(data.num_atoms[i]) : ends[i]].long().numpy(),
                float(densities[i]),
            )
            for i in np.flatnonzero(chosen)
        ]
        return np.stack(rows), gaps[chosen].astype(np.float64)

    inputs, targets = split("train")
    trees = ExtraTreesRegressor(60, min_samples_leaf=2, max_features=0.4, random_state=seed)
    trees.fit(inputs, targets)
    inputs, expected = split("test")
    found = np.clip(trees.predict(inputs), 0.0, None)
    report = {
        "trained_on": len(targets),
        "tested_on": len(expected),
        "mean_absolute_error": float(np.abs(found - expected).mean()),
        "of_the_mean_gap": float(np.abs(expected - targets.mean()).mean()),
    }
    return GapRegressor(trees, table, report)
