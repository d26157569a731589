"""Steering by any function: particles of one sample compete on their predicted clean structures.

Sequential Monte Carlo as in Feynman-Kac steering (arXiv 2501.06848): at a few times on the way each
particle is weighed by how much its score has improved, and the particles of a sample are drawn anew
by these weights. Copies part again with the fresh noise of the next step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adit_model.batch import AtomBatch
from adit_model.config import ADiTConfig
from adit_model.flow import center
from adit_model.samplers.request import Request

Score = Callable[[AtomBatch], Sequence[float]]  # lower is better, NaN where there is none

# Before, predictions are too blurred to be judged; after, they hardly change any more.
TIMES = (0.4, 0.57, 0.73, 0.9)
AUTOMATIC = 2.0  # weight over the spread of a sample's first scores, where none is given


@dataclass(frozen=True)
class Steering:
    """How samples are steered.

    Attributes:
        score: of structures, one number each, lower is better; NaN counts as the worst.
        particles: that compete for each sample; so many times the network calls.
        weight: of a unit of the score in the exponent of a particle's weight; None takes 2 over
            the standard deviation of the sample's particles where they are first compared.
        times: when particles are compared, on the way from 0 to 1.

    Raises:
        ValueError: a field has an impossible value.
    """

    score: Score
    particles: int = 4
    weight: float | None = None
    times: tuple[float, ...] = TIMES

    def __post_init__(self) -> None:
        if self.particles < 2:
            raise ValueError(f"particles must be at least 2; got {self.particles!r}")
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"the weight must be a finite number above 0; got {self.weight!r}")
        if list(self.times) != sorted(set(self.times)) or not all(0 < t < 1 for t in self.times):
            raise ValueError(f"times must rise between 0 and 1; got {self.times!r}")


@dataclass
class _Slot:
    """One sample's particles: what they scored and whom they come from."""

    stream: list[int]
    weight: float | None
    base: NDArray[np.float64]  # score of each particle's ancestor where it was last drawn
    lineage: list[list[int]]
    effective_sample_size: list[float | None] = field(default_factory=list)
    failed: int = 0

    def resample(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """The particle that each place continues with."""
        num = len(scores)
        good = np.isfinite(scores)
        self.failed += int((~good).sum())
        kept = np.arange(num)
        if not good.any():
            self.effective_sample_size.append(None)
        else:
            if self.weight is None and (spread := float(scores[good].std())) > 0:
                self.weight = AUTOMATIC / spread
            gain = np.where(good, self.base - scores, -np.inf)
            weights = np.exp(
                (gain - gain.max()) * (self.weight or 0.0), where=good, out=np.zeros(num)
            )
            weights /= weights.sum()
            self.effective_sample_size.append(round(float(1 / np.square(weights).sum()), 3))
            kept = _systematic(weights, [*self.stream, 0, len(self.effective_sample_size)])
            self.base = scores[kept]
        self.lineage = [[*self.lineage[old], place] for place, old in enumerate(kept.tolist())]
        return kept

    def best(self, scores: NDArray[np.float64]) -> tuple[int, dict[str, Any]]:
        """The particle with the lowest score at the end, and what is told of its way."""
        self.failed += int((~np.isfinite(scores)).sum())
        found = bool(np.isfinite(scores).any())
        place = int(np.nanargmin(scores)) if found else 0
        return place, {
            "score": float(scores[place]) if found else None,
            "weight": self.weight,
            "particles": len(scores),
            "effective_sample_size": self.effective_sample_size,
            "lineage": self.lineage[place],
            "ancestors": len({line[0] for line in self.lineage}),
            "failed": self.failed,
        }


def _systematic(weights: NDArray[np.float64], stream: list[int]) -> NDArray[np.int64]:
    """Systematic resampling; who survives keeps its place, copies take those of the others."""
    num = len(weights)
    points = (np.arange(num) + np.random.default_rng(stream).random()) / num
    drawn = np.searchsorted(weights.cumsum(), points, side="right").clip(max=num - 1)
    counts = np.bincount(drawn, minlength=num)
    kept = np.arange(num)
    kept[counts == 0] = np.repeat(kept, np.maximum(counts - 1, 0))
    return kept


class Resampling:
    """The particles of a whole request, on their way."""

    def __init__(self, steering: Steering, request: Request) -> None:
        self.steering = steering
        first = range(0, len(request.sizes), request.particles)
        self.slots = [
            _Slot(
                request.streams[row],
                steering.weight,
                np.zeros(request.particles),
                [[place] for place in range(request.particles)],
            )
            for row in first
        ]

    def due(self, rows: list[int], t: float) -> bool:
        """Whether these rows have come to a time of comparison."""
        done = len(self._of(rows)[0].effective_sample_size)
        return sum(t >= time for time in self.steering.times) > done

    def resample(self, rows: list[int], batch: AtomBatch) -> Tensor:
        """Which of the rows each row continues with, `[rows]`."""
        kept = [
            number * self.steering.particles + slot.resample(scores)
            for number, (slot, scores) in enumerate(self._scored(rows, batch))
        ]
        return torch.from_numpy(np.concatenate(kept)).to(batch.device)

    def finish(self, rows: list[int], batch: AtomBatch) -> tuple[Tensor, list[dict[str, Any]]]:
        """The best row of each sample `[samples]`, and what is told of it."""
        places, told = [], []
        for number, (slot, scores) in enumerate(self._scored(rows, batch)):
            place, report = slot.best(scores)
            places.append(number * self.steering.particles + place)
            told.append(report)
        return torch.tensor(places, device=batch.device), told

    def _of(self, rows: list[int]) -> list[_Slot]:
        particles = self.steering.particles
        return [self.slots[row // particles] for row in rows[::particles]]

    def _scored(self, rows: list[int], batch: AtomBatch) -> list[tuple[_Slot, NDArray[np.float64]]]:
        scores = np.array(self.steering.score(batch), dtype=np.float64)
        if scores.shape != (len(rows),):
            raise ValueError(f"{len(rows)} structures got scores of shape {scores.shape}")
        scores[~np.isfinite(scores)] = np.nan
        return list(zip(self._of(rows), scores.reshape(-1, self.steering.particles), strict=True))


def expanded(
    request: Request,
    config: ADiTConfig,
    particles: int,
    elements: Sequence[Sequence[int]] | None = None,
) -> Request:
    """A request with several particles in the place of each sample, the first as it was.

    Args:
        request: one row a sample.
        config: the checkpoint's.
        particles: rows a sample.
        elements: of each particle, where the network is told them.
    """
    noise, streams = [], []
    for first, stream in zip(request.noise, request.streams, strict=True):
        noise.append(first)
        streams.append(stream)
        for particle in range(1, particles):
            own = [*stream, 1, particle]
            values = np.random.default_rng(own).standard_normal(first.shape, dtype=np.float32)
            noise.append(center(torch.from_numpy(values)[None], config.flow)[0])
            streams.append(own)
    return dataclasses.replace(
        request,
        labels={name: each.repeat_interleave(particles) for name, each in request.labels.items()},
        sizes=[size for size in request.sizes for _ in range(particles)],
        noise=noise,
        streams=streams,
        elements=None if elements is None else [list(each) for each in elements],
        particles=particles,
    )
