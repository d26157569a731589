"""Prepared arrays: one safetensors file a data set, resident on the device while training.

Layout: `atomic_numbers` uint8 `[total_atoms]`, `coords` float32 `[total_atoms, 3]` (fractional
for crystals, angstrom for molecules), `num_atoms` int32 `[structures]`, `split` uint8
`[structures]` (0 train, 1 val, 2 test) and, for crystals, `cell` float32 `[structures, 6]`
(lengths in angstrom, angles in degrees). The metadata names the kind and the source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
from adit_model.config import KINDS
from adit_model.outputs import replacing

SPLITS = ("train", "val", "test")
_REQUIRED = ("atomic_numbers", "coords", "num_atoms", "split")


@dataclass(frozen=True)
class PreparedData:
    """The arrays of one data set of one kind; see the module docstring for shapes."""

    name: str
    kind: str
    atomic_numbers: Tensor
    coords: Tensor
    num_atoms: Tensor
    split: Tensor
    cell: Tensor | None
    source: str = ""

    def save(self, path: Path) -> None:
        """Write the arrays, replacing a file only once the new one is complete."""
        tensors = {name: getattr(self, name) for name in _REQUIRED}
        if self.cell is not None:
            tensors["cell"] = self.cell
        metadata = {"name": self.name, "kind": self.kind, "source": self.source}
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
        if kind == "crystal" and "cell" not in tensors:
            missing.append("cell")
        if missing or kind not in KINDS:
            raise ValueError(f"{path}: kind {kind!r}, missing {missing or 'nothing'}. {hint}")
        return cls(
            name=metadata.get("name", path.stem),
            kind=kind,
            cell=tensors.get("cell"),
            source=metadata.get("source", ""),
            **{key: tensors[key] for key in _REQUIRED},
        )

    def size_histogram(self) -> list[int]:
        """Training structures of 0, 1, 2, ... atoms."""
        sizes = self.num_atoms[self.split == SPLITS.index("train")]
        return torch.bincount(sizes.long()).tolist()


class SizeGroups:
    """The structures of one split, grouped by size, so that batches need no padding."""

    def __init__(self, data: PreparedData, split: str, device: torch.device | str) -> None:
        self.kind = data.kind
        self.device = torch.device(device)
        self.groups: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
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
        if not self.groups:
            raise ValueError(f"{data.name}: no structure in split {split!r}")
        # A batch holds a fixed number of atoms, so groups are drawn by their atoms: every
        # structure is then equally likely.
        atoms_per_group = [n * len(g[0]) for n, g in self.groups.items()]
        self._sizes = list(self.groups)
        self._weights = torch.tensor(atoms_per_group, dtype=torch.float32)

    def __len__(self) -> int:
        return sum(len(group[0]) for group in self.groups.values())

    def draw(self, num_tokens: int, generator: torch.Generator, pick: float) -> AtomBatch:
        """A random batch of about `num_tokens` atoms in structures of one size.

        Args:
            num_tokens: atoms in the batch.
            generator: random numbers on the device, for the rows.
            pick: uniform number in [0, 1) that chooses the size (drawn on the CPU, so that a
                GPU need not be waited for).
        """
        cumulative = torch.cumsum(self._weights / self._weights.sum(), 0)
        place = min(int((cumulative <= pick).sum()), len(self._sizes) - 1)
        size = self._sizes[place]
        total = len(self.groups[size][0])
        num = max(1, round(num_tokens / size))
        rows = torch.randint(total, (num,), generator=generator, device=self.device)
        return self.batch(size, rows)

    def batch(self, size: int, rows: Tensor | slice) -> AtomBatch:
        """Chosen structures of one size, as stored."""
        numbers, coords, lattice = (t[rows] for t in self.groups[size])
        crystal = self.kind == "crystal"
        return AtomBatch(
            atomic_numbers=numbers,
            frac_coords=coords if crystal else torch.zeros_like(coords),
            positions=coords @ lattice if crystal else coords,
            lattice=lattice,
            periodic=torch.full((len(numbers),), crystal, device=self.device),
            mask=torch.ones_like(numbers, dtype=torch.bool),
        )

    def batches(self, num_tokens: int, limit: int | None = None) -> list[tuple[int, slice]]:
        """All structures once, as (size, rows) of at most `num_tokens` atoms, for evaluation."""
        plan = []
        for size, group in self.groups.items():
            step = max(1, num_tokens // size)
            total = len(group[0]) if limit is None else min(limit, len(group[0]))
            plan += [(size, slice(i, min(i + step, total))) for i in range(0, total, step)]
        return plan


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
    batch: AtomBatch, molecule_frame: str, generator: torch.Generator
) -> AtomBatch:
    """Molecules in the orientation that the denoiser is trained on; crystals as stored."""
    if bool(batch.periodic.any()):
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


def tokens_by_kind(groups: list[SizeGroups], tokens: int, shares: list[float]) -> list[int]:
    """Split a step's atoms over the data sets."""
    total = sum(shares)
    if len(shares) != len(groups) or total <= 0 or not math.isfinite(total):
        raise ValueError(f"data shares {shares} do not fit {len(groups)} data sets")
    return [max(1, round(tokens * share / total)) for share in shares]
