"""Guided predictions of the clean latent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adit_model.denoiser import Denoiser
from adit_model.samplers.graphs import Replayed
from adit_model.sampling import KindSampling

Labels = dict[str, Tensor]  # what the network is told, see `Denoiser.forward`
# Replaces predicted clean latents, and what they are told: (latents, time, labels) -> both.
Correct = Callable[[Tensor, float, Labels], tuple[Tensor, Labels]]


class Guided:
    """Guided predictions with self-conditioning: x1 = weak + scale (x1 - weak).

    The weak prediction is that for no label (classifier-free guidance, arXiv 2207.12598). Networks
    with pair features have a better one: their own without a part (`KindSampling.weaker`), as in
    perturbed-attention guidance (arXiv 2403.17377), between two times (arXiv 2404.07724).

    Args:
        denoiser: the network.
        labels: what it is told, see `Denoiser.forward`.
        scale: 1 is no guidance.
        settings: the checkpoint's.
        correct: replaces predicted clean latents and labels, given the time.
    """

    def __init__(
        self,
        denoiser: Denoiser | Replayed,
        labels: Labels,
        scale: float,
        settings: KindSampling,
        correct: Correct | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.labels = labels
        self.scale = scale
        self.settings = settings
        self.correct = correct
        self.previous: Tensor | None = None

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Predicted clean latent for `[batch, atoms, latent_dim]` at one time."""
        times = torch.full((len(x),), t, device=x.device)
        x1 = self.denoiser(x, times, self.labels, self.previous)
        weak = None if self.scale == 1.0 else self._weak(x, times, t)
        if weak is not None:
            x1 = weak + self.scale * (x1 - weak)
        if self.correct is not None:
            # The caller may run the denoiser in bf16; structures are read in float32.
            with torch.autocast(x.device.type, enabled=False):
                x1, self.labels = self.correct(x1, t, self.labels)
        self.previous = x1
        return x1

    def _weak(self, x: Tensor, times: Tensor, t: float) -> Tensor | None:
        weaker = self.settings.weaker
        if weaker == "labels" or not self.denoiser.config.pair_bias:
            return self.denoiser(x, times, {}, self.previous)
        if not self.settings.weaker_from <= t <= self.settings.weaker_until:
            return None
        return self.denoiser(x, times, self.labels, self.previous, without=weaker)
