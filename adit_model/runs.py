"""A request through the denoiser and the decoder: what `ADiT.draw` and `ADiT.vary` end in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adit_model.batch import AtomBatch
from adit_model.config import ELEMENTS, KINDS, ADiTConfig
from adit_model.data import frame_for_denoiser
from adit_model.decoding import ChooseTypes, Drawn, unpadded_atoms
from adit_model.samplers import Request, SamplingSettings, Steering, sample_latents
from adit_model.samplers.guidance import Labels
from adit_model.samplers.particles import Resampling
from adit_model.samplers.request import check_elements, checked_labels

if TYPE_CHECKING:
    from adit_model.model import ADiT

# Rows of the request, their predicted structures and the time -> these as they shall be.
Edit = Callable[[list[int], AtomBatch, float], AtomBatch]


def num_particles(steering: Steering | None, settings: SamplingSettings, edit: Edit | None) -> int:
    """Return how many particles compete for a sample; 1 without steering.

    Raises:
        ValueError: the settings cannot be steered.
    """
    if steering is None:
        return 1
    if settings.sampler != "ancestral" or edit is not None:
        raise ValueError(
            "steering needs the sampler 'ancestral', whose fresh noise parts copies of a "
            f"particle, and no edit; got {settings.sampler!r}"
        )
    return steering.particles


def elements_of_samples(
    config: ADiTConfig, elements: Sequence[Sequence[int]], num: int, kind: str, particles: int
) -> Sequence[Sequence[int]]:
    """Return the elements of the first particle of each sample.

    Raises:
        ValueError: an element is impossible, or the particles of a sample differ in size.
    """
    check_elements(config, elements, num * particles, kind)
    firsts = elements[::particles]
    if any(len(each) != len(firsts[i // particles]) for i, each in enumerate(elements)):
        raise ValueError("the particles of a sample must have as many elements")
    return firsts


def request_near(
    model: ADiT,
    batch: AtomBatch,
    strength: float,
    settings: SamplingSettings,
    seed: int,
    indices: Sequence[int] | None,
    conditions: Mapping[str, Any],
    elements: Sequence[Sequence[int]] | None,
) -> Request:
    """Return the request of `ADiT.vary`.

    Raises:
        ValueError: see there.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be above 0 and at most 1; got {strength!r}")
    alike = len(set(batch.periodic.tolist())) == 1 and bool(batch.mask.all())
    if model.denoiser is None or not alike:
        raise ValueError("variations need a denoiser, and structures of one kind and size")
    kind = KINDS[0] if bool(batch.periodic[0]) else KINDS[1]
    if elements is not None:
        check_elements(model.config, elements, len(batch), kind)
    request = Request.checked(
        model.config,
        len(batch),
        kind,
        settings,
        seed=seed,
        num_atoms=batch.num_atoms.tolist(),
        labels=checked_labels(model.config, kind, len(batch), conditions),
        indices=indices,
        elements=elements,
    )
    return _begun_near(model, request, batch, strength, seed)


def mean_latents(model: ADiT, batch: AtomBatch, seed: int = 0) -> Tensor:
    """Means of the latents as the denoiser sees them, `[batch, atoms, latent_dim]`.

    Args:
        model: whose latents they are.
        batch: structures of one kind and size in the form of the training data; molecules are
            brought into the orientation of the training.
        seed: of the orientation of molecules, where that is a random one.
    """
    turning = torch.Generator(batch.device).manual_seed(seed)
    frame, periodic = model.config.flow.molecule_frame, bool(batch.periodic[0])
    framed = frame_for_denoiser(batch, frame, turning, periodic)
    return (model.encode(framed)[0] - model.latent_mean) / model.latent_std


def _begun_near(
    model: ADiT, request: Request, batch: AtomBatch, strength: float, seed: int
) -> Request:
    """Return a request that begins at structures with a share of its noise, not at noise."""
    clean = mean_latents(model, batch, seed)
    start = [
        torch.lerp(noise, x1[: len(noise)], 1.0 - strength)
        for noise, x1 in zip(request.noise, clean.cpu(), strict=True)
    ]
    return dataclasses.replace(request, noise=start, start_time=1.0 - strength)


def run_request(
    model: ADiT,
    request: Request,
    choose_types: ChooseTypes | None,
    progress: Callable[[int, int], None] | None,
    edit: Edit | None = None,
    resampling: Resampling | None = None,
) -> Drawn:
    """Latents of a request, decoded, in its order; see `ADiT.draw` for the arguments."""
    assert model.denoiser is not None
    steps = _Steps(model, request, choose_types, edit, resampling)
    made: list[AtomBatch] = []
    agreement: list[Tensor] = []
    reports: list[dict[str, Any]] = []
    order: list[int] = []
    total = len(request.sizes) // request.particles
    for rows, latent, labels in sample_latents(model.denoiser, request, model.device, steps.hook):
        batch, share = steps.read(latent, labels)
        batch = edit(rows, batch, 1.0) if edit else batch
        if resampling is not None:
            best, told = resampling.finish(rows, batch)
            batch, share = batch[best], None if share is None else share[best]
            reports += told
        made.append(batch)
        if share is not None:
            agreement.append(share)
        order += [row // request.particles for row in rows[:: request.particles]]
        if progress is not None:
            progress(len(order), total)
    inverse = torch.argsort(torch.tensor(order, device=model.device))
    return Drawn(
        AtomBatch.concatenate(made)[inverse],
        torch.cat(agreement)[inverse] if agreement else None,
        [reports[place] for place in inverse.tolist()] if reports else None,
    )


@dataclasses.dataclass(frozen=True)
class _Steps:
    """What is done to predictions on the way."""

    model: ADiT
    request: Request
    choose_types: ChooseTypes | None
    edit: Edit | None
    resampling: Resampling | None

    @property
    def hook(self) -> Callable[[list[int], Tensor, float, Labels], tuple[Tensor, Labels]] | None:
        """What corrects predictions; None where nothing does."""
        plain = self.choose_types is None and self.edit is None and self.resampling is None
        return None if plain else self.correct

    def read(self, latent: Tensor, labels: Labels) -> tuple[AtomBatch, Tensor | None]:
        """Structures, of the elements that were told, and how many the decoder took so."""
        model = self.model
        decoded = model.autoencoder.decode(latent * model.latent_std + model.latent_mean, None)
        batch = unpadded_atoms(decoded, self.request.kind == KINDS[0], self.choose_types)
        told = labels.get(ELEMENTS)
        if told is None:
            return batch, None
        agreement = (batch.atomic_numbers == told).float().mean(dim=1)
        return dataclasses.replace(batch, atomic_numbers=told), agreement

    def correct(
        self, rows: list[int], x1: Tensor, t: float, labels: Labels
    ) -> tuple[Tensor, Labels]:
        """The particles that go on; and the latent of what the structure shall be."""
        if self.resampling is not None and self.resampling.due(rows, t):
            kept = self.resampling.resample(rows, self.read(x1, labels)[0])
            x1, labels = x1[kept], {name: values[kept] for name, values in labels.items()}
        late = self.choose_types is not None and t >= self.request.sampling.request_from
        if not (late or self.edit):
            return x1, labels
        # With the requested elements and atoms, so that the geometry follows.
        atoms = self.read(x1, labels)[0]
        atoms = self.edit(rows, atoms, t) if self.edit else atoms
        latent = self.model.autoencoder.encode(atoms, padded=False)[0]
        return (latent - self.model.latent_mean) / self.model.latent_std, labels
