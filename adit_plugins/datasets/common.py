"""What every data set shares: the splits and the prepared arrays."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_plugins.datasets.errors import DatasetError

if TYPE_CHECKING:
    from adit_model.data import PreparedData

SPLITS = ("train", "val", "test")


def split_by_row(row: int) -> int:
    """The split of a row where the source names none: 5 % test and 5 % validation."""
    return {0: 2, 10: 1}.get(row % 20, 0)


def split_of(key: str) -> str:
    """The split of all rows of a key, such as a formula, so that what is alike stays together."""
    return SPLITS[split_by_row(zlib.crc32(key.encode()) % 20)]


def assemble(
    name: str,
    kind: str,
    rows: list[dict[str, Any]],
    source: str,
    units: Mapping[str, str] | None = None,
    wanted: Iterable[str] = (),
) -> PreparedData:
    """Concatenate rows of `atomic_numbers`, `coords`, `split` (and `cell`) into arrays.

    Rows without `coords` are compositions. Rows may have `labels`, numbers by name, whose units
    are told by name; some may be wanted.
    """
    import dataclasses

    from adit_plugins.datasets.labels import described_labels

    made = arrays(name, kind, rows, source)  # first, as it says when there is no row
    labels, conditions = described_labels(kind, rows, units or {}, wanted)
    return dataclasses.replace(made, labels=labels, conditions=conditions)


def arrays(name: str, kind: str, rows: list[dict[str, Any]], source: str) -> PreparedData:
    """Concatenate rows as `assemble` does, with all labels and nothing said of them.

    Raises:
        DatasetError: there is no row.
    """
    import torch

    from adit_model.data import PreparedData

    if not rows:
        raise DatasetError(f"{name}: no structure to prepare from {source}")
    numbers = np.concatenate([np.asarray(r["atomic_numbers"], dtype=np.uint8) for r in rows])
    coords = cell = None
    if "coords" in rows[0]:
        joined = np.concatenate([np.asarray(r["coords"], dtype=np.float32) for r in rows])
        coords = torch.from_numpy(joined)
    if "cell" in rows[0]:
        cell = torch.tensor(np.array([r["cell"] for r in rows]), dtype=torch.float32)
    names = dict.fromkeys(key for row in rows for key in row.get("labels", {}))
    labels = {
        key: torch.tensor([row["labels"].get(key, np.nan) for row in rows], dtype=torch.float32)
        for key in names
    }
    return PreparedData(
        labels=labels,
        name=name,
        kind=kind,
        atomic_numbers=torch.from_numpy(numbers),
        coords=coords,
        num_atoms=torch.tensor([len(r["atomic_numbers"]) for r in rows], dtype=torch.int32),
        split=torch.tensor([r["split"] for r in rows], dtype=torch.uint8),
        cell=cell,
        source=source,
    )
