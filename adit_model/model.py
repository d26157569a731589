"""ADiT: the autoencoder and the denoiser as one model that loads, encodes, decodes and samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adit_model.batch import AtomBatch
from adit_model.checkpoints import folder as checkpoint
from adit_model.checkpoints.pretrained import read
from adit_model.compositions import Constraints, draw_elements
from adit_model.config import KINDS, ADiTConfig
from adit_model.decoding import ChooseTypes, Drawn, to_atoms
from adit_model.denoiser import Denoiser
from adit_model.equivariant import make_autoencoder
from adit_model.prior import Prior
from adit_model.runs import Edit, elements_of_samples, num_particles, request_near, run_request
from adit_model.samplers import Request, SamplingSettings, Steering
from adit_model.samplers.particles import Resampling, expanded
from adit_model.samplers.request import checked_labels, checked_places, tells_elements
from adit_model.sampling import guided_conditions


class ADiT(nn.Module):
    """All-atom Diffusion Transformer (arXiv 2503.03965).

    Examples:
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
        self.autoencoder = make_autoencoder(config.autoencoder)
        self.denoiser = Denoiser(config.denoiser) if config.denoiser is not None else None
        self.prior = Prior(config.prior) if config.prior is not None else None
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

        Structures are taken as they are. The network knows crystals in the form of its training
        data, the primitive Niggli cell with atoms in order, and others far less well;
        `adit_plugins.ADiTGenerator.encode` brings them into it.

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
        """Encode and decode a batch as it is, without noise in the latent; see `encode`."""
        return self.decode(self.encode(batch)[0], batch)

    def sample(
        self,
        num: int,
        kind: str = "crystal",
        num_steps: int = 50,
        guidance_scale: float | None = None,
        seed: int = 0,
        num_atoms: int | Sequence[int] | None = None,
        conditions: Mapping[str, Any] | None = None,
        noise: Tensor | Sequence[Tensor] | None = None,
        *,
        indices: Sequence[int] | None = None,
        sampler: str = "ancestral",
        batch_size: int | None = None,
        precision: str = "float32",
        elements: Sequence[Sequence[int]] | None = None,
        choose_types: ChooseTypes | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> AtomBatch:
        """Generate structures, in the order of `indices`; see `draw`, which tells more of them."""
        settings = SamplingSettings(num_steps, guidance_scale, sampler, batch_size, precision)
        return self.draw(
            num, kind, settings, seed=seed, num_atoms=num_atoms, conditions=conditions,
            noise=noise, indices=indices, elements=elements, choose_types=choose_types,
            progress=progress,
        ).batch  # fmt: skip

    @torch.no_grad()
    def draw(
        self,
        num: int,
        kind: str = "crystal",
        settings: SamplingSettings | None = None,
        *,
        seed: int = 0,
        num_atoms: int | Sequence[int] | None = None,
        conditions: Mapping[str, Any] | None = None,
        noise: Tensor | Sequence[Tensor] | None = None,
        indices: Sequence[int] | None = None,
        elements: Sequence[Sequence[int]] | None = None,
        choose_types: ChooseTypes | None = None,
        edit: Edit | None = None,
        steering: Steering | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Drawn:
        """Generate structures.

        Sample `i` depends on (kind, seed, i), its size and its elements, never on the batch.

        Args:
            num: how many.
            kind: `"crystal"` or `"molecule"`.
            settings: steps, guidance, sampler, batches.
            seed: names the noise.
            num_atoms: atoms in every structure, or one a sample; by default drawn from the
                training set's sizes.
            conditions: values of conditions by name, one for all or one a sample; None withholds
                one that the checkpoint is told by default.
            noise: the starting noise of each sample, `[num_atoms, latent_dim]`, or padded in one
                tensor `[num, max_num_atoms, latent_dim]`; used as it is.
            indices: which samples of the sequence; by default the first `num`.
            elements: atomic numbers of each sample in the order of the training data (crystals by
                atomic number), such as `draw_elements` gives; the network is told them, and they
                are what the sample consists of. Without them elements come with the geometry.
            choose_types: logits `[batch, atoms, num_types]` -> atomic numbers `[batch, atoms]`,
                for compositions on request where the network cannot be told; the most likely ones
                by default.
            edit: changes each predicted clean structure on the way, and the last: (rows of the
                call, structures of one size without padding, time) -> structures of that size.
            steering: several particles compete for each sample (`Steering`); `elements` are then
                those of every particle, of the first sample first, of one size a sample.
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
        settings = settings or SamplingSettings()
        checked_places(num, kind, seed, indices)
        particles = num_particles(steering, settings, edit)
        every = elements
        if every is not None:
            elements = elements_of_samples(self.config, every, num, kind, particles)
        request = Request.checked(
            self.config,
            num,
            kind,
            settings,
            seed=seed,
            num_atoms=num_atoms,
            labels=checked_labels(self.config, kind, num, conditions or {}),
            noise=noise,
            indices=indices,
            elements=elements,
        )
        if steering is None:
            return run_request(self, request, choose_types, progress, edit)
        request = expanded(request, self.config, particles, every)
        resampling = Resampling(steering, request)
        return run_request(self, request, choose_types, progress, resampling=resampling)

    @property
    def tells_elements(self) -> bool:
        """Whether the network can be told the elements of a sample."""
        return tells_elements(self.config)

    def draw_elements(
        self,
        num: int,
        kind: str = "crystal",
        *,
        seed: int = 0,
        num_atoms: int | Sequence[int] | None = None,
        conditions: Mapping[str, Any] | None = None,
        condition_guidance: Mapping[str, float] | None = None,
        constraints: Constraints | None = None,
        indices: Sequence[int] | None = None,
        attempt: int = 0,
    ) -> list[list[int]]:
        """Draw the elements of samples from the prior, exact under constraints.

        Args:
            num: how many.
            kind: `"crystal"` or `"molecule"`.
            seed: with the index, names the random numbers of a draw.
            num_atoms: one number for all or one a draw; by default drawn too.
            conditions: as for `draw`.
            condition_guidance: scales of what is told (`adit_model.sampling.guided_conditions`).
            constraints: what every composition must be.
            indices: which of the sequence; by default the first `num`.
            attempt: another draw for the same (seed, index).

        Returns:
            Atomic numbers of each draw, in the order of the training data.

        Raises:
            ValueError: the checkpoint has no prior, or nothing fits the request.
        """
        if self.prior is None:
            raise ValueError(f"{self.name!r} has no prior over elements; see `adit train prior`")
        places = checked_places(num, kind, seed, indices)
        labels = checked_labels(self.config, kind, num, conditions or {})
        own = self.config.sampling_of(kind)
        told = [c.name for c in self.prior.config.conditions if c.name in labels]
        if num_atoms is not None:
            num_atoms = [num_atoms] * num if isinstance(num_atoms, int) else list(num_atoms)
        return draw_elements(
            self.prior,
            kind,
            [[KINDS.index(kind), int(seed), place, 2 + attempt] for place in places],
            self.config.size_histogram.get(kind, []),
            constraints=constraints,
            num_atoms=num_atoms,
            labels=labels,
            temperature=own.temperature,
            guidance=guided_conditions(own, told, condition_guidance),
        )

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
        precision: str = "float32",
        conditions: Mapping[str, Any] | None = None,
        elements: Sequence[Sequence[int]] | None = None,
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
            precision: as for `sample`.
            conditions: as for `draw`.
            elements: as for `draw`: told, and what the variations consist of.
            choose_types: as for `draw`.
            progress: called with (done, total).

        Returns:
            One variation a row, in the order of the batch.

        Raises:
            ValueError: an argument is out of range, or the batch mixes kinds or sizes.
        """
        settings = SamplingSettings(num_steps, guidance_scale, sampler, precision=precision)
        request = request_near(
            self, batch, strength, settings, seed, indices, conditions or {}, elements
        )
        return run_request(self, request, choose_types, progress).batch
