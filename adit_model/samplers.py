"""From noise to latents: requests, per-sample randomness, step rules and guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adit_model.config import KINDS, ADiTConfig
from adit_model.denoiser import Denoiser
from adit_model.flow import center

DEFAULT_TOKENS = 4096  # atoms run at once, which bounds the memory


@dataclass(frozen=True)
class Request:
    """A checked call of `ADiT.sample`: sizes and starting noise of every sample are fixed."""

    labels: dict[str, int]
    num_steps: int
    guidance_scale: float
    sampler: str
    batch_size: int | None
    sizes: list[int]
    noise: list[Tensor]
    start_time: float = 0.0  # the noise may be a partly noised latent of this time

    @classmethod
    def checked(
        cls,
        config: ADiTConfig,
        num: int,
        kind: str,
        num_steps: int,
        guidance_scale: float,
        seed: int,
        num_atoms: int | Sequence[int] | None,
        conditions: dict[str, int] | None,
        noise: Tensor | Sequence[Tensor] | None,
        indices: Sequence[int] | None,
        sampler: str,
        batch_size: int | None,
    ) -> Request:
        """Check every argument, then draw what belongs to (seed, index).

        Raises:
            ValueError: an argument is out of range.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        for name, value in (("num", num), ("num_steps", num_steps), ("batch_size", batch_size)):
            if value is None and name == "batch_size":
                continue
            if not _is_whole(value) or int(value or 0) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        if sampler not in SAMPLERS:
            raise ValueError(f"No sampler {sampler!r}. Known: {', '.join(SAMPLERS)}.")
        fewest = SAMPLERS[sampler].fewest_steps
        if num_steps < fewest:
            raise ValueError(
                f"the sampler {sampler!r} needs num_steps of at least {fewest}; got {num_steps}"
            )
        if not isinstance(guidance_scale, int | float | np.number) or not (
            np.isfinite(guidance_scale) and guidance_scale >= 0
        ):
            raise ValueError(f"guidance_scale must be at least 0; got {guidance_scale!r}")
        if not _is_whole(seed) or seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0; got {seed!r}")
        num = int(num)
        places = list(range(num)) if indices is None else list(indices)
        if len(places) != num or not all(_is_whole(i) and i >= 0 for i in places):
            raise ValueError(f"indices must be {num} whole numbers of at least 0; got {indices!r}")
        sizes, drawn = _draw(config, kind, seed, places, _sizes(config, kind, num, num_atoms))
        if noise is not None:
            drawn = _given_noise(noise, sizes, config.autoencoder.latent_dim)
        return cls(
            labels=_labels(config, kind, conditions),
            num_steps=int(num_steps),
            guidance_scale=float(guidance_scale),
            sampler=sampler,
            batch_size=batch_size,
            sizes=sizes,
            noise=drawn,
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _labels(config: ADiTConfig, kind: str, conditions: dict[str, int] | None) -> dict[str, int]:
    assert config.denoiser is not None
    first, *others = config.denoiser.conditions
    known = {c.name: c.size for c in others}
    for name, label in (conditions or {}).items():
        if name not in known:
            raise ValueError(
                f"No condition {name!r} in this checkpoint. Known: {', '.join(known) or 'none'}."
            )
        if not _is_whole(label) or not 0 <= label <= known[name]:
            raise ValueError(f"condition {name!r} must be 0..{known[name]}; got {label!r}")
    return {first.name: KINDS.index(kind) + 1} | {k: int(v) for k, v in (conditions or {}).items()}


def _sizes(
    config: ADiTConfig, kind: str, num: int, num_atoms: int | Sequence[int] | None
) -> list[int] | None:
    """Requested sizes, one a sample, or None if they are to be drawn."""
    if num_atoms is None:
        if not sum(config.size_histogram.get(kind, [])):
            raise ValueError(f"{config.name!r} has no size histogram for {kind!r}: pass num_atoms")
        return None
    given: Any = num_atoms
    sizes = [given] * num if np.ndim(given) == 0 else list(given)
    if len(sizes) != num:
        raise ValueError(f"num_atoms has {len(sizes)} entries for {num} samples")
    top = len(config.size_histogram.get(kind, [])) - 1
    for size in sizes:
        if not _is_whole(size) or size < 1 or 0 < top < size:
            raise ValueError(
                f"num_atoms must be 1..{top} for {kind}s: {config.name!r} was trained on no "
                f"larger ones; got {size!r}"
                if top > 0
                else f"num_atoms must be a whole number of at least 1; got {size!r}"
            )
    return [int(size) for size in sizes]


def _draw(
    config: ADiTConfig, kind: str, seed: int, places: list[int], sizes: list[int] | None
) -> tuple[list[int], list[Tensor]]:
    """Size and noise of each sample from a generator of its own."""
    # Without a histogram the sizes are given, but a number is drawn all the same: the noise that
    # follows it belongs to (seed, index) either way.
    histogram = config.size_histogram.get(kind, [])
    cumulative = np.cumsum(histogram if sum(histogram) else [1], dtype=float)
    cumulative /= cumulative[-1]
    drawn, noise = [], []
    for row, place in enumerate(places):
        random = np.random.default_rng([KINDS.index(kind), seed, place])
        size = int(np.searchsorted(cumulative, random.random(), side="right"))
        size = size if sizes is None else sizes[row]
        values = random.standard_normal((size, config.autoencoder.latent_dim), dtype=np.float32)
        drawn.append(size)
        noise.append(center(torch.from_numpy(values)[None], config.flow)[0])
    return drawn, noise


def _given_noise(
    noise: Tensor | Sequence[Tensor], sizes: list[int], latent_dim: int
) -> list[Tensor]:
    wanted = [(size, latent_dim) for size in sizes]
    if isinstance(noise, Tensor) and noise.dim() == 3 and len(noise) == len(sizes):
        # A padded array: what lies beyond a structure's atoms never touches it.
        noise = [x[:size] for x, size in zip(noise, sizes, strict=True)]
    shapes = [tuple(x.shape) for x in noise]
    if shapes != wanted:
        raise ValueError(f"noise must have shapes {wanted[:3]}..., one a sample; got {shapes[:3]}")
    return [x.float() for x in noise]


Predict = Callable[[Tensor, float], Tensor]
Correct = Callable[[Tensor, float], Tensor]


def euler_step(predict: Predict, x: Tensor, t: float, dt: float) -> Tensor:
    """One step along the straight line to the predicted clean latent."""
    return x + (predict(x, t) - x) * (dt / (1.0 - t))


def heun_step(predict: Predict, x: Tensor, t: float, dt: float) -> Tensor:
    """Second-order step: the mean of the velocities at both ends (two network calls)."""
    velocity = (predict(x, t) - x) / (1.0 - t)
    if t + dt >= 1.0 - 1e-6:
        return x + velocity * dt
    ahead = x + velocity * dt
    second = (predict(ahead, t + dt) - ahead) / (1.0 - t - dt)
    return x + 0.5 * (velocity + second) * dt


def time_points(num_steps: int) -> list[float]:
    """Times from 0 to 1; steps shrink towards the end, where bond lengths settle."""
    u = np.linspace(0.0, 1.0, num_steps + 1)
    return [float(t) for t in 1.0 - (1.0 - u) ** 1.5]


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

    step: Callable[[Predict, Tensor, float, float], Tensor]
    times: Callable[[int], list[float]] = time_points
    predicts_last: bool = False
    fewest_steps: int = 1


SAMPLERS = {
    "euler": Sampler(euler_step),
    "heun": Sampler(heun_step),
    "published": Sampler(euler_step, published_time_points, predicts_last=True, fewest_steps=2),
}


class Guided:
    """Guided predictions with self-conditioning: x1 = null + scale (labelled - null)."""

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
        repeats = 1 if scale == 1.0 else 2
        self.repeats = repeats
        self.labels = {
            name: torch.cat(
                [
                    torch.full((num,), label, device=device, dtype=torch.long),
                    torch.zeros(num * (repeats - 1), device=device, dtype=torch.long),
                ]
            )
            for name, label in labels.items()
        }
        self.previous: Tensor | None = None

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Predicted clean latent for `[batch, atoms, latent_dim]` at one time."""
        both = x.repeat(self.repeats, 1, 1)
        times = torch.full((len(both),), t, device=x.device)
        previous = None if self.previous is None else self.previous.repeat(self.repeats, 1, 1)
        x1 = self.denoiser(both, times, self.labels, previous)
        if self.repeats == 2:
            labelled, null = x1.chunk(2)
            x1 = null + self.scale * (labelled - null)
        if self.correct is not None:
            x1 = self.correct(x1, t)
        self.previous = x1
        return x1


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
            for t, after in pairwise(times):
                x = sampler.step(predict, x, t, after - t)
            if sampler.predicts_last:
                x = predict(x, times[-1])
            yield chosen, x
