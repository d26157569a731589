"""Flow matching between Gaussian noise (t = 0) and latents (t = 1): x_t = (1-t) x0 + t x1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adit_model.config import ELEMENTS, KIND, Condition, FlowConfig
from adit_model.denoiser import Denoiser, preconditioning

FurtherLoss = Callable[[Tensor, Tensor], Tensor]
WITHHOLD_PROPERTIES = 0.3
MIN_LOSS_TIME_LEFT = 0.1  # caps the 1 / (1-t)^2 weight of x1 predictions


def sample_times(
    num: int, config: FlowConfig, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Training times `[num]` in (0, 1), stratified so that a batch covers the distribution."""
    strata = torch.arange(num, device=device)
    u = (strata + torch.rand(num, generator=generator, device=device)) / num
    u = u[torch.randperm(num, generator=generator, device=device)].clamp(1e-4, 1 - 1e-4)
    if config.time_sampling == "uniform":
        return u
    normal = torch.special.ndtri(u)
    return torch.sigmoid(config.time_mean + config.time_std * normal).clamp(1e-4, 1 - 1e-3)


def center(noise: Tensor, config: FlowConfig) -> Tensor:
    """Subtract the mean over the atom axis, padding included, where the flow asks for it."""
    return noise - noise.mean(dim=1, keepdim=True) if config.center_noise else noise


def flow_loss(
    denoiser: Denoiser,
    x1: Tensor,
    labels: dict[str, Tensor],
    config: FlowConfig,
    generator: torch.Generator | None = None,
    self_condition: bool = False,
    further_loss: FurtherLoss | None = None,
    always_guess: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean flow-matching loss of clean latents `[batch, atoms, latent_dim]` without padding.

    Args:
        denoiser: the network.
        x1: clean, standardised latents.
        labels: what is told, by condition name, see `Denoiser.forward`; withheld here at each
            condition's rate.
        config: the flow.
        generator: of the noise and the times, on the latents' device.
        self_condition: give the network its own first guess (arXiv 2208.04202); half of the
            batches should. The caller tosses the coin, since a coin on a GPU has to be waited for.
        further_loss: a loss of (predicted clean latents, times), added to it.
        always_guess: make the first guess in the other batches, too, and leave it: processes that
            have a part of the weights each have to call the network equally often.

    Returns:
        The loss, and its parts where there are several.
    """
    device = x1.device
    t = sample_times(len(x1), config, generator, device)
    x0 = center(torch.randn(x1.shape, generator=generator, device=device), config)
    x_t = torch.lerp(x0, x1, t[:, None, None])
    labels = drop_labels(denoiser.config.conditions, labels, generator)
    previous = None
    if denoiser.config.self_conditioning:
        # Zeros, as the network would put there itself: one compiled graph serves both.
        previous = torch.zeros_like(x_t)
        if self_condition or always_guess:
            with torch.no_grad():
                guess = denoiser(x_t, t, labels, previous).detach()
            previous = guess if self_condition else previous
    predicted = denoiser(x_t, t, labels, previous)
    error = predicted - x1
    if denoiser.config.prediction == "preconditioned":
        scale = 1.0 / preconditioning(t)[1]  # back to the network's unit-variance target
    else:
        scale = 1.0 / (1.0 - t[:, None, None]).clamp_min(MIN_LOSS_TIME_LEFT)
    loss = ((error * scale) ** 2).mean()
    if further_loss is None:
        return loss, {}
    further = further_loss(predicted, t)
    return loss + further, {"flow": loss.detach(), "further": further.detach()}


def drop_labels(
    conditions: Sequence[Condition],
    labels: dict[str, Tensor],
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """Withhold labels of structures at the rate of their condition.

    A share of the structures (`WITHHOLD_PROPERTIES`) loses everything beyond the kind and the
    elements at once: that is how most samples are asked for, and independent withholding of many
    properties would hardly ever leave none.
    """
    by_name = {c.name: c for c in conditions}
    dropped: dict[str, Tensor] = {}
    none: Tensor | None = None
    for name, label in labels.items():
        draw = torch.rand(len(label), generator=generator, device=label.device)
        keep = draw >= by_name[name].dropout
        if name not in (KIND, ELEMENTS):
            if none is None:
                none = torch.rand(len(label), generator=generator, device=label.device)
            keep = keep & (none >= WITHHOLD_PROPERTIES)
        if by_name[name].type == "number":
            dropped[name] = torch.where(keep, label, torch.nan)
        else:
            dropped[name] = label * (keep[:, None] if label.dim() == 2 else keep)
    return dropped
