"""From noise to latents, in batches of equal size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from adit_model.denoiser import Denoiser
from adit_model.samplers.guidance import Guided, Labels
from adit_model.samplers.request import Request
from adit_model.samplers.steps import SAMPLERS, Draw

DEFAULT_TOKENS = 4096  # atoms run at once, which bounds the memory

# A `Correct` that is also given the rows of the request.
CorrectRows = Callable[[list[int], Tensor, float, Labels], tuple[Tensor, Labels]]


def noise_source(request: Request, rows: list[int], like: Tensor, num_draws: int) -> Draw:
    """Noise for the steps of some rows, from each sample's own stream: batches do not matter.

    All of it is drawn at the first call, which gives the same numbers as one draw a step and one
    upload instead of many.
    """
    deviations = request.sampling.fresh_noise
    shape = (num_draws, *like.shape[1:])
    drawn: Tensor | None = None
    calls = 0

    def draw(t: float) -> Tensor:
        nonlocal drawn, calls
        if drawn is None:
            streams = [np.random.default_rng([*request.streams[row], 1]) for row in rows]
            values = [stream.standard_normal(shape, dtype=np.float32) for stream in streams]
            noise = torch.from_numpy(np.stack(values, axis=1))
            if request.centered:
                noise = noise - noise.mean(dim=2, keepdim=True)
            drawn = noise.to(like.device)
        calls += 1
        deviation = next(size for until, size in deviations if t <= until)
        return deviation * drawn[calls - 1]

    return draw


def sample_latents(
    denoiser: Denoiser,
    request: Request,
    device: torch.device,
    correct: CorrectRows | None = None,
) -> Iterator[tuple[list[int], Tensor, Labels]]:
    """Yield (rows of the request, latents, labels) in batches of equal size: no padding, no mask.

    `correct` replaces predicted clean latents and what they are told, given rows and time.
    """
    settings = request.settings
    sampler = SAMPLERS[settings.sampler]
    times = sampler.times(settings.num_steps, request.sampling)
    if request.start_time > 0:
        times = [request.start_time, *(t for t in times if t > request.start_time)]
    by_size: dict[int, list[int]] = {}
    for row, size in enumerate(request.sizes):
        by_size.setdefault(size, []).append(row)
    for size, rows in sorted(by_size.items()):
        most = settings.batch_size or max(1, DEFAULT_TOKENS // size)
        most = max(1, most // request.particles) * request.particles  # particles stay together
        for start in range(0, len(rows), most):
            chosen = rows[start : start + most]
            x = torch.stack([request.noise[row] for row in chosen]).to(device)
            predict = Guided(
                denoiser,
                request.labels_of(chosen, device),
                request.guidance_scale,
                request.sampling,
                None if correct is None else partial(correct, chosen),
                settings.precision,
            )
            draw = noise_source(request, chosen, x, len(times))
            for t, after in pairwise(times):
                x = sampler.step(predict, x, t, after, draw)
            if sampler.predicts_last:
                x = predict(x, times[-1])
            yield chosen, x, predict.labels
