"""Step rules of the samplers: from a time to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from adit_model.sampling import KindSampling

Predict = Callable[[Tensor, float], Tensor]
Draw = Callable[[float], Tensor]  # fresh noise for a time, in the latent's shape


def ancestral_step(predict: Predict, x: Tensor, t: float, after: float, draw: Draw) -> Tensor:
    """To the predicted clean latent, then back to the next time with fresh noise.

    The ancestral limit of DDIM (arXiv 2010.02502, eq. 12) for x_t = (1 - t) x0 + t x1: what is
    wrong at one step is forgotten in the next. Noise below unit size (`KindSampling.fresh_noise`)
    samples at a lower temperature, as for proteins (Chroma, doi 10.1038/s41586-023-06728-8).
    """
    x1 = predict(x, t)
    if after >= 1.0 - 1e-6:
        return x1
    return after * x1 + (1.0 - after) * draw(after)


def euler_step(predict: Predict, x: Tensor, t: float, after: float, draw: Draw) -> Tensor:
    """One step along the straight line to the predicted clean latent."""
    return x + (predict(x, t) - x) * ((after - t) / (1.0 - t))


def heun_step(predict: Predict, x: Tensor, t: float, after: float, draw: Draw) -> Tensor:
    """Second-order step: the mean of the velocities at both ends (two network calls)."""
    velocity = (predict(x, t) - x) / (1.0 - t)
    ahead = x + velocity * (after - t)
    if after >= 1.0 - 1e-6:
        return ahead
    second = (predict(ahead, after) - ahead) / (1.0 - after)
    return x + 0.5 * (velocity + second) * (after - t)


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
        times: number of steps and the checkpoint's settings -> the times, in order.
        predicts_last: the sample is one more prediction at the last time (arXiv 2503.03965).
        fewest_steps: the smallest number of steps that it can take.
        draws: whether its steps take fresh noise.
    """

    step: Callable[[Predict, Tensor, float, float, Draw], Tensor]
    times: Callable[[int, KindSampling], list[float]] = lambda num, _: time_points(num)
    predicts_last: bool = False
    fewest_steps: int = 1
    draws: bool = False


SAMPLERS = {
    "ancestral": Sampler(ancestral_step, lambda num, own: time_points(num, own.times), draws=True),
    "euler": Sampler(euler_step),
    "heun": Sampler(heun_step),
    "published": Sampler(
        euler_step,
        lambda num, _: published_time_points(num),
        predicts_last=True,
        fewest_steps=2,
    ),
}
