"""Evaluate whole files: read, score, and put several sets side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from adit_plugins.metrics.crystals import CrystalMetrics, evaluate_crystals
from adit_plugins.metrics.sets import Collection, StructureSet, distinct_names, read_set
from adit_plugins.relax.limits import MAX_STEPS

if TYPE_CHECKING:
    from adit_plugins.metrics.molecules import MoleculeMetrics

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Protocol:
    """What is asked of every set.

    Attributes:
        reference: known crystals, see `evaluate_crystals`.
        molecule_reference: known molecules, see `evaluate_molecules`.
        targets: a file of structures to compare with, for reconstruction and structure
            prediction; None for neither.
        relaxer: relax crystals with this potential and place them on the hull; None does not.
        max_steps: optimiser steps a crystal.
        fast: leave out PoseBusters' energy check.
        workers: processes; None for one a core, 0 for none.
    """

    reference: str = "crystal"
    molecule_reference: str = "molecule"
    targets: str | None = None
    relaxer: str | None = None
    max_steps: int = MAX_STEPS
    fast: bool = False
    workers: int | None = None


@dataclass
class SetMetrics:
    """The scores of one set; None for a kind that it does not hold."""

    name: str
    path: str
    crystals: CrystalMetrics | None = None
    molecules: MoleculeMetrics | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def evaluate_files(
    paths: Sequence[str | PathLike[str]],
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> list[SetMetrics]:
    """Score each file or folder of structures by the same protocol.

    Raises:
        InputError: a file is missing, empty, or as a whole not of its kind.
        ValueError: a reference cannot be read.
        UnknownPluginError: there is no relaxer of that name.
        RelaxerError: the potential cannot be loaded.
    """
    protocol = protocol or Protocol()
    sets = [read_set(path, progress) for path in paths]
    distinct_names(sets)
    return [evaluate_set(each, protocol, progress) for each in sets]


def evaluate_set(
    structures: StructureSet, protocol: Protocol, progress: Progress | None = None
) -> SetMetrics:
    """Score one set that was read."""
    result = SetMetrics(structures.name, str(structures.path), notes=list(structures.notes))
    if len(structures.crystals):
        start = time.perf_counter()
        result.crystals = _score_crystals(structures.crystals, protocol, progress)
        result.seconds["crystals"] = round(time.perf_counter() - start, 1)
    if len(structures.molecules):
        start = time.perf_counter()
        result.molecules = _score_molecules(structures.molecules, protocol, progress)
        result.seconds["molecules"] = round(time.perf_counter() - start, 1)
    return result


def _score_crystals(
    crystals: Collection, protocol: Protocol, progress: Progress | None
) -> CrystalMetrics:
    # Read first: a mistake in its name must not cost the whole evaluation.
    targets = None if protocol.targets is None else read_set(protocol.targets, progress).crystals
    metrics = evaluate_crystals(
        crystals.samples,
        reference=protocol.reference,
        reasons=crystals.reasons,
        workers=protocol.workers,
        progress=progress,
    )
    _name(metrics.rows, crystals)
    if targets is not None:
        from adit_plugins.metrics.reconstruction import add_reconstruction

        add_reconstruction(metrics, crystals.samples, targets.samples, protocol.workers, progress)
    if protocol.relaxer is not None:
        from adit_plugins.metrics.stability import add_stability

        add_stability(
            metrics,
            crystals.samples,
            protocol.relaxer,
            max_steps=protocol.max_steps,
            workers=protocol.workers,
            progress=progress,
        )
    return metrics


def _score_molecules(
    molecules: Collection, protocol: Protocol, progress: Progress | None
) -> MoleculeMetrics:
    from adit_plugins.metrics.molecules import evaluate_molecules

    metrics = evaluate_molecules(
        [None if sample is None else sample.to_ase() for sample in molecules.samples],
        reference=protocol.molecule_reference,
        fast=protocol.fast,
        workers=protocol.workers,
        progress=progress and (lambda done, total: progress("molecules judged", done, total)),
        reasons=molecules.reasons,
    )
    _name(metrics.rows, molecules)
    return metrics


def _name(rows: list[dict[str, Any]], collection: Collection) -> None:
    for index, (row, name) in enumerate(zip(rows, collection.names, strict=True)):
        rows[index] = {"name": name, **row}
