"""Prepared arrays: one safetensors file a data set, resident on the device while training.

Layout: `atomic_numbers` uint8 `[total_atoms]`, `coords` float32 `[total_atoms, 3]` (fractional
for crystals, angstrom for molecules), `num_atoms` int32 `[structures]`, `split` uint8
`[structures]` (0 train, 1 val, 2 test) and, for crystals, `cell` float32 `[structures, 6]`
(lengths in angstrom, angles in degrees). Labels of the structures, `label.NAME` float32
`[structures]` with NaN where unknown, are what conditions can be trained on. The metadata names
the kind and the source and describes each label as a `Condition`. A file without `coords` holds
compositions only, which train the prior.
"""

from __future__ import annotations

import dataclasses
import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adit_model.batch import (
    AtomBatch,
    lattice_from_parameters,
    principal_frame,
    random_rotations,
)
from adit_model.config import ELEMENTS, KINDS, Condition
from adit_model.outputs import replacing

SPLITS = ("train", "val", "test")
_LABEL = "label."
_REQUIRED = ("atomic_numbers", "num_atoms", "split")
_GEOMETRY = ("coords", "cell")


@dataclass(frozen=True)
class PreparedData:
    """The arrays of one data set of one kind; see the module docstring for shapes."""

    name: str
    kind: str
    atomic_numbers: Tensor
    coords: Tensor | None
    num_atoms: Tensor
    split: Tensor
    cell: Tensor | None
    source: str = ""
    labels: dict[str, Tensor] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()  # what the labels are, one each

    def save(self, path: Path) -> None:
        """Write the arrays, replacing a file only once the new one is complete."""
        tensors = {name: getattr(self, name) for name in _REQUIRED}
        for name in _GEOMETRY:
            if getattr(self, name) is not None:
                tensors[name] = getattr(self, name)
        tensors |= {_LABEL + name: values for name, values in self.labels.items()}
        described = json.dumps([dataclasses.asdict(each) for each in self.conditions])
        metadata = {
            "name": self.name,
            "kind": self.kind,
            "source": self.source,
            "conditions": described,
        }
        with replacing(path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> PreparedData:
        """Read a prepared file.

        Raises:
            ValueError: the file is missing, damaged or not a prepared data set.
        """
        hint = "Make it with `adit data prepare`."
        if not path.is_file():
            raise ValueError(f"No prepared data at {path}. {hint}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is damaged or no safetensors file: {error}. {hint}"
            ) from error
        kind = metadata.get("kind")
        missing = [key for key in _REQUIRED if key not in tensors]
        if kind == "crystal" and "coords" in tensors and "cell" not in tensors:
            missing.append("cell")
        if missing or kind not in KINDS:
            raise ValueError(f"{path}: kind {kind!r}, missing {missing or 'nothing'}. {hint}")
        try:
            conditions = tuple(Condition(**c) for c in json.loads(metadata.get("conditions", "[]")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} describes its labels wrongly: {error}. {hint}") from error
        return cls(
            labels={
                key.removeprefix(_LABEL): t for key, t in tensors.items() if key.startswith(_LABEL)
            },
            conditions=conditions,
            name=metadata.get("name", path.stem),
            kind=kind,
            coords=tensors.get("coords"),
            cell=tensors.get("cell"),
            source=metadata.get("source", ""),
            **{key: tensors[key] for key in _REQUIRED},
        )

    def compositions(self) -> PreparedData:
        """What the prior needs; see `ShardedData`."""
        return self

    def size_histogram(self) -> list[int]:
        """Training structures of 0, 1, 2, ... atoms."""
        sizes = self.num_atoms[self.split == SPLITS.index("train")]
        return torch.bincount(sizes.long()).tolist()


class SizeGroups:
    """The structures of one split, grouped by size, so that batches need no padding."""

    streamed = False  # whether batches are read from the disk, see `adit_model.sharded_data`

    def __init__(self, data: PreparedData, split: str, device: torch.device | str) -> None:
        self.kind = data.kind
        if data.coords is None:
            raise ValueError(f"{data.name} holds compositions only: they train the prior")
        self.device = torch.device(device)
        self.groups: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.rows: dict[int, Tensor] = {}  # of the data set, by size
        sizes = data.num_atoms.long()
        starts = torch.cumsum(sizes, 0) - sizes
        chosen = data.split == SPLITS.index(split)
        for size in torch.unique(sizes[chosen]).tolist():
            rows = torch.nonzero(chosen & (sizes == size)).flatten()
            atoms = starts[rows, None] + torch.arange(size)
            lattice = torch.zeros(len(rows), 3, 3)
            if data.cell is not None:
                cell = data.cell[rows]
                lattice = lattice_from_parameters(cell[:, :3], torch.deg2rad(cell[:, 3:]))
            self.groups[size] = (
                data.atomic_numbers[atoms].long().to(self.device),
                data.coords[atoms].to(self.device),
                lattice.to(self.device),
            )
            self.rows[size] = rows.to(self.device)
        self.told = {name: values.to(self.device) for name, values in data.labels.items()}
        if not self.groups:
            raise ValueError(f"{data.name}: no structure in split {split!r}")
        # A batch holds a fixed number of atoms, so groups are drawn by their atoms: every
        # structure is then equally likely.
        atoms_per_group = [n * len(g[0]) for n, g in self.groups.items()]
        self._sizes = list(self.groups)
        self._cumulative = list(accumulate(atoms_per_group))

    def __len__(self) -> int:
        return sum(map(self.number, self._sizes))

    def number(self, size: int) -> int:
        """Structures of a size."""
        return len(self.groups[size][0])

    def draw(self, num_tokens: int, generator: torch.Generator, pick: float) -> AtomBatch:
        """A random batch of about `num_tokens` atoms in structures of one size; see `choose`."""
        return self.batch(*self.choose(num_tokens, generator, pick))

    def choose(
        self, num_tokens: int, generator: torch.Generator, pick: float
    ) -> tuple[int, Tensor]:
        """A size, and random structures of it with about `num_tokens` atoms together.

        Args:
            num_tokens: atoms in the batch.
            generator: random numbers on the device, for the rows.
            pick: uniform number in [0, 1) that chooses the size (drawn on the CPU, so that a
                GPU need not be waited for).
        """
        place = bisect_right(self._cumulative, pick * self._cumulative[-1])
        place = min(place, len(self._sizes) - 1)
        size = self._sizes[place]
        total = self.number(size)
        num = max(1, round(num_tokens / size))
        return size, torch.randint(total, (num,), generator=generator, device=self.device)

    def labels(
        self, size: int, chosen: Tensor, conditions: tuple[Condition, ...]
    ) -> dict[str, Tensor]:
        """What the conditions are of chosen structures of one size, see `Denoiser.forward`.

        Conditions that these structures have no labels for are left out.
        """
        first, *others = conditions
        label = KINDS.index(self.kind) + 1
        found = {first.name: torch.full((len(chosen),), label, device=self.device)}
        if any(c.name == ELEMENTS and self.kind in c.kinds for c in others):
            found[ELEMENTS] = self.groups[size][0][chosen]
        return found | labels_of(self.told, self.rows[size][chosen], self.kind, others)

    def batch(self, size: int, rows: Tensor | slice) -> AtomBatch:
        """Chosen structures of one size, as stored."""
        return batch_of(self.kind, *(t[rows] for t in self.groups[size]))

    def batches(self, num_tokens: int, limit: int | None = None) -> list[tuple[int, slice]]:
        """All structures once, as (size, rows) of at most `num_tokens` atoms, for evaluation."""
        plan = []
        for size in self._sizes:
            step = max(1, num_tokens // size)
            total = self.number(size) if limit is None else min(limit, self.number(size))
            plan += [(size, slice(i, min(i + step, total))) for i in range(0, total, step)]
        return plan


def batch_of(kind: str, numbers: Tensor, coords: Tensor, lattice: Tensor) -> AtomBatch:
    """Structures of one size as stored: `[structures, size]`, `[..., 3]`, `[structures, 3, 3]`."""
    crystal = kind == "crystal"
    return AtomBatch(
        atomic_numbers=numbers,
        frac_coords=coords if crystal else torch.zeros_like(coords),
        positions=coords @ lattice if crystal else coords,
        lattice=lattice,
        periodic=torch.full((len(numbers),), crystal, device=numbers.device),
        mask=torch.ones_like(numbers, dtype=torch.bool),
    )


def labels_of(
    told: dict[str, Tensor], rows: Tensor, kind: str, conditions: Sequence[Condition]
) -> dict[str, Tensor]:
    """Labels `[rows]` of those conditions that a data set has: classes, or numbers with NaN."""
    found = {}
    for condition in conditions:
        if condition.name in told and kind in condition.kinds:
            values = told[condition.name][rows]
            number = condition.type == "number"
            found[condition.name] = values if number else values.nan_to_num(0.0).long()
    return found


class CompositionTable:
    """The compositions of one split, which the prior learns from."""

    def __init__(self, data: PreparedData, split: str, device: torch.device | str) -> None:
        self.kind = data.kind
        self.device = torch.device(device)
        chosen = torch.nonzero(data.split == SPLITS.index(split)).flatten()
        if not len(chosen):
            raise ValueError(f"{data.name}: no composition in split {split!r}")
        sizes = data.num_atoms.long()
        starts = (torch.cumsum(sizes, 0) - sizes)[chosen, None]
        place = torch.arange(int(sizes[chosen].max()))
        there = place < sizes[chosen, None]
        atoms = (starts + place).clamp_max(len(data.atomic_numbers) - 1)
        numbers = torch.where(there, data.atomic_numbers[atoms].long(), 0)
        if data.kind == "crystal":  # by atomic number, padding last
            numbers = torch.where(numbers > 0, numbers, 1000).sort(dim=1)[0] % 1000
        self.numbers = numbers.to(self.device)
        self.labels = {name: values[chosen].to(self.device) for name, values in data.labels.items()}

    def __len__(self) -> int:
        return len(self.numbers)

    def draw(
        self, num_atoms: int, generator: torch.Generator, conditions: Sequence[Condition]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Random compositions of about `num_atoms` atoms together, and their labels."""
        mean = float((self.numbers > 0).sum()) / len(self)
        num = max(1, round(num_atoms / mean))
        rows = torch.randint(len(self), (num,), generator=generator, device=self.device)
        return self.numbers[rows], labels_of(self.labels, rows, self.kind, conditions)


def augment_for_autoencoder(batch: AtomBatch, generator: torch.Generator) -> AtomBatch:
    """Random rotations of everything, and random origins for half of the crystals.

    The other half keeps its origin: special positions are what users have and what the
    denoiser learns from.
    """
    rotations = random_rotations(len(batch), generator, batch.device)
    shape = (len(batch), 1, 3)
    shift = torch.rand(shape, generator=generator, device=batch.device)
    moved = torch.rand(shape[:2], generator=generator, device=batch.device) < 0.5
    periodic = batch.periodic[:, None, None]
    frac = torch.where(
        periodic & moved[..., None], (batch.frac_coords + shift) % 1.0, batch.frac_coords
    )
    lattice = batch.lattice @ rotations
    positions = torch.where(periodic, frac @ lattice, batch.positions @ rotations)
    return AtomBatch(batch.atomic_numbers, frac, positions, lattice, batch.periodic, batch.mask)


def frame_for_denoiser(
    batch: AtomBatch, molecule_frame: str, generator: torch.Generator, periodic: bool
) -> AtomBatch:
    """Molecules in the orientation that the denoiser is trained on; crystals as stored."""
    if periodic:
        return batch
    if molecule_frame == "principal":
        positions = principal_frame(batch.positions)
    else:
        positions = batch.positions - batch.positions.mean(dim=1, keepdim=True)
        positions = positions @ random_rotations(len(batch), generator, batch.device)
    return AtomBatch(
        batch.atomic_numbers,
        batch.frac_coords,
        positions,
        batch.lattice,
        batch.periodic,
        batch.mask,
    )


def tokens_by_kind(groups: Sequence[object], tokens: int, shares: list[float]) -> list[int]:
    """Split a step's atoms over the data sets."""
    total = sum(shares)
    if len(shares) != len(groups) or total <= 0 or not math.isfinite(total):
        raise ValueError(f"data shares {shares} do not fit {len(groups)} data sets")
    return [max(1, round(tokens * share / total)) for share in shares]
