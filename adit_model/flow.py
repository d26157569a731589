"""Flow matching between Gaussian noise (t = 0) and latents (t = 1): x_t = (1-t) x0 + t x1."""

from __future__ import annotations

import torch
from torch import Tensor

from adit_model.config import FlowConfig
from adit_model.denoiser import Denoiser, preconditioning

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
) -> Tensor:
    """Mean flow-matching loss of clean latents `[batch, atoms, latent_dim]` without padding.

    Half of the batches are self-conditioned on the network's own first guess
    (arXiv 2208.04202); labels are dropped to "none" at each condition's rate.
    """
    device = x1.device
    t = sample_times(len(x1), config, generator, device)
    x0 = center(torch.randn(x1.shape, generator=generator, device=device), config)
    x_t = torch.lerp(x0, x1, t[:, None, None])
    labels = drop_labels(denoiser, labels, generator)
    previous = None
    if denoiser.config.self_conditioning:
        coin = torch.rand((), generator=generator, device=device)
        if float(coin) < 0.5:
            with torch.no_grad():
                previous = denoiser(x_t, t, labels).detach()
    error = denoiser(x_t, t, labels, previous) - x1
    if denoiser.config.prediction == "preconditioned":
        scale = 1.0 / preconditioning(t)[1]  # back to the network's unit-variance target
    else:
        scale = 1.0 / (1.0 - t[:, None, None]).clamp_min(MIN_LOSS_TIME_LEFT)
    return ((error * scale) ** 2).mean()


def drop_labels(
    denoiser: Denoiser, labels: dict[str, Tensor], generator: torch.Generator | None
) -> dict[str, Tensor]:
    """Replace labels by 0 at the rate of their condition."""
    rates = {c.name: c.dropout for c in denoiser.config.conditions}
    dropped = {}
    for name, label in labels.items():
        keep = torch.rand(label.shape, generator=generator, device=label.device) >= rates[name]
        dropped[name] = label * keep
    return dropped
