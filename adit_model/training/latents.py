"""The latents that the denoiser learns from, and whether they are the same at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from adit_model.batch import AtomBatch
from adit_model.config import KINDS, FlowConfig
from adit_model.data import SizeGroups, frame_for_denoiser
from adit_model.model import ADiT


def fixed_latents(flow: FlowConfig) -> bool:
    """Whether a structure's clean latent is the same at every step."""
    return flow.latents == "mean" and flow.molecule_frame == "principal"


@torch.no_grad()
def clean_latents(model: ADiT, groups: SizeGroups) -> dict[int, Tensor]:
    """Standardised clean latents of all structures by size, `[structures, size, latent_dim]`.

    Where they do not change, encoding them once saves a twentieth of every step.
    """
    generator = torch.Generator(model.device)
    parts: dict[int, list[Tensor]] = {}
    for size, rows in groups.batches(1 << 14):
        parts.setdefault(size, []).append(
            draw_latent(model, groups.batch(size, rows), generator, groups.kind == KINDS[0])
        )
    return {size: torch.cat(latents) for size, latents in parts.items()}


def draw_latent(
    model: ADiT, batch: AtomBatch, generator: torch.Generator, periodic: bool
) -> Tensor:
    """Standardised latents of structures of one kind and size.

    They are drawn from the encoder's distribution, or are its means.
    """
    flow = model.config.flow
    framed = frame_for_denoiser(batch, flow.molecule_frame, generator, periodic)
    latent, std = model.autoencoder.encode(framed, padded=False)
    if flow.latents == "sample":
        latent = latent + std * torch.randn(latent.shape, generator=generator, device=std.device)
    return (latent - model.latent_mean) / model.latent_std
