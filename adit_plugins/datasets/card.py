"""What is in prepared data, in numbers: the counts of a data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from adit_plugins.datasets.common import SPLITS
from adit_plugins.datasets.overlap import overlapping

if TYPE_CHECKING:
    from adit_model.data import PreparedData

MOST = 10  # elements that are named


def card_of(data: PreparedData, compared: bool = False) -> dict[str, Any]:
    """Counts of prepared data, as JSON has them.

    Args:
        data: of any kind.
        compared: also compare the crystals of the splits, which takes minutes for ten thousands.

    Raises:
        DatasetError: what has no crystals cannot be compared.
    """
    from ase.data import chemical_symbols

    sizes, split = data.num_atoms.float(), data.split
    numbers = Counter(data.atomic_numbers.tolist())
    formulas = [frozenset(Counter(each).items()) for each in _compositions(data)]
    card: dict[str, Any] = {
        "name": data.name,
        "kind": data.kind,
        "source": data.source,
        "structures": len(split),
        "splits": {name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
        "atoms": {"fewest": int(sizes.min()), "mean": round(float(sizes.mean()), 1),
                  "most": int(sizes.max())},
        "elements": len(numbers),
        "most_common_elements": [chemical_symbols[z] for z, _ in numbers.most_common(MOST)],
        "different_compositions": len(set(formulas)),
        "labels": {
            each.name: {
                "known": int(data.labels[each.name].isfinite().sum()),
                "low": each.low, "high": each.high, "unit": each.unit,
            }
            if each.type == "number"
            else {"known": int(data.labels[each.name].isfinite().sum()), "classes": each.size}
            for each in data.conditions
        },
    }  # fmt: skip
    if compared:
        equal = overlapping(data)
        card["equal_to_one_held_out"] = {
            name: int(equal[(split == i).numpy()].sum()) for i, name in enumerate(SPLITS[:2])
        }
    return card


def _compositions(data: PreparedData) -> Iterator[list[int]]:
    """Atomic numbers of each structure's cell."""
    numbers = data.atomic_numbers.tolist()
    place = 0
    for size in data.num_atoms.tolist():
        yield numbers[place : place + size]
        place += size
