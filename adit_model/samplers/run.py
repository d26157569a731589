"""From noise to latents, in batches of equal size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from adit_model.config import DenoiserConfig
from adit_model.denoiser import Denoiser
from adit_model.pairs import NUM_CENTRES, NUM_POINTS
from adit_model.pairs import WIDTH as PAIR_WIDTH
from adit_model.samplers.graphs import Replayed
from adit_model.samplers.guidance import Guided, Labels
from adit_model.samplers.request import Request
from adit_model.samplers.steps import SAMPLERS, Draw

# Intermediates of one denoiser call. Cores do the most while these stay near the caches.
CPU_BYTES = 64 * 2**20
GPU_SHARE = 0.25  # of the free memory

# A `Correct` that is also given the rows of the request.
CorrectRows = Callable[[list[int], Tensor, float, Labels], tuple[Tensor, Labels]]


def noise_source(
    request: Request, rows: list[int], size: int, num_draws: int, device: torch.device
) -> Draw:
    """Noise for the steps of some rows, from each sample's own stream: batches do not matter.

    All of it is drawn here, which gives the same numbers as one draw a step, and goes to the
    device at the first call, in one upload instead of many.
    """
    deviations = request.sampling.fresh_noise
    width = request.noise[rows[0]].shape[-1]
    values = np.empty((len(rows), num_draws, size, width), dtype=np.float32)
    for place, row in enumerate(rows):
        stream = np.random.default_rng([*request.streams[row], 1])
        stream.standard_normal(dtype=np.float32, out=values[place])
    noise = torch.from_numpy(values)
    if request.centered:
        noise = noise - noise.mean(dim=2, keepdim=True)
    calls = 0

    def draw(t: float) -> Tensor:
        nonlocal noise, calls
        noise = noise.to(device)
        calls += 1
        deviation = next(size for until, size in deviations if t <= until)
        return deviation * noise[:, calls - 1]

    return draw


def bytes_of(size: int, config: DenoiserConfig) -> int:
    """What one structure of `size` atoms takes in a denoiser call, in float32.

    Counted are tensors that live at the same time: of a block's MLP and attention, and of the
    pairs' features, MLP and biases.
    """
    atoms = size * config.width * (2 * config.mlp_ratio + 8)
    pairs = size**2 * config.num_heads * 3
    if config.pair_bias:
        pairs += size**2 * (2 * NUM_POINTS * NUM_CENTRES + 3 * PAIR_WIDTH)
        pairs += size**2 * 2 * config.depth * config.num_heads
    return 4 * (atoms + pairs)


def structures_at_once(size: int, config: DenoiserConfig, device: torch.device) -> int:
    """How many structures of `size` atoms run together, by the memory that they take."""
    budget = float(CPU_BYTES)
    if device.type == "cuda":
        # What torch holds for reuse is free as well.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        budget = GPU_SHARE * (torch.cuda.mem_get_info(device)[0] + held)
    return max(1, int(budget) // bytes_of(size, config))


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
    lower = settings.precision == "bfloat16"
    sampler = SAMPLERS[settings.sampler]
    times = sampler.times(settings.num_steps, request.sampling)
    if request.start_time > 0:
        times = [request.start_time, *(t for t in times if t > request.start_time)]
    by_size: dict[int, list[int]] = {}
    for row, size in enumerate(request.sizes):
        by_size.setdefault(size, []).append(row)
    for size, rows in sorted(by_size.items()):
        most = settings.batch_size or structures_at_once(size, denoiser.config, device)
        most = max(1, most // request.particles) * request.particles  # particles stay together
        for start in range(0, len(rows), most):
            chosen = rows[start : start + most]
            # Before anything goes to the device: a GPU works on the last batch meanwhile.
            draw = noise_source(request, chosen, size, len(times) if sampler.draws else 0, device)
            x = torch.stack([request.noise[row] for row in chosen]).to(device)
            predict = Guided(
                Replayed(denoiser) if device.type == "cuda" else denoiser,
                request.labels_of(chosen, device),
                request.guidance_scale,
                request.sampling,
                None if correct is None else partial(correct, chosen),
            )
            # One context for all steps: it casts the weights once, not at every step.
            with torch.autocast(device.type, torch.bfloat16, enabled=lower):
                for t, after in pairwise(times):
                    x = sampler.step(predict, x, t, after, draw)
                if sampler.predicts_last:
                    x = predict(x, times[-1])
            yield chosen, x, predict.labels
