"""What workers do with a chunk of structures; every function answers for each of them, in order.

They say what they are at and have found (`processes.tell`), which our workers send on at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from adit_plugins.campaign.settings import KNOWN_FORMULA, KNOWN_STRUCTURE, NEW
from adit_plugins.hull.loaders import DEFAULT, kept_hull
from adit_plugins.metrics.stability import is_within
from adit_plugins.processes import At, Each, End, Part, collect, tell
from adit_plugins.relax.results import RelaxResult
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from adit_plugins.campaign.sources import Arrival, Source
    from adit_plugins.hull.results import HullResult
    from adit_plugins.matching.fingerprints import CrystalFingerprints
    from adit_plugins.relax.run import Relaxer
    from adit_plugins.validity.molecules import MoleculeReport

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Screened:
    """The verdicts on a crystal that need nothing but itself and the training set.

    Attributes:
        structure_valid: distances and volume are possible.
        composition_valid: SMACT finds it neutral.
        neutral_by: the first rule that does (`adit_plugins.validity.neutral_by`).
        min_distance: angstrom.
        composition: reduced, such as `"Na1 Cl1"`; only equal ones can be duplicates.
        novel: not in the training set.
        reduced: the cell that StructureMatcher compares; None where there is none.
        problem: what kept the checks from their end.
    """

    structure_valid: bool = False
    composition_valid: bool = False
    neutral_by: str = ""
    min_distance: float | None = None
    composition: str = ""
    novel: bool = False
    reduced: dict[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Placed:
    """A relaxation and the place on the hull of what came of it.

    Attributes:
        result: of the relaxer.
        formation_energy_per_atom: eV/atom.
        hull: None without an energy, or without references.
        hull_problem: why there is no place on the hull.
        novelty: of the relaxed crystal, one of `settings.NOVELTY`; empty where none came of it.
    """

    result: RelaxResult
    formation_energy_per_atom: float | None = None
    hull: HullResult | None = None
    hull_problem: str = ""
    novelty: str = ""


@dataclass(frozen=True)
class Prefiltered:
    """What the pre-filter says of a structure, and the relaxer where that would drop it.

    Attributes:
        placed: relaxed by the pre-filter.
        look: that geometry by the relaxer, not relaxed any further; None where it was not asked.
    """

    placed: Placed
    look: Placed | None = None

    @property
    def energy_above_hull(self) -> float | None:
        """What decides, eV/atom: the lower of the two; None where nobody can judge.

        A relaxer whose energies have no place on the hull leaves the word to the pre-filter; one
        that fails at this geometry does not.
        """
        if self.placed.hull is None or (self.look is not None and self.look.result.failed):
            return None
        own = self.placed.hull.energy_above_hull
        if self.look is None or self.look.hull is None:
            return own
        return min(own, self.look.hull.energy_above_hull)


def screen(samples: Sequence[Sample]) -> list[Screened]:
    """Check crystals: validity, novelty, and the cell for the search for duplicates."""
    _warm_up()
    return collect(Each(_screen_one), samples)


def check(samples: Sequence[Sample]) -> list[MoleculeReport]:
    """Check molecules, PoseBusters included, its energy only where all its other checks pass."""
    from adit_plugins.validity.molecules import TIME_LIMIT, parts_until_one_fails, prepare_worker

    prepare_worker()
    atoms = [sample.to_ase() for sample in samples]
    return collect(Each(parts_until_one_fails, TIME_LIMIT), atoms)


def generate(recipe: dict[str, Any], numbers: Sequence[int]) -> list[Arrival]:
    """Make the samples of these numbers, a sequence without gaps, by a source's recipe."""
    source = _source(json.dumps(recipe))
    tell(At(tuple(range(len(numbers)))))
    return list(source.entries(numbers[0], numbers[-1] + 1))


def _screen_one(sample: Sample) -> Iterator[Screened]:
    from adit_plugins.matching.matcher import reduce_cell
    from adit_plugins.validity.crystals import (
        is_structure_valid,
        min_interatomic_distance,
    )
    from adit_plugins.validity.oxidation import neutral_by

    structure = cast("Structure", sample.to_pymatgen())
    valid = is_structure_valid(structure)
    reduced = reduce_cell(structure) if valid else None
    rule = neutral_by(structure.composition)
    yield Screened(
        structure_valid=valid,
        composition_valid=rule == "smact",
        neutral_by=rule,
        min_distance=min_interatomic_distance(structure),
        composition=structure.composition.reduced_composition.formula,
        novel=valid and not _known().contains(structure),
        reduced=None if reduced is None else pack(reduced),
    )


def pack(structure: Structure) -> dict[str, Any]:
    """Return a crystal as three arrays, a fifth of its pickle."""
    return {
        "lattice": structure.lattice.matrix,
        "numbers": [int(site.specie.Z) for site in structure],
        "frac_coords": structure.frac_coords,
    }


def unpack(packed: dict[str, Any] | None) -> Structure | None:
    """Return the crystal of `pack`."""
    from pymatgen.core import Structure

    if packed is None:
        return None
    return Structure(packed["lattice"], packed["numbers"], packed["frac_coords"])


def relax_and_place(
    relaxer: str, fmax: float, max_steps: int, structures: Sequence[Atoms], hull: str = DEFAULT
) -> list[Placed]:
    """Relax crystals in this process and place them on a hull (`adit_plugins.hull.load_hull`).

    Raises:
        RelaxerError: the potential cannot be loaded; nobody else will do better.
        UnknownPluginError: there is none of that name where this worker runs.
        MissingExtraError: its package is not installed there.
    """
    answers: dict[int, Placed] = {}
    for places in _batches(relaxer, structures, hull):
        tell(At(places))
        placed = _relax_batch(relaxer, fmax, max_steps, [structures[i] for i in places], hull)
        answers |= _said(places, placed)
    return [answers[place] for place in range(len(structures))]


def _batches(relaxer: str, structures: Sequence[Atoms], hull: str) -> list[tuple[int, ...]]:
    """Return what the relaxer takes together, by places; loads it and the hull first."""
    from adit_plugins.relax.run import atoms_wanted_by, batches

    _relaxer(relaxer)
    kept_hull(hull)
    budget = atoms_wanted_by(relaxer)
    if budget is None:
        return [(place,) for place in range(len(structures))]
    return [tuple(place for place, _ in batch) for batch in batches(structures, budget)]


def _relax_batch(
    relaxer: str, fmax: float, max_steps: int, structures: Sequence[Atoms], hull: str
) -> list[Placed]:
    from adit_plugins.relax.run import atoms_wanted_by, relax

    made = _relaxer(relaxer)
    budget = atoms_wanted_by(relaxer)
    results = relax(structures, lambda: made, fmax, max_steps, workers=0, chunk_atoms=budget)
    return [place_result(result, hull) for result in results]


def _said(places: Sequence[int], answers: Sequence[Answer]) -> dict[int, Answer]:
    """Say what was found, and that these are finished."""
    found = dict(zip(places, answers, strict=True))
    for place, answer in found.items():
        tell(Part(place, answer))
        tell(Part(place, End()))
    return found


def prefilter_and_place(
    prefilter: str,
    relaxer: str,
    fmax: float,
    max_steps: int,
    limit: float,
    structures: Sequence[Atoms],
    hull: str = DEFAULT,
) -> list[Prefiltered]:
    """Relax crystals by the pre-filter; above the limit the relaxer looks at what came out.

    One evaluation, against the tens of a relaxation: nothing is dropped on the word of the cheaper
    potential alone.

    Args:
        prefilter: name of the cheaper relaxer.
        relaxer: name of the accurate one.
        fmax: eV/angstrom.
        max_steps: of the pre-filter.
        limit: eV/atom above the hull.
        structures: as generated.
        hull: name of the reference.

    Raises:
        RelaxerError: a potential cannot be loaded.
        UnknownPluginError: there is none of that name where this worker runs.
        MissingExtraError: its package is not installed there.
    """
    answers: dict[int, Prefiltered] = {}
    _relaxer(relaxer)
    for places in _batches(prefilter, structures, hull):
        tell(At(places))
        found = _relax_batch(prefilter, fmax, max_steps, [structures[i] for i in places], hull)
        high = [
            each.hull is not None and not is_within(each.hull.energy_above_hull, limit)
            for each in found
        ]
        doubted = [each.result.atoms for each, is_high in zip(found, high, strict=True) if is_high]
        looks = iter(_relax_batch(relaxer, fmax, 0, doubted, hull) if doubted else [])
        answers |= _said(
            places,
            [
                Prefiltered(each, next(looks) if is_high else None)
                for each, is_high in zip(found, high, strict=True)
            ],
        )
    return [answers[place] for place in range(len(structures))]


@dataclass(frozen=True)
class Confirmed:
    """What a second potential says of a relaxed crystal.

    Attributes:
        start: at the geometry of the first one.
        end: after a short relaxation from there.
    """

    start: Placed
    end: Placed


def confirm_and_place(
    potential: str, fmax: float, max_steps: int, structures: Sequence[Atoms], hull: str = DEFAULT
) -> list[Confirmed]:
    """Judge relaxed crystals as they are and after a few steps; raises what the above does."""
    answers: dict[int, Confirmed] = {}
    for places in _batches(potential, structures, hull):
        tell(At(places))
        batch = [structures[i] for i in places]
        starts = _relax_batch(potential, fmax, 0, batch, hull)
        ends = _relax_batch(potential, fmax, max_steps, batch, hull)
        answers |= _said(places, [Confirmed(*pair) for pair in zip(starts, ends, strict=True)])
    return [answers[place] for place in range(len(structures))]


def place_result(result: RelaxResult, hull: str = DEFAULT) -> Placed:
    """Formation energy and energy above hull of a relaxed crystal, on the potential's energy."""
    from adit_plugins.hull.energies import place

    if result.failed:
        return Placed(result)
    novelty = ""
    try:
        novelty = novelty_of(result.atoms, hull)
        return Placed(result, *place(result, kept_hull(hull)), novelty=novelty)
    except (ValueError, ArithmeticError) as error:  # say, no reference for an element
        return Placed(result, hull_problem=" ".join(str(error).split()), novelty=novelty)


def novelty_of(atoms: Atoms, hull: str = DEFAULT) -> str:
    """Return which of `settings.NOVELTY` a crystal is: by training set and formulas of the hull.

    Raises HullSourceError where that cannot be reached.
    """
    structure = cast("Structure", Sample.from_ase(atoms).to_pymatgen())
    if _known().contains(structure):
        return KNOWN_STRUCTURE
    formula = structure.composition
    return KNOWN_FORMULA if _known().has_formula(formula) or kept_hull(hull).knows(formula) else NEW


# A worker makes each of these once.


@lru_cache(maxsize=3)  # pre-filter, relaxer, and a second opinion
def _relaxer(name: str) -> Relaxer:
    from adit_plugins.relax.run import load_relaxer

    return load_relaxer(name)


@lru_cache(maxsize=1)
def _source(recipe: str) -> Source:
    from adit_plugins.campaign.sources import source_of

    return source_of(json.loads(recipe))


@lru_cache(maxsize=1)
def _warm_up() -> None:
    """Import and read all that checks need, so that the first structure's time does not pay."""
    from ase.build import bulk

    list(_screen_one(Sample.from_ase(bulk("NaCl", "rocksalt", a=5.69))))


@lru_cache(maxsize=1)
def _known() -> CrystalFingerprints:
    from adit_plugins.matching.fingerprints import CrystalFingerprints, Fingerprints

    return cast(CrystalFingerprints, Fingerprints.load("crystal"))
