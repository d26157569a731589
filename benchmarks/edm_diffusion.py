"""Equivariant diffusion of molecules, EDM (Hoogeboom et al. 2022, arXiv:2203.17003), written small.

A molecule is its positions without their mean (angstrom) and its elements one-hot, scaled by 0.25.
Both are noised together; a network predicts the noise. What is left out of the original: charges
as a feature, and the separate likelihood term of the one time in 1,001 that is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ELEMENTS = (1, 6, 7, 8, 9)  # of QM9, in the order of the one-hot features
SCALE = 0.25  # of the one-hot features beside angstrom
TIMES = 1000


def polynomial_schedule(times: int = TIMES, precision: float = 1e-5) -> Tensor:
    """gamma = log(sigma^2 / alpha^2) of EDM's "polynomial_2", float64 `[times + 1]`.

    alpha^2 = (1 - (t/T)^2)^2, no step of it by more than a factor of 1000, between `precision` and
    1 - `precision` (appendix B of the paper).
    """
    time = torch.linspace(0, 1, times + 1, dtype=torch.float64)
    kept = (1 - time**2) ** 2
    ratios = (kept[1:] / kept[:-1]).clamp(0.001, 1.0)
    kept = torch.cat([kept[:1], kept[0] * ratios.cumprod(0)])
    kept = (1 - 2 * precision) * kept + precision
    return torch.log1p(-kept) - kept.log()


def without_mean(x: Tensor) -> Tensor:
    """Positions or noise `[batch, atoms, 3]` with their centre at the origin."""
    return x - x.mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class Steps:
    """Numbers of the ancestral steps from noise to data, the noisiest first.

    A step from time t to s is z_s = keep * z_t - drop * noise predicted + spread * fresh noise.

    Attributes:
        table: float64 `[steps, 4]`: keep, drop, spread, and t as the network sees it, in [0, 1].
    """

    table: Tensor

    @classmethod
    def of(cls, gamma: Tensor, num_steps: int) -> Steps:
        """Of `num_steps` steps at even times of a schedule `[times + 1]`, and the last, to data.

        Raises:
            ValueError: there are fewer times than steps.
        """
        times = len(gamma) - 1
        if not 1 <= num_steps <= times:
            raise ValueError(f"--num-steps must be 1 to {times}; got {num_steps}")
        at = torch.linspace(times, 0, num_steps + 1, dtype=torch.float64).round().long()
        now, then = gamma[at[:-1]], gamma[at[1:]]
        kept = torch.exp(0.5 * (functional.logsigmoid(-now) - functional.logsigmoid(-then)))
        added = -torch.expm1(functional.softplus(then) - functional.softplus(now))
        sigma, sigma_then = now.sigmoid().sqrt(), then.sigmoid().sqrt()
        drop = added / (kept * sigma)
        spread = added.sqrt() * sigma_then / sigma
        rows = torch.stack([1 / kept, drop, spread, at[:-1] / times], dim=1)
        # Of x and h given z_0: the mean, and the noise that is left, sigma_0 / alpha_0.
        last, left = gamma[:1].neg().sigmoid().rsqrt(), torch.exp(0.5 * gamma[:1])
        end = torch.stack([last, left, left, torch.zeros(1, dtype=torch.float64)], dim=1)
        return cls(torch.cat([rows, end]))


class EquivariantDiffusion(nn.Module):
    """The network with its noise schedule."""

    gamma: Tensor
    elements: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("elements", torch.tensor(ELEMENTS), persistent=False)
        self.register_buffer("gamma", polynomial_schedule(), persistent=False)

    def clean(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """What is noised, `[batch, atoms, 3 + 5]`, of atomic numbers and positions."""
        one_hot = SCALE * (numbers[..., None] == self.elements).float()
        return torch.cat([without_mean(positions), one_hot], dim=-1)

    def noise(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal, of the shape of z `[batch, atoms, 3 + 5]`, positions without mean."""
        drawn = torch.randn(z.shape, generator=generator, device=z.device)
        return torch.cat([without_mean(drawn[..., :3]), drawn[..., 3:]], dim=-1)

    def predict(self, z: Tensor, time: Tensor) -> Tensor:
        """The noise in z `[batch, atoms, 3 + 5]` at a time in [0, 1], or at `[batch, 1, 1]`."""
        x, h = z[..., :3], z[..., 3:]
        told = torch.cat([h, time.expand(*h.shape[:2], 1)], dim=-1)
        h_noise, moved = self.network(told, x)
        return torch.cat([without_mean(moved - x), h_noise[..., : len(ELEMENTS)]], dim=-1)

    def loss(self, numbers: Tensor, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the predicted noise, every time as likely and as heavy.

        Args:
            numbers: `[batch, atoms]`, of molecules of one size.
            positions: `[batch, atoms, 3]`, angstrom.
            generator: on the same device.
        """
        times = len(self.gamma) - 1
        t = torch.randint(
            times + 1, (len(numbers), 1, 1), generator=generator, device=numbers.device
        )
        gamma = self.gamma[t]
        alpha, sigma = gamma.neg().sigmoid().sqrt().float(), gamma.sigmoid().sqrt().float()
        clean = self.clean(numbers, positions)
        noise = self.noise(clean, generator)
        found = self.predict(alpha * clean + sigma * noise, t / times)
        return functional.mse_loss(found, noise)

    @torch.inference_mode()
    def sample(
        self, num: int, size: int, num_steps: int, generator: torch.Generator, eager: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Molecules of one size: atomic numbers `[num, size]` and positions `[num, size, 3]`.

        Args:
            num: how many.
            size: atoms of each.
            num_steps: of `Steps.of`; one call of the network each, and a last one.
            generator: on the device of the weights.
            eager: on a GPU, start every kernel of a step instead of replaying a recording.
        """
        device = self.gamma.device
        table = Steps.of(self.gamma.cpu(), num_steps).table.float().to(device)
        z = torch.zeros(num, size, 3 + len(ELEMENTS), device=device)
        fresh, now = torch.zeros_like(z), torch.zeros(4, device=device)

        def step() -> None:
            keep, drop, spread, time = now.unbind()
            z.copy_(keep * z - drop * self.predict(z, time) + spread * fresh)
            z[..., :3].copy_(without_mean(z[..., :3]))  # rounding would add up

        take = _recorded(step) if device.type == "cuda" and not eager else step
        z.copy_(self.noise(z, generator))
        for row in table.unbind():  # nothing here waits for the GPU
            now.copy_(row)
            fresh.copy_(self.noise(z, generator))
            take()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # once, before the recording is gone
        return self.elements[z[..., 3:].argmax(dim=-1)], z[..., :3].clone()


def _recorded(step: Callable[[], None]) -> Callable[[], None]:
    """The kernels of a call that reads and writes the same places each time, as one launch."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # libraries set themselves up in first calls, unrecorded
        step()
        step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay


def number_of_weights(module: nn.Module) -> int:
    """All that is trained."""
    return sum(math.prod(p.shape) for p in module.parameters())
