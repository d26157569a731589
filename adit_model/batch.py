"""AtomBatch: the one tensor record that carries crystals and molecules through the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AtomBatch:
    """A batch of structures, padded to the largest; molecules have null periodic parts.

    Attributes:
        atomic_numbers: `[batch, atoms]` int64, 0 at padding.
        frac_coords: `[batch, atoms, 3]` fractional coordinates, zero for molecules.
        positions: `[batch, atoms, 3]` Cartesian positions, angstrom.
        lattice: `[batch, 3, 3]` row vectors, angstrom; zero for molecules.
        periodic: `[batch]` bool, True for crystals.
        mask: `[batch, atoms]` bool, True where there is an atom.
    """

    atomic_numbers: Tensor
    frac_coords: Tensor
    positions: Tensor
    lattice: Tensor
    periodic: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.atomic_numbers.shape[0]

    def __getitem__(self, index: slice | Tensor) -> AtomBatch:
        return self._map(lambda t: t[index])

    @property
    def num_atoms(self) -> Tensor:
        """`[batch]` int64."""
        return self.mask.sum(dim=1)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.positions.device

    def to(self, device: torch.device | str) -> AtomBatch:
        """Return a copy on another device."""
        return self._map(lambda t: t.to(device))

    def _map(self, function: Callable[[Tensor], Tensor]) -> AtomBatch:
        values = {f.name: function(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return AtomBatch(**values)

    @classmethod
    def concatenate(cls, batches: Sequence[AtomBatch]) -> AtomBatch:
        """Join batches in order, padding all to the largest structure.

        Raises:
            ValueError: there is nothing to join.
        """
        if not batches:
            raise ValueError("concatenate needs at least one batch")
        width = max(b.mask.shape[1] for b in batches)

        def join(name: str) -> Tensor:
            parts = [getattr(b, name) for b in batches]
            if parts[0].dim() > 1 and name != "lattice":
                parts = [_pad_atoms(p, width) for p in parts]
            return torch.cat(parts)

        return cls(**{f.name: join(f.name) for f in dataclasses.fields(cls)})


def _pad_atoms(tensor: Tensor, width: int) -> Tensor:
    missing = width - tensor.shape[1]
    if not missing:
        return tensor
    padding = tensor.new_zeros(tensor.shape[0], missing, *tensor.shape[2:])
    return torch.cat([tensor, padding], dim=1)


def lattice_parameters(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths `[..., 3]` (angstrom) and angles `[..., 3]` (radians) of row vectors `[..., 3, 3]`.

    A null lattice has lengths and angles of zero.
    """
    lengths = lattice.norm(dim=-1)
    unit = lattice / lengths.clamp_min(1e-8).unsqueeze(-1)
    a, b, c = unit.unbind(dim=-2)
    cosines = torch.stack([(b * c).sum(-1), (a * c).sum(-1), (a * b).sum(-1)], dim=-1)
    angles = torch.acos(cosines.clamp(-1.0, 1.0))
    return lengths, torch.where(lengths > 0, angles, torch.zeros_like(angles))


def lattice_from_parameters(lengths: Tensor, angles: Tensor) -> Tensor:
    """Row vectors `[..., 3, 3]` from lengths (angstrom) and angles (radians).

    The orientation is pymatgen's (`Lattice.from_parameters`): c along z, a in the xz plane.
    Impossible angles give a cell of almost no volume, which every validity check rejects.
    """
    a, b, c = lengths.unbind(dim=-1)
    cos_alpha, cos_beta, cos_gamma = torch.cos(angles).unbind(dim=-1)
    sin_alpha, sin_beta, _ = torch.sin(angles).clamp_min(1e-6).unbind(dim=-1)
    value = ((cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)).clamp(-1.0, 1.0)
    sine = torch.sqrt((1.0 - value**2).clamp_min(0.0))
    zero = torch.zeros_like(a)
    vector_a = torch.stack([a * sin_beta, zero, a * cos_beta], dim=-1)
    vector_b = torch.stack([-b * sin_alpha * value, b * sin_alpha * sine, b * cos_alpha], dim=-1)
    vector_c = torch.stack([zero, zero, c], dim=-1)
    return torch.stack([vector_a, vector_b, vector_c], dim=-2)


def principal_frame(positions: Tensor) -> Tensor:
    """Centre molecules `[batch, atoms, 3]` (no padding) and turn them to their principal axes.

    The axes are the eigenvectors of the gyration tensor, longest first, the first two pointing
    to the side of positive skewness; the third keeps the handedness, so chirality is kept.
    """
    centred = positions - positions.mean(dim=1, keepdim=True)
    gyration = centred.transpose(1, 2) @ centred
    axes = torch.linalg.eigh(gyration.double())[1].flip(-1).to(positions.dtype)  # columns
    projected = centred @ axes
    signs = torch.where((projected**3).sum(dim=1) < 0, -1.0, 1.0)  # [batch, 3]
    axes = axes * signs.unsqueeze(1).to(axes.dtype)
    handed = torch.linalg.det(axes).sign()
    axes = torch.cat([axes[..., :2], axes[..., 2:] * handed[:, None, None]], dim=-1)
    return centred @ axes


def random_rotations(num: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Uniform rotation matrices `[num, 3, 3]`, from normalised Gaussian quaternions."""
    q = torch.randn(num, 4, generator=generator, device=device)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(dim=1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], dim=-1),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], dim=-1),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=1)
