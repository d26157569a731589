"""What was tuned to a checkpoint's weights travels with them: its settings of the samplers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adit_model.checked import Checked, problem


@dataclass(frozen=True)
class KindSampling(Checked):
    """How samples of one kind are made best; the defaults suit any network.

    Attributes:
        num_steps: from noise to structure.
        fresh_noise: deviation of the ancestral sampler's fresh noise: (up to this time,
            deviation), in order, up to time 1. Below one it samples at a lower temperature:
            valid, but less varied.
        times: shape of the ancestral sampler's steps: 1 - (1 - u)^times for u from 0 to 1.
        weaker: what the network that guidance leads away from lacks: the labels (classifier-free
            guidance, arXiv 2207.12598), its middle block, or the distances of its attention.
        weaker_from: guidance begins at this time,
        weaker_until: and ends at this one (arXiv 2404.07724).
        request_from: requested elements are imposed on predictions from this time on, where the
            network cannot be told them; earlier ones are too blurred to hold elements.
        temperature: of the prior's draws.
        conditions: what the network is told unless the caller says otherwise.
        condition_guidance: scales by condition, how hard the prior's draws are led by what is told
            (`guided_conditions`); 1 is plain.
    """

    num_steps: int = 50
    fresh_noise: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    times: float = 1.75
    weaker: Literal["labels", "block", "distances"] = "labels"
    weaker_from: float = 0.0
    weaker_until: float = 1.0
    request_from: float = 0.5
    temperature: float = 1.0
    conditions: dict[str, float] = field(default_factory=dict)
    condition_guidance: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fresh_noise", tuple(tuple(row) for row in self.fresh_noise))
        ends = [until for until, _ in self.fresh_noise]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0:
            raise ValueError(f"fresh_noise must have rising times up to 1; got {self.fresh_noise}")
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1; got {self.num_steps}")
        if self.temperature <= 0 or self.times <= 0:
            raise ValueError("temperature and times must be above 0")
        check_condition_guidance(self.condition_guidance)


def check_condition_guidance(scales: Any) -> None:
    """Scales by the name of a condition.

    Raises:
        ValueError: no such mapping, or a scale is no finite number of at least 0.
    """
    if not isinstance(scales, Mapping) or not all(
        isinstance(name, str) and not problem(scale, float) and scale >= 0
        for name, scale in scales.items()
    ):
        raise ValueError(
            "condition_guidance must hold finite numbers of at least 0 by condition (1 is none), "
            f"such as {{'space_group': 2}}; got {scales!r:.80}"
        )


def guided_conditions(
    own: KindSampling, told: Collection[str], asked: Mapping[str, float] | None
) -> dict[str, float]:
    """Scales of what is told: those of the caller, else the checkpoint's.

    A scale s draws elements by p(told) (p(told) / p(not told))^(s - 1): those that the condition
    makes likelier become likelier still.

    Args:
        own: the checkpoint's settings.
        told: names of the conditions that the prior is told.
        asked: the caller's scales.

    Raises:
        ValueError: a scale is impossible, or of a condition that is not told.
    """
    check_condition_guidance(asked or {})
    for name in asked or {}:
        if name not in told:
            raise ValueError(
                f"condition_guidance of {name!r}, which the prior is not told. "
                f"Told: {', '.join(told) or 'nothing'}; set it in conditions"
            )
    scales = own.condition_guidance | dict(asked or {})
    return {name: float(scale) for name, scale in scales.items() if name in told}


# What the first releases were sampled with, when these settings were not in their files yet.
# Compositions of crystals settle in the middle of the way, bond lengths of molecules at its end;
# crystals need weaker noise only until their lattice has settled.
BEFORE_SAMPLING_WAS_RECORDED = {
    "crystal": KindSampling(
        fresh_noise=((0.45, 0.7), (1.0, 1.0)), weaker="block", weaker_from=0.4, weaker_until=0.6
    ),
    "molecule": KindSampling(fresh_noise=((1.0, 0.7),), weaker="distances", weaker_from=0.5),
}


def kinds_sampling(values: Mapping[str, Any], kinds: tuple[str, ...]) -> dict[str, KindSampling]:
    """Settings by kind, from a checkpoint's file or from Python.

    Raises:
        ValueError: an unknown kind or setting.
    """
    if not isinstance(values, Mapping) or not set(values) <= set(kinds):
        raise ValueError(f"sampling must have the keys {kinds}; got {values!r:.80}")
    made = {}
    for kind, each in values.items():
        try:
            made[kind] = each if isinstance(each, KindSampling) else KindSampling(**each)
        except (TypeError, ValueError) as error:
            raise ValueError(f"sampling of {kind!r}: {error}") from error
    return made


def check_scales(scales: Any, kinds: tuple[str, ...]) -> None:
    """Guidance by kind.

    Raises:
        ValueError: an unknown kind, or no number of at least 0.
    """
    known = isinstance(scales, dict) and set(scales) <= set(kinds)
    if not known or any(problem(each, float) or each < 0 for each in scales.values()):
        raise ValueError(
            f"guidance_scales must hold numbers of at least 0 by kind {kinds}; got {scales!r:.80}"
        )


def check_histogram(histogram: Any, kinds: tuple[str, ...]) -> None:
    """Counts of structures with 0, 1, 2, ... atoms; sizes are drawn from it, never 0 atoms.

    Raises:
        ValueError: an unknown kind, or no list of counts.
    """
    if not isinstance(histogram, dict) or not set(histogram) <= set(kinds):
        raise ValueError(f"size_histogram must have the keys {kinds}; got {histogram!r:.80}")
    for kind, counts in histogram.items():
        whole = isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts)
        if not whole or (counts and counts[0]):
            raise ValueError(
                f"size_histogram of {kind!r} must be a list of counts from 0 atoms (none) up; "
                f"got {counts!r:.80}"
            )
