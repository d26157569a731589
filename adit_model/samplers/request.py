"""What a call of `ADiT.sample` asks for, checked: sizes, labels and starting noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adit_model.config import ELEMENTS, KINDS, ADiTConfig, Condition
from adit_model.flow import center
from adit_model.samplers.steps import SAMPLERS
from adit_model.sampling import KindSampling

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class SamplingSettings:
    """How samples are made, whatever they are; `ADiT.sample` takes the fields as arguments.

    Attributes:
        num_steps: steps from noise to structure.
        guidance_scale: away from a weaker network (`Guided`); 1 is none, None the checkpoint's.
        sampler: of `SAMPLERS`.
        batch_size: most structures run at once; by default as many as the caches of a CPU or a
            share of a GPU's free memory hold (`run.structures_at_once`).
        precision: of the denoiser's matrices, `"float32"` or `"bfloat16"`.

    Raises:
        ValueError: a field has an impossible value.
    """

    num_steps: int = 50
    guidance_scale: float | None = None
    sampler: str = "ancestral"
    batch_size: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size"):
            value = getattr(self, name)
            if value is None and name == "batch_size":
                continue
            if not _is_whole(value) or int(value or 0) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"No sampler {self.sampler!r}. Known: {', '.join(SAMPLERS)}.")
        fewest = SAMPLERS[self.sampler].fewest_steps
        if self.num_steps < fewest:
            raise ValueError(
                f"the sampler {self.sampler!r} needs num_steps of at least {fewest}; "
                f"got {self.num_steps}"
            )
        scale = self.guidance_scale
        if scale is not None and not (
            isinstance(scale, int | float | np.number) and np.isfinite(scale) and scale >= 0
        ):
            raise ValueError(f"guidance_scale must be at least 0; got {scale!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )


@dataclass(frozen=True)
class Request:
    """A checked call of `ADiT.sample`: sizes and starting noise of every sample are fixed."""

    settings: SamplingSettings
    sampling: KindSampling
    guidance_scale: float
    labels: dict[str, Tensor]  # `[num]` each, see `Denoiser.forward`
    sizes: list[int]
    noise: list[Tensor]
    streams: list[list[int]]  # names each sample's random numbers: kind, seed, index
    elements: list[list[int]] | None = None  # told to the network, one list a sample
    centered: bool = False  # noise without its mean over the atoms, as the flow was trained
    start_time: float = 0.0  # the noise may be a partly noised latent of this time
    particles: int = 1  # so many rows, one after the other, compete for one sample

    @property
    def kind(self) -> str:
        """Crystals or molecules, one of `KINDS`."""
        return KINDS[self.streams[0][0]]

    def labels_of(self, rows: list[int], device: torch.device) -> dict[str, Tensor]:
        """What the network is told of some samples of one size."""
        told = {name: values[rows].to(device) for name, values in self.labels.items()}
        if self.elements is not None:
            told[ELEMENTS] = torch.tensor([self.elements[row] for row in rows], device=device)
        return told

    @classmethod
    def checked(
        cls,
        config: ADiTConfig,
        num: int,
        kind: str,
        settings: SamplingSettings,
        *,
        seed: int = 0,
        num_atoms: int | Sequence[int] | None = None,
        labels: dict[str, Tensor] | None = None,
        noise: Tensor | Sequence[Tensor] | None = None,
        indices: Sequence[int] | None = None,
        elements: Sequence[Sequence[int]] | None = None,
    ) -> Request:
        """Check every argument, then draw what belongs to (seed, index).

        Args:
            config: the checkpoint's.
            num: samples.
            kind: of `KINDS`.
            settings: how they are made.
            seed: of the noise and the sizes.
            num_atoms: one number for all, or one a sample; by default drawn.
            labels: what the network is told, from `checked_labels`.
            noise: starting noise, one a sample.
            indices: which samples of the sequence; by default the first `num`.
            elements: atomic numbers of every sample, which the network is told.

        Raises:
            ValueError: an argument is out of range.
        """
        places = checked_places(num, kind, seed, indices)
        if elements is not None:
            num_atoms = [len(each) for each in elements]
        sizes, drawn = _draw(config, kind, seed, places, _sizes(config, kind, num, num_atoms))
        if noise is not None:
            drawn = _given_noise(noise, sizes, config.autoencoder.latent_dim)
        scale = settings.guidance_scale
        if scale is None:
            scale = config.guidance_scales.get(kind, 1.0)
        return cls(
            settings=settings,
            sampling=config.sampling_of(kind),
            guidance_scale=float(scale),
            labels=checked_labels(config, kind, num, {}) if labels is None else labels,
            sizes=sizes,
            noise=drawn,
            centered=config.flow.center_noise,
            elements=None if elements is None else [list(each) for each in elements],
            streams=[[KINDS.index(kind), int(seed), place] for place in places],
        )


def checked_places(num: int, kind: str, seed: int, indices: Sequence[int] | None) -> list[int]:
    """Which samples of a seed's sequence are asked for.

    Raises:
        ValueError: an argument is out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if not _is_whole(num) or num < 1:
        raise ValueError(f"num must be a whole number of at least 1; got {num!r}")
    if not _is_whole(seed) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0; got {seed!r}")
    places = list(range(int(num))) if indices is None else list(indices)
    if len(places) != num or not all(_is_whole(i) and i >= 0 for i in places):
        raise ValueError(f"indices must be {num} whole numbers of at least 0; got {indices!r}")
    return [int(place) for place in places]


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def tells_elements(config: ADiTConfig) -> bool:
    """Whether the network can be told the elements of a sample."""
    denoiser = config.denoiser
    return denoiser is not None and ELEMENTS in (c.name for c in denoiser.conditions)


def check_elements(
    config: ADiTConfig, elements: Sequence[Sequence[int]], num: int, kind: str
) -> None:
    """Refuse elements that the network cannot be told.

    Raises:
        ValueError: it can be told none, or these are not as in training.
    """
    if not tells_elements(config):
        raise ValueError(f"{config.name!r} cannot be told elements; see `adit train denoiser`")
    top = config.autoencoder.num_types - 1
    if len(elements) != num:
        raise ValueError(f"elements has {len(elements)} entries for {num} samples")
    for each in elements:
        if not len(each) or not all(1 <= int(z) <= top for z in each):
            raise ValueError(f"elements must be atomic numbers of 1..{top}; got {each!r}")
        if kind == KINDS[0] and list(each) != sorted(each):
            raise ValueError(f"elements of a crystal must rise, as in training; got {each!r}")


def checked_labels(
    config: ADiTConfig, kind: str, num: int, conditions: Mapping[str, Any]
) -> dict[str, Tensor]:
    """What the network is told of every sample: `[num]` by condition, the kind first.

    Args:
        config: the checkpoint's.
        kind: of `KINDS`.
        num: samples.
        conditions: values by name, one for all samples or one each; None is not told. The
            checkpoint's own (`KindSampling.conditions`) stand unless they are overridden.

    Raises:
        ValueError: the checkpoint has no such condition for this kind, or the value is outside
            its training data.
    """
    assert config.denoiser is not None
    first, *others = config.denoiser.conditions
    known = {c.name: c for c in (config.prior.conditions if config.prior else ())}
    known |= {c.name: c for c in others if c.name != ELEMENTS}
    labels = {first.name: torch.full((num,), KINDS.index(kind) + 1)}
    for name, value in (config.sampling_of(kind).conditions | dict(conditions)).items():
        if name not in known:
            raise ValueError(
                f"No condition {name!r} in this checkpoint. Known: {', '.join(known) or 'none'}."
            )
        if value is None:
            continue
        if kind not in known[name].kinds:
            fitting = [c.name for c in known.values() if kind in c.kinds]
            raise ValueError(
                f"condition {name!r} is one of {known[name].kinds[0]}s; {kind}s have "
                f"{', '.join(fitting) or 'none'}"
            )
        labels[name] = _label(known[name], value, num)
    return labels


def _label(condition: Condition, value: Any, num: int) -> Tensor:
    values = [value] * num if np.ndim(value) == 0 else list(value)
    if len(values) != num:
        raise ValueError(f"condition {condition.name!r} has {len(values)} values for {num} samples")
    for each in values:
        if condition.type == "number":
            good = isinstance(each, int | float | np.number) and not isinstance(each, bool)
            if not (good and condition.low <= each <= condition.high):
                raise ValueError(
                    f"condition {condition.name!r} must be {condition.low:g} to "
                    f"{condition.high:g} {condition.unit}".rstrip()
                    + f", the range of the training data; got {each!r}"
                )
        elif not _is_whole(each) or not 0 <= each <= condition.size:
            raise ValueError(
                f"condition {condition.name!r} must be 0..{condition.size}; got {each!r}"
            )
    dtype = torch.float32 if condition.type == "number" else torch.long
    return torch.tensor(
        [float(v) if condition.type == "number" else int(v) for v in values], dtype=dtype
    )


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
