"""What a call of `ADiT.sample` asks for, checked: sizes, labels and starting noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adit_model.config import KINDS, ADiTConfig
from adit_model.flow import center
from adit_model.samplers import SAMPLERS


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
    streams: list[list[int]]  # names each sample's random numbers: kind, seed, index
    centered: bool = False  # noise without its mean over the atoms, as the flow was trained
    start_time: float = 0.0  # the noise may be a partly noised latent of this time

    @property
    def kind(self) -> str:
        """Crystals or molecules, one of `KINDS`."""
        return KINDS[self.streams[0][0]]

    @classmethod
    def checked(
        cls,
        config: ADiTConfig,
        num: int,
        kind: str,
        num_steps: int,
        guidance_scale: float | None,
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
        if guidance_scale is None:
            guidance_scale = config.guidance_scales.get(kind, 1.0)
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
            centered=config.flow.center_noise,
            streams=[[KINDS.index(kind), int(seed), int(place)] for place in places],
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
