"""ADiT: the autoencoder and the denoiser as one model that loads, encodes, decodes and samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from adit_model import checkpoint
from adit_model.autoencoder import Autoencoder, Decoded
from adit_model.batch import AtomBatch, lattice_from_parameters
from adit_model.config import KINDS, ADiTConfig
from adit_model.data import frame_for_denoiser
from adit_model.denoiser import Denoiser
from adit_model.pretrained import read
from adit_model.requests import Request
from adit_model.samplers import sample_latents

ChooseTypes = Callable[[Tensor], Tensor]
REQUEST_FROM = 0.5  # earlier predictions are too blurred to hold elements


class ADiT(nn.Module):
    """All-atom Diffusion Transformer (arXiv 2503.03965).

    Example:
        >>> from adit_model import ADiT
        >>> model = ADiT.from_pretrained()
        >>> batch = model.sample(4, kind="crystal", num_steps=10, seed=0)
        >>> len(batch)
        4
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: ADiTConfig) -> None:
        super().__init__()
        self.config = config
        self.hash = "untrained"
        self.autoencoder = Autoencoder(config.autoencoder)
        self.denoiser = Denoiser(config.denoiser) if config.denoiser is not None else None
        width = config.autoencoder.latent_dim
        self.register_buffer("latent_mean", torch.zeros(width))
        self.register_buffer("latent_std", torch.ones(width))

    @property
    def name(self) -> str:
        """The checkpoint's name, the first part of every sample id."""
        return self.config.name

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.latent_mean.device

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        device: str | torch.device | None = None,
        num_heads: int | tuple[int, int] | None = None,
    ) -> ADiT:
        """Load a checkpoint.

        Args:
            name_or_path: None for the shipped release, a shipped name, a folder, a `.ckpt` file
                of the published model, or `hf:OWNER/REPOSITORY[@REVISION][:FILE]`, such as
                `hf:chaitjo/all-atom-diffusion-transformer`, on the Hugging Face hub.
            device: where to put the weights; by default CUDA if there is one, else the CPU.
            num_heads: attention heads of a `.ckpt` file, which does not record them: one number,
                or (autoencoder, denoiser); by default one per 64 of the width.

        Raises:
            CheckpointError: there is no such checkpoint, or it is damaged.
        """
        config, tensors, identity = read(name_or_path, num_heads)
        origin = f"checkpoint {name_or_path or config.name}"
        try:
            with torch.device("meta"):  # no time for random weights that are replaced anyway
                model = cls(config)
        except (ValueError, RuntimeError, OverflowError) as error:
            raise checkpoint.CheckpointError(
                f"the configuration of {origin} describes no network: {error}"
            ) from error
        checkpoint.load_into(model, tensors, origin)
        model.hash = identity
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return model.to(device).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json and safetensors shards of at most 16 MB with checksums."""
        tensors = {name: t.to(dtype) if t.dim() > 1 else t for name, t in self.state_dict().items()}
        checkpoint.save(Path(folder), self.config, tensors)

    @torch.no_grad()
    def encode(self, batch: AtomBatch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, `[batch, atoms, latent_dim]` each.

        Raises:
            ValueError: the batch is empty or holds a type that the model has no embedding for.
        """
        top = self.config.autoencoder.num_types - 1
        if len(batch) == 0 or int(batch.num_atoms.min()) == 0:
            raise ValueError("encode needs structures with at least one atom each")
        if int(batch.atomic_numbers.max()) > top:
            raise ValueError(
                f"atomic number {int(batch.atomic_numbers.max())} is beyond this model's {top}"
            )
        return self.autoencoder.encode(batch.to(self.device))

    @torch.no_grad()
    def decode(self, latent: Tensor, batch: AtomBatch) -> AtomBatch:
        """Atoms of a latent `[batch, atoms, latent_dim]`.

        Args:
            latent: latents in the autoencoder's own scale, as `encode` gives them.
            batch: tells which structures are periodic and where there are atoms; nothing else
                of it is used.
        """
        batch = batch.to(self.device)
        decoded = self.autoencoder.decode(latent.to(self.device), batch.mask)
        return to_atoms(decoded, batch.periodic, batch.mask)

    def reconstruct(self, batch: AtomBatch) -> AtomBatch:
        """Encode and decode a batch, without noise in the latent."""
        return self.decode(self.encode(batch)[0], batch)

    @torch.no_grad()
    def sample(
        self,
        num: int,
        kind: str = "crystal",
        num_steps: int = 50,
        guidance_scale: float | None = None,
        seed: int = 0,
        num_atoms: int | Sequence[int] | None = None,
        conditions: dict[str, int] | None = None,
        noise: Tensor | Sequence[Tensor] | None = None,
        *,
        indices: Sequence[int] | None = None,
        sampler: str = "ancestral",
        batch_size: int | None = None,
        choose_types: ChooseTypes | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> AtomBatch:
        """Generate structures.

        Sample `i` of seed `s` is a function of (s, i) alone, however many are made at once.

        Args:
            num: how many structures.
            kind: "crystal" or "molecule".
            num_steps: steps from noise to data; the published sampler counts its time points.
            guidance_scale: away from a weaker network (`adit_model.samplers.Guided`); 1 is none,
                and the default is the checkpoint's own (`ADiTConfig.guidance_scales`).
            seed: names the sequence of samples.
            num_atoms: atoms a structure, one number or one a sample; by default drawn from the
                training set's sizes.
            conditions: class labels of further conditions by name.
            noise: the starting noise of each sample, `[num_atoms, latent_dim]`, or padded in one
                tensor `[num, max_num_atoms, latent_dim]`; used as it is.
            indices: which samples of the sequence; by default the first `num`.
            sampler: `"ancestral"`, `"euler"`, `"heun"` or `"published"`, see
                `adit_model.samplers.SAMPLERS`.
            batch_size: most structures run at once; batches hold structures of one size.
            choose_types: logits `[batch, atoms, num_types]` -> atomic numbers `[batch, atoms]`,
                for compositions on request; the most likely ones by default.
            progress: called with (done, total).

        Returns:
            The structures in the order of `indices`, padded to the largest.

        Raises:
            ValueError: an argument is out of range; the message names the allowed values.
        """
        if self.denoiser is None:
            raise ValueError(
                f"{self.name!r} holds only an autoencoder; train a denoiser on it first"
            )
        request = Request.checked(
            self.config,
            num,
            kind,
            num_steps,
            guidance_scale,
            seed,
            num_atoms,
            conditions,
            noise,
            indices,
            sampler,
            batch_size,
        )
        return self._run(request, kind, choose_types, progress)

    @torch.no_grad()
    def vary(
        self,
        batch: AtomBatch,
        strength: float,
        num_steps: int = 50,
        guidance_scale: float | None = None,
        seed: int = 0,
        *,
        indices: Sequence[int] | None = None,
        sampler: str = "ancestral",
        choose_types: ChooseTypes | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> AtomBatch:
        """Variations of structures: encode, add noise, denoise from there, decode.

        Args:
            batch: structures of one kind and size, crystals with the cell and order of atoms of
                the training data.
            strength: share of noise, above 0 (the structure, as the autoencoder gives it back)
                up to 1 (a fresh sample of the same size).
            num_steps: steps of a whole run; only those after the noise's time are taken.
            guidance_scale: as for `sample`.
            seed: names the noise; row `i` takes that of (seed, indices[i]).
            indices: by default 0, 1, 2, ...
            sampler: as for `sample`.
            choose_types: as for `sample`.
            progress: called with (done, total).

        Returns:
            One variation a row, in the order of the batch.

        Raises:
            ValueError: an argument is out of range, or the batch mixes kinds or sizes.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1; got {strength!r}")
        alike = len(set(batch.periodic.tolist())) == 1 and bool(batch.mask.all())
        if self.denoiser is None or not alike:
            raise ValueError("variations need a denoiser, and structures of one kind and size")
        kind = KINDS[0] if bool(batch.periodic[0]) else KINDS[1]
        sizes = batch.num_atoms.tolist()
        request = Request.checked(
            self.config, len(batch), kind, num_steps, guidance_scale, seed, sizes, None, None,
            indices, sampler, None,
        )  # fmt: skip
        turning = torch.Generator().manual_seed(seed)
        batch = frame_for_denoiser(batch, self.config.flow.molecule_frame, turning)
        clean = (self.encode(batch)[0] - self.latent_mean) / self.latent_std
        start = [
            torch.lerp(noise, x1[: len(noise)], 1.0 - strength)
            for noise, x1 in zip(request.noise, clean.cpu(), strict=True)
        ]
        request = dataclasses.replace(request, noise=start, start_time=1.0 - strength)
        return self._run(request, kind, choose_types, progress)

    def _run(
        self,
        request: Request,
        kind: str,
        choose_types: ChooseTypes | None,
        progress: Callable[[int, int], None] | None,
    ) -> AtomBatch:
        """Latents of a request, decoded, in its order."""
        assert self.denoiser is not None

        def decoded(latent: Tensor) -> AtomBatch:
            latent = latent * self.latent_std + self.latent_mean
            mask = torch.ones(latent.shape[:2], dtype=torch.bool, device=self.device)
            periodic = torch.full((len(latent),), kind == KINDS[0], device=self.device)
            return to_atoms(self.autoencoder.decode(latent, mask), periodic, mask, choose_types)

        def as_requested(x1: Tensor, t: float) -> Tensor:
            """The predicted latent with the requested elements, so that the geometry follows."""
            if t < REQUEST_FROM:
                return x1
            return (self.autoencoder.encode(decoded(x1))[0] - self.latent_mean) / self.latent_std

        made: list[AtomBatch] = []
        order: list[int] = []
        correct = None if choose_types is None else as_requested
        for rows, latent in sample_latents(self.denoiser, request, self.device, correct):
            made.append(decoded(latent))
            order += rows
            if progress is not None:
                progress(len(order), len(request.sizes))
        inverse = torch.argsort(torch.tensor(order, device=self.device))
        return AtomBatch.concatenate(made)[inverse]


def to_atoms(
    decoded: Decoded, periodic: Tensor, mask: Tensor, choose_types: ChooseTypes | None = None
) -> AtomBatch:
    """Read a crystal from types, fractional coordinates and cell; a molecule from positions.

    Cells and coordinates are taken as they come: an impossible cell stays impossible, for the
    validity checks to count.
    """
    # 0 is no element: the next likely type would be a choice of ours, 1 is the published one.
    most_likely = decoded.type_logits.argmax(dim=-1).clamp_min(1)
    numbers = (choose_types(decoded.type_logits) if choose_types else most_likely) * mask
    crystal = periodic[:, None, None]
    atoms = mask.unsqueeze(-1)
    frac = torch.where(crystal & atoms, decoded.frac_coords % 1.0, 0.0)
    lattice = lattice_from_parameters(decoded.lengths.clamp_min(1e-3), decoded.angles)
    lattice = torch.where(crystal, lattice, 0.0)
    mean = (decoded.positions * atoms).sum(1, keepdim=True) / atoms.sum(1, keepdim=True)
    positions = torch.where(crystal, frac @ lattice, (decoded.positions - mean) * atoms)
    return AtomBatch(numbers, frac, positions, lattice, periodic, mask)
