"""The variational autoencoder: any set of atoms to and from a latent of 8 numbers an atom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from adit_model.batch import AtomBatch, lattice_from_parameters, lattice_parameters
from adit_model.config import AutoencoderConfig
from adit_model.layers import Transformer, index_embedding

ANGSTROM_PER_NM = 10.0  # the position head predicts nanometres


def _coordinate_mlp(inputs: int, width: int, scale: float) -> nn.Sequential:
    """Random features of coordinates, as loud at the start as the type embedding.

    `scale` is one over the typical size of an input: with torch's default start the coordinates
    are drowned by the type and index embeddings, and training needs several times longer.
    """
    first = nn.Linear(inputs, width, bias=False)
    last = nn.Linear(width, width)
    nn.init.normal_(first.weight, std=2.0 * scale)
    nn.init.normal_(last.weight, std=width**-0.5)
    return nn.Sequential(first, nn.SiLU(), last)


def quiet_linear(width: int, outputs: int) -> nn.Linear:
    """A head that starts near zero, so that the first steps do not chase random outputs."""
    linear = nn.Linear(width, outputs, bias=False)
    nn.init.normal_(linear.weight, std=0.1 * width**-0.5)
    return linear


def full_precision(device: torch.device) -> torch.autocast:
    """No autocast: geometry is float32, as bf16 has three digits, 0.02 angstrom of a cell."""
    return torch.autocast(device.type, enabled=False)


def _mask_or_none(batch: AtomBatch, padded: bool | None) -> Tensor | None:
    """None when nothing is padded: attention without a mask is faster.

    `padded` None means to look, for which a GPU has to be waited for.
    """
    if padded is None:
        padded = not bool(batch.mask.all())
    return batch.mask if padded else None


def standard_frame(batch: AtomBatch) -> AtomBatch:
    """Centre molecules; turn crystals to the orientation of their cell parameters.

    Fractional coordinates are wrapped to [-0.02, 0.98): numerical zeros stay together.
    """
    periodic = batch.periodic[:, None, None]
    mask = batch.mask.unsqueeze(-1)
    frac = (batch.frac_coords + 0.02) % 1.0 - 0.02
    frac = torch.where(periodic & mask, frac, torch.zeros_like(frac))
    lattice = lattice_from_parameters(*lattice_parameters(batch.lattice))
    lattice = torch.where(periodic, lattice, torch.zeros_like(lattice))
    mean = (batch.positions * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    positions = torch.where(periodic, frac @ lattice, (batch.positions - mean) * mask)
    return AtomBatch(batch.atomic_numbers, frac, positions, lattice, batch.periodic, batch.mask)


class Encoder(nn.Module):
    """Atoms to features: embeddings of type, coordinates and index through a Transformer."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.atom_type_embedder = nn.Embedding(config.num_types, width)
        self.pos_embedder = _coordinate_mlp(3, width, scale=0.5)  # angstrom
        self.frac_coords_embedder = _coordinate_mlp(3, width, scale=2.0)
        if config.lattice_input:
            self.lattice_embedder = _coordinate_mlp(6, width, scale=0.5)
        self.transformer = Transformer(
            width, config.encoder_depth, config.num_heads, config.mlp_width
        )

    def forward(self, batch: AtomBatch, mask: Tensor | None) -> Tensor:
        """Features `[batch, atoms, width]`; mask None: nothing is padded."""
        with full_precision(batch.device):
            x = self._embedded(batch)
        x = x + index_embedding(x.shape[1], x.shape[2], x.device)
        return self.transformer(x, mask)

    def _embedded(self, batch: AtomBatch) -> Tensor:
        if self.config.input_frame == "standard":
            batch = standard_frame(batch)
        x = self.atom_type_embedder(batch.atomic_numbers)
        x = x + self.pos_embedder(batch.positions) + self.frac_coords_embedder(batch.frac_coords)
        if self.config.lattice_input:
            lengths, angles = lattice_parameters(batch.lattice)
            scaled = lengths / batch.num_atoms[:, None] ** (1 / 3)
            x = x + self.lattice_embedder(torch.cat([scaled, angles], dim=-1)).unsqueeze(1)
        return x


@dataclass(frozen=True)
class Decoded:
    """Raw decoder outputs.

    Attributes:
        type_logits: `[batch, atoms, num_types]`.
        positions: `[batch, atoms, 3]` angstrom.
        frac_coords: `[batch, atoms, 3]`, not wrapped.
        lengths: `[batch, 3]` angstrom.
        angles: `[batch, 3]` radians.
        lattice: `[batch, 3, 3]` row vectors, angstrom, in the frame of `positions`; None where only
            its lengths and angles are known.
    """

    type_logits: Tensor
    positions: Tensor
    frac_coords: Tensor
    lengths: Tensor
    angles: Tensor
    lattice: Tensor | None = None


class Decoder(nn.Module):
    """Features to types, coordinates and lattice."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width = config.width
        self.transformer = Transformer(
            width, config.decoder_depth, config.num_heads, config.mlp_width
        )
        self.atom_types_head = nn.Linear(width, config.num_types)
        self.pos_head = quiet_linear(width, 3)
        self.frac_coords_head = quiet_linear(width, 3)
        self.lattice_head = quiet_linear(width, 6)

    def forward(self, x: Tensor, mask: Tensor | None) -> Decoded:
        """x `[batch, atoms, width]`, mask `[batch, atoms]`, None where nothing is padded."""
        x = x + index_embedding(x.shape[1], x.shape[2], x.device)
        x = self.transformer(x, mask)
        with full_precision(x.device):
            x = x.float()
            weights = x.new_ones(*x.shape[:2], 1) if mask is None else mask[..., None].to(x.dtype)
            num_atoms = weights.sum(dim=1)
            lattice = self.lattice_head((x * weights).sum(dim=1) / num_atoms)
            return Decoded(
                type_logits=self.atom_types_head(x),
                positions=self.pos_head(x) * ANGSTROM_PER_NM,
                frac_coords=self.frac_coords_head(x),
                lengths=lattice[:, :3] * num_atoms ** (1 / 3),
                angles=lattice[:, 3:],
            )


class Autoencoder(nn.Module):
    """Encoder, diagonal Gaussian latent, decoder (arXiv 2503.03965, section 3)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self._make_parts()

    def _make_parts(self) -> None:
        width, latent_dim = self.config.width, self.config.latent_dim
        self.encoder: nn.Module = Encoder(self.config)
        self.quant_conv: nn.Module = nn.Linear(width, 2 * latent_dim, bias=False)
        self.post_quant_conv: nn.Module = nn.Linear(latent_dim, width, bias=False)
        self.decoder: nn.Module = Decoder(self.config)

    def encode(self, batch: AtomBatch, padded: bool | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, `[batch, atoms, latent_dim]` each.

        `padded` tells whether structures differ in size; None means to look.
        """
        features = self.encoder(batch, _mask_or_none(batch, padded))
        mean, log_variance = self.quant_conv(features).float().chunk(2, dim=-1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))

    def decode(self, latent: Tensor, mask: Tensor | None) -> Decoded:
        """Raw outputs for a latent `[batch, atoms, latent_dim]`; mask None: nothing is padded."""
        return self.decoder(self.post_quant_conv(latent), mask)

    def loss(
        self,
        batch: AtomBatch,
        weights: LossWeights,
        generator: torch.Generator | None = None,
        padded: bool | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction and KL loss of a batch, and its parts; `padded` as for `encode`."""
        mean, std = self.encode(batch, padded)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        decoded = self.decode(mean + std * noise, _mask_or_none(batch, padded))
        with full_precision(mean.device):
            parts = self.errors(decoded, batch)
        kl = 0.5 * (mean**2 + std**2 - 1.0) - std.log()
        parts["kl"] = atom_mean(kl.sum(dim=-1), batch.mask)
        total = parts["type"] + weights.kl * parts["kl"]
        for name in ("position", "frac", "lattice"):
            total = total + weights.geometry * torch.log1p(parts[name] / weights.floor**2)
        return total, parts

    def errors(self, decoded: Decoded, batch: AtomBatch) -> dict[str, Tensor]:
        """Cross entropy of types and squared errors of geometry, see `reconstruction_errors`."""
        return reconstruction_errors(decoded, batch, self.config)


@dataclass(frozen=True)
class LossWeights:
    """Weights beside the type loss (nats an atom).

    Squared errors enter as geometry * log(1 + error / floor^2): while an error is large, its
    gradient is as large as that of the types, whatever the unit; once it is below the floor the
    loss is quadratic, and the latent's noise settles where it moves a coordinate by about
    floor * sqrt(kl / 2 geometry) angstrom, 0.005 by default.
    """

    geometry: float = 0.45
    floor: float = 0.05  # angstrom
    kl: float = 0.01  # per nat an atom


def atom_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is true; 0 where it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def type_errors(decoded: Decoded, batch: AtomBatch) -> Tensor:
    """Mean cross entropy of the types, nats an atom."""
    logits = decoded.type_logits.transpose(1, 2)
    errors = functional.cross_entropy(logits, batch.atomic_numbers, reduction="none")
    return atom_mean(errors, batch.mask)


def reconstruction_errors(
    decoded: Decoded, batch: AtomBatch, config: AutoencoderConfig
) -> dict[str, Tensor]:
    """Cross entropy of types and squared errors of geometry, all lengths in angstrom.

    Fractional errors are multiplied by the cell lengths and angle errors by their mean, so that
    one weight serves all geometric parts.
    """
    target = standard_frame(batch) if config.input_frame == "standard" else batch
    crystal = target.mask & target.periodic[:, None]
    molecule = target.mask & ~target.periodic[:, None]
    frac_error = decoded.frac_coords - target.frac_coords
    if config.frac_loss == "wrapped":
        frac_error = frac_error - frac_error.detach().round()
    lengths, angles = lattice_parameters(target.lattice)
    frac_error = frac_error * lengths.unsqueeze(1)
    scale = lengths.mean(dim=-1, keepdim=True)
    lattice_error = torch.cat(
        [decoded.lengths - lengths, (decoded.angles - angles) * scale], dim=-1
    )
    periodic = target.periodic.to(lattice_error.dtype)
    per_structure = (lattice_error**2).mean(dim=-1) * periodic
    return {
        "type": type_errors(decoded, batch),
        "position": atom_mean(((decoded.positions - target.positions) ** 2).sum(-1), molecule),
        "frac": atom_mean((frac_error**2).sum(-1), crystal),
        "lattice": per_structure.sum() / periodic.sum().clamp_min(1.0),
    }
