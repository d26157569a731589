"""The stages of `adit discover`: each takes the records and adds its verdicts to them.

Nothing is dropped on the way, so every share has its denominator, and an interruption between two
structures leaves records that are simply less complete (a verdict of None was not reached).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

from adit_plugins.samples import Sample

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from adit_plugins.generator import ADiTGenerator
    from adit_plugins.hull import Hull, HullResult
    from adit_plugins.molecules import MoleculeReport
    from adit_plugins.relax import RelaxResult

Report = Callable[[str, int, int], None]  # stage, done, total


@dataclass
class Crystal:
    """A crystal and its verdicts; None is "not reached"."""

    sample: Sample
    structure_valid: bool | None = None
    composition_valid: bool | None = None
    min_distance: float | None = None  # angstrom
    duplicate_of: str | None = None  # id of the first of its kind
    unique: bool | None = None  # among the structurally valid ones
    novel: bool | None = None  # not in the training set
    relaxation: RelaxResult | None = None
    formation_energy_per_atom: float | None = None  # eV/atom
    hull: HullResult | None = None
    hull_problem: str = ""  # why there is no energy above hull
    rank: int | None = None  # among the candidates, from 1

    @cached_property
    def structure(self) -> Structure:
        """The structure as it was generated."""
        return cast("Structure", self.sample.to_pymatgen())

    @property
    def is_relaxed(self) -> bool:
        """Has an energy, converged or not."""
        return self.relaxation is not None and not self.relaxation.failed

    @property
    def energy_above_hull(self) -> float | None:
        """eV/atom by the potential of the relaxation."""
        return None if self.hull is None else self.hull.energy_above_hull

    @property
    def is_candidate(self) -> bool:
        """Passes every check and has a place on the hull's scale."""
        passes = self.structure_valid and self.composition_valid and self.unique and self.novel
        return bool(passes) and self.hull is not None


@dataclass
class MoleculeRecord:
    """A molecule and its verdicts; None is "not reached"."""

    sample: Sample
    report: MoleculeReport | None = None
    duplicate_of: str | None = None
    unique: bool | None = None  # among those that RDKit accepts
    novel: bool | None = None  # SMILES not in the training set


@dataclass(frozen=True)
class Settings:
    """How crystals are relaxed.

    Attributes:
        relaxer: name in the entry-point group `adit.relaxers`; None relaxes nothing.
        fmax: force limit, eV/angstrom.
        max_steps: optimiser steps a structure.
        workers: processes; None for one a core.

    Raises:
        ValueError: a limit is out of range.
    """

    relaxer: str | None = "chgnet"
    fmax: float = 0.05
    max_steps: int = 100
    workers: int | None = None

    def __post_init__(self) -> None:
        from adit_plugins.relax import check_limits

        check_limits(self.fmax, self.max_steps, self.workers)


@dataclass
class Campaign:
    """All records of a run, and the seconds that each stage took."""

    settings: Settings = field(default_factory=Settings)
    crystals: list[Crystal] = field(default_factory=list)
    molecules: list[MoleculeRecord] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    def add(self, sample: Sample) -> None:
        """File a sample under its kind."""
        if sample.kind == "crystal":
            self.crystals.append(Crystal(sample))
        else:
            self.molecules.append(MoleculeRecord(sample))

    def generate(self, generator: ADiTGenerator, num: int, report: Report) -> None:
        """Add `num` fresh samples of the generator's kind.

        Raises:
            ValueError: the model cannot follow the recipe.
        """
        stage = f"{generator.kind}s generated"
        with self._timed(stage):
            for sample in generator.stream(num, progress=lambda done, _: report(stage, done, num)):
                self.add(sample)

    def screen(self, report: Report) -> None:
        """Check validity, duplicates and novelty of everything."""
        if self.crystals:
            with self._timed("crystals checked"):
                check_crystals(self.crystals, report)
                mark_duplicate_crystals(self.crystals)
                mark_novel_crystals(self.crystals)
        if self.molecules:
            with self._timed("molecules checked"):
                check_all_molecules(self.molecules, report)
                mark_duplicate_and_novel_molecules(self.molecules)

    def relax(self, report: Report) -> None:
        """Relax the structurally valid crystals, place them on the hull and rank them.

        Raises:
            UnknownPluginError: there is no relaxer of that name.
            RelaxerError: the potential cannot be loaded.
        """
        if self.settings.relaxer is None or not self.crystals:
            return
        with self._timed("crystals relaxed"):
            relax_crystals(self.crystals, self.settings, report)

    def rank(self) -> None:
        """Number the candidates from the lowest energy above hull up."""
        rank_candidates(self.crystals)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.perf_counter() - start, 2)


def check_crystals(crystals: Sequence[Crystal], report: Report) -> None:
    """Structural and compositional validity."""
    from adit_plugins.validity import (
        is_composition_valid,
        is_structure_valid,
        min_interatomic_distance,
    )

    for i, crystal in enumerate(crystals):
        crystal.min_distance = min_interatomic_distance(crystal.structure)
        crystal.structure_valid = is_structure_valid(crystal.structure)
        crystal.composition_valid = is_composition_valid(crystal.structure.composition)
        report("crystals checked", i + 1, len(crystals))


def mark_duplicate_crystals(crystals: Sequence[Crystal]) -> None:
    """Find matches among the structurally valid crystals; the first of each kind is unique."""
    from adit_plugins.matching import find_duplicates

    valid = [crystal for crystal in crystals if crystal.structure_valid]
    for crystal, first in zip(
        valid, find_duplicates([crystal.structure for crystal in valid]), strict=True
    ):
        crystal.unique = first is None
        crystal.duplicate_of = None if first is None else valid[first].sample.id


def mark_novel_crystals(crystals: Sequence[Crystal]) -> None:
    """Look the unique crystals up in the fingerprints of the training set."""
    from adit_plugins.matching import Fingerprints

    known = Fingerprints.load("crystal")
    for crystal in crystals:
        if crystal.unique:
            crystal.novel = not known.contains(crystal.structure)


def check_all_molecules(molecules: Sequence[MoleculeRecord], report: Report) -> None:
    """RDKit validity, connection and PoseBusters."""
    from adit_plugins.validity import check_molecules

    finished = 0

    def keep(index: int, result: MoleculeReport) -> None:
        nonlocal finished
        finished += 1
        molecules[index].report = result
        report("molecules checked", finished, len(molecules))

    check_molecules([molecule.sample for molecule in molecules], on_result=keep)


def mark_duplicate_and_novel_molecules(molecules: Sequence[MoleculeRecord]) -> None:
    """Compare SMILES with each other and with the training set."""
    from adit_plugins.matching import Fingerprints, duplicate_labels
    from adit_plugins.molecules import is_known

    known = Fingerprints.load("molecule")
    valid = [(m, m.report.smiles) for m in molecules if m.report is not None and m.report.smiles]
    for (molecule, smiles), first in zip(
        valid, duplicate_labels([smiles for _, smiles in valid]), strict=True
    ):
        molecule.unique = first is None
        molecule.duplicate_of = None if first is None else valid[first][0].sample.id
        if molecule.unique:
            molecule.novel = not is_known(smiles, known)


def relax_crystals(crystals: Sequence[Crystal], settings: Settings, report: Report) -> None:
    """Relax the structurally valid crystals; each has its place on the hull as it is finished."""
    from adit_plugins.hull import Hull
    from adit_plugins.relax import relax

    assert settings.relaxer is not None
    hull = Hull.load()
    valid = [crystal for crystal in crystals if crystal.structure_valid]
    finished = 0

    def keep(index: int, result: RelaxResult) -> None:
        nonlocal finished
        finished += 1
        valid[index].relaxation = result
        place_on_hull(valid[index], hull)
        report("crystals relaxed", finished, len(valid))

    report("crystals relaxed", 0, len(valid))  # loading the potential takes seconds
    atoms: list[Atoms] = [crystal.sample.to_ase() for crystal in valid]
    relax(
        atoms,
        relaxer=settings.relaxer,
        fmax=settings.fmax,
        max_steps=settings.max_steps,
        workers=settings.workers,
        on_result=keep,
    )


def place_on_hull(crystal: Crystal, hull: Hull) -> None:
    """Formation energy and energy above hull of a relaxed crystal, on the potential's energy."""
    from adit_plugins.hull_energies import place

    if not crystal.is_relaxed:
        return
    assert crystal.relaxation is not None
    try:
        crystal.formation_energy_per_atom, crystal.hull = place(crystal.relaxation, hull)
    except (ValueError, ArithmeticError) as error:  # say, no reference for an element
        crystal.hull_problem = str(error)


def rank_candidates(crystals: Sequence[Crystal]) -> None:
    """Number the candidates, lowest energy above hull first."""
    candidates = [crystal for crystal in crystals if crystal.is_candidate]
    candidates.sort(key=lambda crystal: cast("float", crystal.energy_above_hull))
    for rank, crystal in enumerate(candidates, start=1):
        crystal.rank = rank
