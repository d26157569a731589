"""Reconstruction and structure prediction: how many target crystals are found again, how well.

Match rate and RMSE as in CDVAE and DiffCSP (Xie et al. 2022; Jiao et al. 2023, arXiv:2309.04475):
StructureMatcher with stol 0.5, angle 10, ltol 0.3; the RMSE of the matched, in units of the cube
root of the volume an atom. METRe (match everyone to reference) and cRMSE, in which a target without
a match counts with stol, after Martirossyan et al. 2025, "All that structure matches does not
glitter".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from adit_plugins import processes
from adit_plugins.matching.matcher import STOL, rms_distance
from adit_plugins.metrics.crystals import CrystalMetrics
from adit_plugins.metrics.rates import Rate
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from pymatgen.core import Structure

Pair = tuple[Sample, Sample]


def add_reconstruction(
    metrics: CrystalMetrics,
    crystals: Sequence[Sample | None],
    targets: Sequence[Sample | None],
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Add the match rates and RMSEs of crystals against target crystals.

    In pairs (crystal i is meant to be target i) where there are as many of each; and METRe, each
    target against every crystal of its formula. A crystal that is not structurally valid, or an
    unreadable one, matches nothing and stays in the denominators.

    Raises:
        ValueError: there are no target crystals.
    """
    if not any(target is not None for target in targets):
        raise ValueError("The targets hold no readable crystal.")
    usable = [
        sample if row["struct_valid"] else None
        for sample, row in zip(crystals, metrics.rows, strict=True)
    ]
    formulas = [row["formula"] for row in metrics.rows]
    wanted = [None if target is None else _formula(target) for target in targets]
    paired = len(crystals) == len(targets)
    places = [
        (i, j)
        for j, formula in enumerate(wanted)
        for i, other in enumerate(formulas)
        if formula is not None and formula == other and usable[i] is not None
    ]
    pairs = ((cast(Sample, usable[i]), cast(Sample, targets[j])) for i, j in places)
    distances: dict[tuple[int, int], float] = {}
    found = processes.map(pair_distance, pairs, _no_distance, workers)
    for count, (place, distance) in enumerate(zip(places, found, strict=True), start=1):
        if distance is not None:
            distances[place] = distance
        if progress is not None:
            progress("crystals matched", count, len(places))
    if paired:
        _add_pairs(metrics, [distances.get((i, i)) for i in range(len(targets))])
    best = [
        min((d for (_, j), d in distances.items() if j == place), default=None)
        for place in range(len(targets))
    ]
    _add_metre(metrics, best)


def pair_distance(pair: Pair) -> float | None:
    """RMS distance of a crystal and a target; None without a match."""
    first, second = (cast("Structure", sample.to_pymatgen()) for sample in pair)
    return rms_distance(first, second)


def _no_distance(pair: Pair, problem: str) -> None:
    return None


def _add_pairs(metrics: CrystalMetrics, distances: Sequence[float | None]) -> None:
    matched = [d for d in distances if d is not None]
    for row, distance in zip(metrics.rows, distances, strict=True):
        row["rms_to_target"] = distance
    note = "crystal i against target i, StructureMatcher 0.5/10/0.3"
    metrics.rates.append(Rate("match rate", len(matched), len(distances), "targets", note))
    metrics.values["RMSE of the matched pairs"] = _mean(matched)


def _add_metre(metrics: CrystalMetrics, best: Sequence[float | None]) -> None:
    matched = [d for d in best if d is not None]
    note = "a target counts if any crystal of its formula matches it"
    metrics.rates.append(Rate("METRe", len(matched), len(best), "targets", note))
    metrics.values["RMSE of METRe"] = _mean(matched)
    metrics.values["cRMSE of METRe"] = _mean([STOL if d is None else d for d in best])


def _formula(sample: Sample) -> str:
    return str(cast("Structure", sample.to_pymatgen()).composition.reduced_formula)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
