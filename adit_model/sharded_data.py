"""Data sets of many files, larger than the memory: mapped, and read where a batch needs it.

A folder with `dataset.json` and prepared files (`adit_model.data`) of one kind. In memory is where
each structure lies, 16 bytes of it, and nothing of its atoms.
"""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adit_model.batch import AtomBatch, lattice_from_parameters
from adit_model.config import ELEMENTS, KINDS, Condition
from adit_model.data import SPLITS, PreparedData, SizeGroups, batch_of
from adit_model.outputs import replacing

INDEX = "dataset.json"


@dataclass(frozen=True)
class ShardedData:
    """A folder of prepared files as one data set; arrays of atoms stay on the disk."""

    name: str
    kind: str
    source: str
    conditions: tuple[Condition, ...]
    shards: tuple[PreparedData, ...]

    @classmethod
    def load(cls, folder: Path) -> ShardedData:
        """Open a folder.

        Raises:
            ValueError: it is incomplete, damaged or no data set.
        """
        hint = "Make it with `adit data prepare NAME --shard-size N`, which goes on where it was."
        try:
            told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            conditions = tuple(Condition(**each) for each in told["conditions"])
            shards = tuple(PreparedData.load(folder / Path(name).name) for name in told["shards"])
            kinds = {told["kind"], *(shard.kind for shard in shards)}
            if len(kinds) > 1 or not shards:
                raise ValueError(f"kinds {sorted(kinds)} in {len(shards)} files")
            return cls(told["name"], told["kind"], told["source"], conditions, shards)
        except FileNotFoundError as error:
            raise ValueError(f"{folder} has no {INDEX}: it is not complete. {hint}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} is no data set in files: {error}. {hint}") from error

    @cached_property
    def num_atoms(self) -> Tensor:
        """Of each structure, `[structures]`."""
        return torch.cat([shard.num_atoms for shard in self.shards])

    @cached_property
    def split(self) -> Tensor:
        """Of each structure, `[structures]`."""
        return torch.cat([shard.split for shard in self.shards])

    def size_histogram(self) -> list[int]:
        """Training structures of 0, 1, 2, ... atoms."""
        return torch.bincount(self.num_atoms[self.split == SPLITS.index("train")].long()).tolist()

    def compositions(self) -> PreparedData:
        """The elements of all structures, in memory: a byte an atom. The prior needs no more."""
        names = [condition.name for condition in self.conditions]
        return PreparedData(
            name=self.name,
            kind=self.kind,
            atomic_numbers=torch.cat([shard.atomic_numbers for shard in self.shards]),
            coords=None,
            num_atoms=self.num_atoms,
            split=self.split,
            cell=None,
            source=self.source,
            labels={n: torch.cat([_label(shard, n) for shard in self.shards]) for n in names},
            conditions=self.conditions,
        )


def write_index(
    folder: Path,
    name: str,
    kind: str,
    source: str,
    conditions: Sequence[Condition],
    shards: Sequence[str],
) -> None:
    """Make one data set of the prepared files in a folder."""
    told = {
        "name": name,
        "kind": kind,
        "source": source,
        "conditions": [dataclasses.asdict(condition) for condition in conditions],
        "shards": list(shards),
    }
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def load_data(path: Path) -> PreparedData | ShardedData:
    """A prepared file, or a folder of them.

    Raises:
        ValueError: it is missing, damaged or not a prepared data set.
    """
    return ShardedData.load(path) if path.is_dir() else PreparedData.load(path)


def groups_of(
    data: PreparedData | ShardedData, split: str, device: torch.device | str
) -> SizeGroups:
    """The structures of a split by size: on the device, or read from the disk as they are drawn."""
    if isinstance(data, ShardedData):
        return StreamedGroups(data, split, device)
    return SizeGroups(data, split, device)


def _label(shard: PreparedData, name: str) -> Tensor:
    unknown = torch.full((len(shard.split),), torch.nan)
    return shard.labels.get(name, unknown)


class StreamedGroups(SizeGroups):
    """`SizeGroups` of a data set in files: a batch is gathered on the CPU, then moved."""

    streamed = True

    def __init__(self, data: ShardedData, split: str, device: torch.device | str) -> None:
        if any(shard.coords is None for shard in data.shards):
            raise ValueError(f"{data.name} holds compositions only: they train the prior")
        self.kind, self.device, self.shards = data.kind, torch.device(device), data.shards
        # By size: the shard, the row in it, and the first of its atoms.
        found: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for number, shard in enumerate(data.shards):
            sizes = shard.num_atoms.long()
            starts = torch.cumsum(sizes, 0) - sizes
            chosen = shard.split == SPLITS.index(split)
            for size in torch.unique(sizes[chosen]).tolist():
                rows = torch.nonzero(chosen & (sizes == size)).flatten()
                part = (torch.full_like(rows, number).int(), rows.int(), starts[rows])
                found.setdefault(size, []).append(part)
        if not found:
            raise ValueError(f"{data.name}: no structure in split {split!r}")
        self.places = {
            size: tuple(torch.cat(each) for each in zip(*found[size], strict=True))
            for size in sorted(found)
        }
        self._sizes = list(self.places)
        self._cumulative = list(accumulate(n * self.number(n) for n in self._sizes))

    def number(self, size: int) -> int:
        """Structures of a size."""
        return len(self.places[size][0])

    def choose(
        self, num_tokens: int, generator: torch.Generator, pick: float
    ) -> tuple[int, Tensor]:
        """As `SizeGroups.choose`, but all from `pick`: the rows are needed on the CPU.

        A generator of a GPU would have to be waited for.
        """
        place = bisect_right(self._cumulative, pick * self._cumulative[-1])
        size = self._sizes[min(place, len(self._sizes) - 1)]
        drawn = np.random.default_rng(int(pick * 2**53))
        num = max(1, round(num_tokens / size))
        return size, torch.from_numpy(drawn.integers(self.number(size), size=num))

    def batch(self, size: int, rows: Tensor | slice) -> AtomBatch:
        """Chosen structures of one size, read from the files."""
        shards, in_shard, starts = (each[rows] for each in self.places[size])
        numbers = torch.empty(len(shards), size, dtype=torch.uint8)
        coords = torch.empty(len(shards), size, 3)
        cells = torch.zeros(len(shards), 6)
        for number in shards.unique().tolist():
            mine = shards == number
            shard = self.shards[number]
            assert shard.coords is not None
            atoms = starts[mine, None] + torch.arange(size)
            numbers[mine] = shard.atomic_numbers[atoms]
            coords[mine] = shard.coords[atoms]
            if shard.cell is not None:
                cells[mine] = shard.cell[in_shard[mine].long()]
        lattice = torch.zeros(len(shards), 3, 3)
        if self.kind == "crystal":
            lattice = lattice_from_parameters(cells[:, :3], torch.deg2rad(cells[:, 3:]))
        moved = (each.to(self.device) for each in (numbers.long(), coords, lattice))
        return batch_of(self.kind, *moved)

    def labels(
        self, size: int, chosen: Tensor, conditions: tuple[Condition, ...]
    ) -> dict[str, Tensor]:
        """As `SizeGroups.labels`; a label that a file lacks is unknown there."""
        first, *others = conditions
        shards, rows, starts = (each[chosen] for each in self.places[size])
        told = {first.name: torch.full((len(chosen),), KINDS.index(self.kind) + 1)}
        for condition in others:
            if self.kind not in condition.kinds:
                continue
            if condition.name == ELEMENTS:
                told[ELEMENTS] = torch.empty(len(chosen), size, dtype=torch.long)
            elif any(condition.name in shard.labels for shard in self.shards):
                told[condition.name] = torch.full((len(chosen),), torch.nan)
        for number in shards.unique().tolist():
            mine, shard = shards == number, self.shards[number]
            for name, values in told.items():
                if name == ELEMENTS:
                    atoms = starts[mine, None] + torch.arange(size)
                    values[mine] = shard.atomic_numbers[atoms].long()
                elif name in shard.labels:
                    values[mine] = shard.labels[name][rows[mine].long()]
        numbers = {c.name for c in others if c.type == "number"}
        for name, values in told.items():
            if values.is_floating_point() and name not in numbers:
                told[name] = values.nan_to_num(0.0).long()
        return {name: values.to(self.device) for name, values in told.items()}
