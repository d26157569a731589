"""Labels of prepared structures: the properties that a network can be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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

    from adit_model.config import Condition

    names = list(dict.fromkeys(name for row in rows for name in row.get("labels", {})))
    labels: dict[str, Tensor] = {}
    conditions: list[Condition] = []
    training = np.array([row["split"] == 0 for row in rows])
    for name in names:
        values = np.array([row["labels"].get(name, np.nan) for row in rows], dtype=np.float64)
        known = values[training & np.isfinite(values)]
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
        labels[name] = torch.tensor(values, dtype=torch.float32)
    for name in wanted:
        if name not in labels:
            raise DatasetError(
                f"the label {name!r} has fewer than two different numbers in the training "
                f"structures; columns that were read: {', '.join(names) or 'none'}"
            )
    return labels, tuple(conditions)


def _rounded(value: float, towards: Any) -> float:
    """To a thousandth, so that the ends of the range read well."""
    return float(towards(value * 1000) / 1000)
