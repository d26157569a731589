"""An autoencoder with equivariant latents: the first of ADiT's two ways to symmetry.

Of an atom's 8 numbers two are scalars and six are two vectors. When a structure turns, the vectors
turn and the scalars stay, by construction; the transformer learns the same from turned copies.

How a crystal gets through without a frame. A denoiser's latents come with no cell and no positions,
so the decoder has the scalars and vectors of all atoms and nothing else:

- Symmetry alone would lose the structure: at a site with an inversion centre, such as both of rock
  salt, every vector made from the surroundings vanishes, and the sites could not be told apart. So
  the encoder is given the three lattice vectors as vectors (they turn with the structure), and an
  atom's position in its cell, from the cell's middle, is carried into the latent vectors by one
  learned number each, as coordinates are in GeoLDM (arXiv 2305.01140). Nothing else in the encoder
  depends on the origin: when the atoms of a crystal are translated, its latents change by that
  number times the translation, modulo lattice vectors. Molecules count from their mean.
- The decoder attends over all pairs, by the differences of latent vectors. Positions come out as
  vectors, and the lattice as three vectors, each a mean over atoms: a metric tensor would need no
  vectors, but positions could not be turned into fractional coordinates with it. A crystal of one
  atom has two latent vectors, whose cross product is the third: hence rotations, not mirrors.
- fractional coordinates = positions @ inverse(lattice), and lengths and angles from the lattice:
  no rotation changes them. Only what is sampled takes the inverse; the loss compares vectors.

Rotations and permutations of atoms commute with both halves exactly. The decoder does not know the
origin of a crystal, and learns its translations from shifted copies, as the transformer does.

Plain torch with l <= 1, not e3nn: the latents are scalars and vectors and nothing needs more, a
structure of up to 30 atoms is a dense array of pairs, and the network stays importable without it.
All of it runs in float32: bf16 would break the symmetry in the third digit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adit_model.autoencoder import Autoencoder, Decoded, atom_mean, full_precision, type_errors
from adit_model.batch import AtomBatch, lattice_parameters
from adit_model.config import AutoencoderConfig
from adit_model.equivariant.geometry import (
    CENTRE,
    NUM_CENTRES,
    NUM_LATENT_CENTRES,
    fractional,
    latent_pairs,
    neighbours,
    places_of,
)
from adit_model.equivariant.layers import EquivariantTransformer, GatedVectors

UNITS_PER_ANGSTROM = 0.5  # a position in the latent, to begin with
LATTICE_UNITS = 0.4  # of a lattice vector over the cube root of the number of atoms, an angstrom
FIRST_LOG_VARIANCE = -4.0  # a latent that is mostly noise at first would cost many steps
NUM_WAVES = 4


class EquivariantEncoder(nn.Module):
    """Atoms to scalars and vectors, by attention over the neighbours within a cutoff."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.cutoff = config.cutoff
        width, vectors = config.width, config.vector_width
        self.atom_type_embedder = nn.Embedding(config.num_types, width)
        self.lattice_embedder = nn.Sequential(
            nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.lattice_vectors = nn.Linear(3, vectors, bias=False)
        self.transformer = EquivariantTransformer(
            config.encoder_depth, width, vectors, config.num_heads, NUM_CENTRES, config.mlp_width
        )

    def forward(self, batch: AtomBatch, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Scalars, vectors, and positions `[batch, 3, atoms]` that the layers have not seen."""
        places = places_of(batch)
        lengths, angles = lattice_parameters(places.lattice)
        size = batch.num_atoms[:, None] ** (1 / 3)
        shape = self.lattice_embedder(torch.cat([lengths / size, angles], dim=-1))
        s = self.atom_type_embedder(batch.atomic_numbers) + shape[:, None]
        cell = places.lattice * (LATTICE_UNITS / size[..., None])
        v = self.lattice_vectors(cell.transpose(1, 2))  # [batch, 3, vectors]
        v = v[:, :, None].expand(-1, -1, s.shape[1], -1)
        s, v = self.transformer(s, v, neighbours(batch, self.cutoff), mask)
        return s, v, places.positions.transpose(1, 2)


class LatentHead(nn.Module):
    """Features to the latent's mean and log variance, scalars first, then vectors."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.num_vectors = config.latent_vectors
        self.num_scalars = config.latent_dim - 3 * config.latent_vectors
        self.scalars = nn.Linear(config.width, 2 * self.num_scalars + self.num_vectors)
        self.vectors = GatedVectors(config.width, config.vector_width, self.num_vectors, std=0.3)
        units = torch.zeros(self.num_vectors)
        units[0] = UNITS_PER_ANGSTROM
        self.units = nn.Parameter(units)  # latent units an angstrom, of a position
        nn.init.constant_(self.scalars.bias[self.num_scalars :], FIRST_LOG_VARIANCE)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """`[batch, atoms, 2 * latent_dim]`; a vector's three components have one variance."""
        s, v, positions = features
        scalars = self.scalars(s)
        vectors = self.vectors(s, v) + positions[..., None] * self.units
        parts = (self.num_scalars, self.num_scalars, self.num_vectors)
        mean, log_variance, shared = scalars.split(parts, dim=-1)
        vector_log_variance = shared.repeat_interleave(3, dim=-1)
        return torch.cat([mean, join_vectors(vectors), log_variance, vector_log_variance], dim=-1)


class LatentEmbedding(nn.Module):
    """Latents to the decoder's first features."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.num_vectors = config.latent_vectors
        self.num_scalars = config.latent_dim - 3 * config.latent_vectors
        products = self.num_vectors * (self.num_vectors + 1) // 2
        inputs = (self.num_scalars + products) * (1 + 2 * NUM_WAVES)
        self.scalars = nn.Sequential(
            nn.Linear(inputs, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.vectors = nn.Linear(self.num_vectors, config.vector_width, bias=False)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scalars, vectors, and the latent's own vectors `[batch, 3, atoms, latent_vectors]`."""
        own = latent[..., : self.num_scalars]
        v = split_vectors(latent[..., self.num_scalars :])
        products = torch.einsum("bxic,bxid->bicd", v, v)
        rows, columns = torch.triu_indices(self.num_vectors, self.num_vectors, device=v.device)
        products = products[..., rows, columns]
        root = products.sign() * ((products.abs() + 1e-4).sqrt() - 1e-2)
        numbers = torch.cat([own, root], dim=-1)
        # A hundred elements lie in a plane of two scalars: waves tell those that are near.
        angles = torch.cat([numbers * 2.0**k for k in range(NUM_WAVES)], dim=-1)
        s = self.scalars(torch.cat([numbers, angles.sin(), angles.cos()], dim=-1))
        return s, self.vectors(v), v


class EquivariantDecoder(nn.Module):
    """Features to types, positions and the lattice, by attention over all pairs."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width, vectors = config.width, config.vector_width
        radial = NUM_LATENT_CENTRES * config.latent_vectors
        self.transformer = EquivariantTransformer(
            config.decoder_depth, width, vectors, config.num_heads, radial, config.mlp_width
        )
        self.atom_types_head = nn.Linear(width, config.num_types)
        self.pos_head = GatedVectors(width, vectors, 1, std=0.1)
        self.lattice_head = GatedVectors(width, vectors, 3, std=0.1)
        units = torch.zeros(config.latent_vectors)
        units[0] = 1.0 / UNITS_PER_ANGSTROM
        self.units = nn.Parameter(units)  # angstrom a latent unit, of a position

    def forward(self, features: tuple[Tensor, Tensor, Tensor], mask: Tensor | None) -> Decoded:
        """Raw outputs; positions from a molecule's mean or the middle of the cell."""
        s, v, own = features
        s, v = self.transformer(s, v, latent_pairs(own, mask), mask)
        positions = (self.pos_head(s, v)[..., 0] + own @ self.units).transpose(1, 2)
        weights = s.new_ones(s.shape[:2]) if mask is None else mask.to(s.dtype)
        num_atoms = weights.sum(dim=1)[:, None, None]
        vectors = self.lattice_head(s, v) * weights[:, None, :, None]
        lattice = (vectors.sum(dim=2) / (LATTICE_UNITS * num_atoms ** (2 / 3))).transpose(1, 2)
        lengths, angles = lattice_parameters(lattice)
        return Decoded(
            type_logits=self.atom_types_head(s),
            positions=positions,
            frac_coords=fractional(positions, lattice),
            lengths=lengths,
            angles=angles,
            lattice=lattice,
        )


class EquivariantAutoencoder(Autoencoder):
    """Encoder, diagonal Gaussian latent, decoder; see the module docstring."""

    def _make_parts(self) -> None:
        self.encoder = EquivariantEncoder(self.config)
        self.quant_conv = LatentHead(self.config)
        self.post_quant_conv = LatentEmbedding(self.config)
        self.decoder = EquivariantDecoder(self.config)

    def encode(self, batch: AtomBatch, padded: bool | None = None) -> tuple[Tensor, Tensor]:
        """See `Autoencoder.encode`; scalars first, then the vectors one after another."""
        with full_precision(batch.device):
            return super().encode(batch, padded)

    def decode(self, latent: Tensor, mask: Tensor | None) -> Decoded:
        """See `Autoencoder.decode`."""
        with full_precision(latent.device):
            return super().decode(latent.float(), mask)

    def errors(self, decoded: Decoded, batch: AtomBatch) -> dict[str, Tensor]:
        """Cross entropy of types and squared errors of vectors, angstrom, in the batch's frame."""
        places = places_of(batch)
        difference = decoded.positions - places.positions
        if self.config.frac_loss == "wrapped":
            cells = fractional(difference.detach(), places.lattice) - CENTRE
            difference = difference - cells.round() @ places.lattice
        crystal = batch.mask & batch.periodic[:, None]
        molecule = batch.mask & ~batch.periodic[:, None]
        assert decoded.lattice is not None
        cell = (decoded.lattice - places.lattice).square().sum(dim=-1).mean(dim=-1)
        squares = difference.square().sum(dim=-1)
        return {
            "type": type_errors(decoded, batch),
            "position": atom_mean(squares, molecule),
            "frac": atom_mean(squares, crystal),
            "lattice": atom_mean(cell, batch.periodic),
        }


def split_vectors(numbers: Tensor) -> Tensor:
    """`[batch, atoms, 3 n]`, one vector after another -> `[batch, 3, atoms, n]`."""
    return numbers.unflatten(-1, (-1, 3)).movedim(-1, 1)


def join_vectors(vectors: Tensor) -> Tensor:
    """`[batch, 3, atoms, n]` -> `[batch, atoms, 3 n]`."""
    return vectors.movedim(1, -1).flatten(-2)
