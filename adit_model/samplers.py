"""From noise to latents: step rules, guidance, batches of equal size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adit_model.config import KINDS
from adit_model.denoiser import Denoiser, Part

if TYPE_CHECKING:
    from adit_model.requests import Request

DEFAULT_TOKENS = 4096  # atoms run at once, which bounds the memory


Predict = Callable[[Tensor, float], Tensor]
Correct = Callable[[Tensor, float], Tensor]
Draw = Callable[[float], Tensor]  # fresh noise for a time, in the latent's shape

# Deviation of the ancestral sampler's fresh noise by kind: (up to this time, deviation), in order.
# Below one it samples at a lower temperature: valid, but with fewer different formulas. Crystals
# need it only until their lattice has settled; elements drawn at full noise are more varied and no
# less valid (counts in the model card).
FRESH_NOISE = {
    "crystal": ((0.45, 0.7), (1.0, 1.0)),
    "molecule": ((1.0, 0.7),),
}


def ancestral_step(predict: Predict, x: Tensor, t: float, dt: float, draw: Draw) -> Tensor:
    """To the predicted clean latent, then back to the next time with fresh noise.

    The ancestral limit of DDIM (arXiv 2010.02502, eq. 12) for x_t = (1 - t) x0 + t x1: what is
    wrong at one step is forgotten in the next. Noise below unit size (`FRESH_NOISE`) samples at a
    lower temperature, as for proteins (Chroma, doi 10.1038/s41586-023-06728-8).
    """
    after = t + dt
    x1 = predict(x, t)
    if after >= 1.0 - 1e-6:
        return x1
    return after * x1 + (1.0 - after) * draw(after)


def euler_step(predict: Predict, x: Tensor, t: float, dt: float, draw: Draw) -> Tensor:
    """One step along the straight line to the predicted clean latent."""
    return x + (predict(x, t) - x) * (dt / (1.0 - t))


def heun_step(predict: Predict, x: Tensor, t: float, dt: float, draw: Draw) -> Tensor:
    """Second-order step: the mean of the velocities at both ends (two network calls)."""
    velocity = (predict(x, t) - x) / (1.0 - t)
    if t + dt >= 1.0 - 1e-6:
        return x + velocity * dt
    ahead = x + velocity * dt
    second = (predict(ahead, t + dt) - ahead) / (1.0 - t - dt)
    return x + 0.5 * (velocity + second) * dt


def time_points(num_steps: int, power: float = 1.5) -> list[float]:
    """Times from 0 to 1; steps shrink towards the end, where bond lengths settle."""
    u = np.linspace(0.0, 1.0, num_steps + 1)
    return [float(t) for t in 1.0 - (1.0 - u) ** power]


def published_time_points(num_steps: int) -> list[float]:
    """The `num_steps` times of the published sampler, 0.01 to 1 in equal steps."""
    return [float(t) for t in np.linspace(0.01, 1.0, num_steps)]


@dataclass(frozen=True)
class Sampler:
    """A way from noise to latents.

    Attributes:
        step: one step from a time to the next.
        times: number of steps -> the times, in order.
        predicts_last: the sample is one more prediction at the last time (arXiv 2503.03965).
        fewest_steps: the smallest number of steps that it can take.
    """

    step: Callable[[Predict, Tensor, float, float, Draw], Tensor]
    times: Callable[[int], list[float]] = time_points
    predicts_last: bool = False
    fewest_steps: int = 1


SAMPLERS = {
    "ancestral": Sampler(ancestral_step, partial(time_points, power=1.75)),
    "euler": Sampler(euler_step),
    "heun": Sampler(heun_step),
    "published": Sampler(euler_step, published_time_points, predicts_last=True, fewest_steps=2),
}


@dataclass(frozen=True)
class Weakness:
    """What a weaker network lacks, and the times between which guidance leads away from it."""

    without: Part
    start: float
    end: float


# By kind, chosen by validity. Compositions of crystals settle in the middle of the way, bond
# lengths of molecules at its end; guidance at other times costs calls and uniqueness.
WEAKER = {
    "crystal": Weakness("block", 0.4, 0.6),
    "molecule": Weakness("distances", 0.5, 1.0),
}


class Guided:
    """Guided predictions with self-conditioning: x1 = weak + scale (x1 - weak).

    The weak prediction is that for no label (classifier-free guidance, arXiv 2207.12598). Networks
    with pair features have a better one: their own without a part (`WEAKER`), as in
    perturbed-attention guidance (arXiv 2403.17377), between two times (arXiv 2404.07724).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        labels: dict[str, int],
        scale: float,
        num: int,
        device: torch.device,
        correct: Correct | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.scale = scale
        self.correct = correct
        self.labels = {
            name: torch.full((num,), label, device=device) for name, label in labels.items()
        }
        self.weaker: Weakness | None = None
        if denoiser.config.pair_bias:
            self.weaker = WEAKER[KINDS[labels[denoiser.config.conditions[0].name] - 1]]
        self.previous: Tensor | None = None

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Predicted clean latent for `[batch, atoms, latent_dim]` at one time."""
        times = torch.full((len(x),), t, device=x.device)
        x1 = self.denoiser(x, times, self.labels, self.previous)
        weak = None if self.scale == 1.0 else self._weak(x, times, t)
        if weak is not None:
            x1 = weak + self.scale * (x1 - weak)
        if self.correct is not None:
            x1 = self.correct(x1, t)
        self.previous = x1
        return x1

    def _weak(self, x: Tensor, times: Tensor, t: float) -> Tensor | None:
        if self.weaker is None:
            return self.denoiser(x, times, {}, self.previous)
        if not self.weaker.start <= t <= self.weaker.end:
            return None
        without = self.weaker.without
        return self.denoiser(x, times, self.labels, self.previous, without=without)


def noise_source(request: Request, rows: list[int], like: Tensor) -> Draw:
    """Noise for the steps of some rows, from each sample's own stream: batches do not matter."""
    deviations = FRESH_NOISE[request.kind]
    streams = [np.random.default_rng([*request.streams[row], 1]) for row in rows]
    shape = like.shape[1:]

    def draw(t: float) -> Tensor:
        values = [stream.standard_normal(shape, dtype=np.float32) for stream in streams]
        noise = torch.from_numpy(np.stack(values))
        if request.centered:
            noise = noise - noise.mean(dim=1, keepdim=True)
        deviation = next(size for until, size in deviations if t <= until)
        return deviation * noise.to(like.device)

    return draw


def sample_latents(
    denoiser: Denoiser, request: Request, device: torch.device, correct: Correct | None = None
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (rows of the request, latents) in batches of equal size: no padding, no mask.

    `correct` replaces each predicted clean latent, given the time.
    """
    sampler = SAMPLERS[request.sampler]
    times = sampler.times(request.num_steps)
    if request.start_time > 0:
        times = [request.start_time, *(t for t in times if t > request.start_time)]
    by_size: dict[int, list[int]] = {}
    for row, size in enumerate(request.sizes):
        by_size.setdefault(size, []).append(row)
    for size, rows in sorted(by_size.items()):
        most = request.batch_size or max(1, DEFAULT_TOKENS // size)
        for start in range(0, len(rows), most):
            chosen = rows[start : start + most]
            x = torch.stack([request.noise[row] for row in chosen]).to(device)
            predict = Guided(
                denoiser, request.labels, request.guidance_scale, len(x), device, correct
            )
            draw = noise_source(request, chosen, x)
            for t, after in pairwise(times):
                x = sampler.step(predict, x, t, after - t, draw)
            if sampler.predicts_last:
                x = predict(x, times[-1])
            yield chosen, x
