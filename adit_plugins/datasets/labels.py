"""Labels of prepared structures: the properties that a network can be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adit_plugins.datasets.errors import DatasetError

if TYPE_CHECKING:
    from torch import Tensor

    from adit_model.config import Condition

# Columns that are taken whenever a table has them, with their units.
KNOWN = {"energy_above_hull": "eV/atom", "band_gap": "eV"}
CLASSES = {"space_group": 230}  # labels that are a class in 1..n
CLASS = "class"  # in place of a unit: whole numbers from 1
DROPOUT = 0.4  # of a property while training, beside the structures that are told none
OUTLIERS = 5e-4  # share of the highest values that a request cannot ask for


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Units by column from `NAME`, `NAME:UNIT` or `NAME:class`.

    Raises:
        DatasetError: a name is no identifier.
    """
    units = dict(KNOWN)
    for text in texts:
        name, _, unit = text.partition(":")
        if not name.isidentifier():
            raise DatasetError(
                f"--label {text!r}: write the column's name, with its unit or `class` after a "
                "colon, such as bulk_modulus:GPa; rename columns with blanks"
            )
        units[name] = unit
    return units


def number_of(value: Any) -> float:
    """A cell of a table as a number; NaN where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def described_labels(
    kind: str,
    rows: Sequence[Mapping[str, Any]],
    units: Mapping[str, str],
    wanted: Iterable[str] = (),
) -> tuple[dict[str, Tensor], tuple[Condition, ...]]:
    """Labels `[structures]`, NaN where unknown, and what each is as a condition.

    Args:
        kind: of the structures.
        rows: with `labels`, numbers by name, and `split`, 0 for training.
        units: by name; `class` for a class.
        wanted: labels that have to be there; others are left out where nothing can be learned
            from them.

    Raises:
        DatasetError: a wanted label has no values, or only one, or one is no class.
    """
    import torch

    names = list(dict.fromkeys(name for row in rows for name in row.get("labels", {})))
    values = {
        name: np.array([row["labels"].get(name, np.nan) for row in rows], dtype=np.float64)
        for name in names
    }
    training = np.array([row["split"] == 0 for row in rows])
    conditions = described(kind, values, training, units, wanted)
    labels = {c.name: torch.tensor(values[c.name], dtype=torch.float32) for c in conditions}
    return labels, conditions


def described(
    kind: str,
    values: Mapping[str, NDArray[np.floating[Any]]],
    training: NDArray[np.bool_],
    units: Mapping[str, str],
    wanted: Iterable[str] = (),
) -> tuple[Condition, ...]:
    """What labels are as conditions; those that teach nothing are left out.

    Args:
        kind: of the structures.
        values: `[structures]` by name, NaN where unknown.
        training: `[structures]`, whether each is of the training split.
        units: as for `described_labels`.
        wanted: likewise.

    Raises:
        DatasetError: as `described_labels`.
    """
    from adit_model.config import Condition

    conditions: list[Condition] = []
    for name, every in values.items():
        known = every[training & np.isfinite(every)]
        if not len(known):
            continue
        if name in CLASSES or units.get(name) == CLASS:
            whole = known[(known == known.round()) & (known >= 1)]
            if len(whole) < len(known):
                raise DatasetError(f"the label {name!r} is a class: whole numbers from 1")
            size = CLASSES.get(name, int(known.max()))
            condition = Condition(name, size, dropout=DROPOUT, kinds=(kind,))
        else:
            if len(np.unique(known)) < 2:
                continue
            low, high = float(known.min()), float(np.quantile(known, 1 - OUTLIERS))
            condition = Condition(
                name, 1, "number", DROPOUT, (kind,), _rounded(low, np.floor),
                _rounded(max(high, low + 1e-3), np.ceil), units.get(name, ""),
            )  # fmt: skip
        conditions.append(condition)
    there = {condition.name for condition in conditions}
    for name in wanted:
        if name not in there:
            raise DatasetError(
                f"the label {name!r} has fewer than two different numbers in the training "
                f"structures; columns that were read: {', '.join(values) or 'none'}"
            )
    return tuple(conditions)


def _rounded(value: float, towards: Any) -> float:
    """To a thousandth, so that the ends of the range read well."""
    return float(towards(value * 1000) / 1000)
