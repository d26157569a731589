"""Relaxed structures to distinct ones, with their energies, symmetry and how often each came out.

Two structures are one if StructureMatcher maps one onto the other and their energies agree. The
energies come first: in their order, each structure is compared only with the distinct ones within
a window below it, so that thousands of one formula do not need every pair.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adit_plugins.hull.energies import ConventionError, place
from adit_plugins.hull.results import HullResult
from adit_plugins.hull.table import Hull, UnknownElementError
from adit_plugins.matching import first_match, group, reduce_cell
from adit_plugins.relax.results import RelaxResult, bare_structure
from adit_plugins.structures.provenance import KEY, provenance_in
from adit_plugins.structures.symmetrizing import symmetrized
from adit_plugins.structures.symmetry import (
    SYMPREC,
    space_group_symbol,
    symmetry_dataset,
)

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

log = logging.getLogger(__name__)

# eV/atom. Relaxations of one minimum that end at the usual force limit differ by less.
ENERGY_WINDOW = 0.02
# The tolerances of the published protocols (stol 0.5) would take polymorphs for each other: these
# are pymatgen's own.
STOL, ANGLE_TOL, LTOL = 0.3, 5.0, 0.2


@dataclass(frozen=True)
class Contestant:
    """A relaxed structure and what it stands for.

    Attributes:
        result: of the relaxation, with an energy.
        sample_ids: of the samples that ended in it.
        known_as: names of the reference structures that ended in it.
        refined: by the second potential, whose energies come first.
        variation_ids: of the variations of low structures that ended in it.
    """

    result: RelaxResult
    sample_ids: tuple[str, ...] = ()
    known_as: tuple[str, ...] = ()
    refined: bool = False
    variation_ids: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All that ended in it."""
        return self.sample_ids + self.variation_ids + self.known_as

    @property
    def energy(self) -> float:
        """Of the relaxed structure, eV/atom."""
        assert self.result.energy_per_atom is not None  # failures do not compete
        return self.result.energy_per_atom


@dataclass(frozen=True)
class Prediction:
    """A distinct structure.

    Attributes:
        structure: the primitive cell as relaxed (see `primitive_cell`), with the provenance of the
            lowest of its samples in `properties["adit"]`; `adit_plugins.symmetrized` moves it to
            exact symmetry.
        energy_per_atom: eV/atom, by `potential`.
        energy_above_lowest: eV/atom above the lowest structure of its formula by that potential.
        formation_energy_per_atom: eV/atom; None where the hull knows no such energies.
        energy_above_hull: eV/atom above the known phases; None as before.
        space_group: international number; None where no symmetry was found.
        symmetry_tolerance: with which, angstrom.
        density: g/cm^3.
        num_found: how many samples ended in it; variations of low structures are not counted, as
            they come back to where they began.
        sample_ids: of these, the lowest first.
        variation_ids: of the variations that ended in it.
        known_as: names of the reference structures that are this one.
        converged: the relaxation ended below its force limit; if not, the energy is an upper bound.
        potential: where the energies come from.
        refined: by the second potential; energies of the two cannot be compared.
        hull: all that is known about the place on the hull.
    """

    structure: Structure
    energy_per_atom: float
    energy_above_lowest: float
    formation_energy_per_atom: float | None
    energy_above_hull: float | None
    space_group: int | None
    symmetry_tolerance: float
    density: float
    num_found: int
    sample_ids: tuple[str, ...]
    variation_ids: tuple[str, ...]
    known_as: tuple[str, ...]
    converged: bool
    potential: str
    refined: bool
    hull: HullResult | None

    @property
    def names(self) -> tuple[str, ...]:
        """All that ended in it: samples, variations, known structures."""
        return self.sample_ids + self.variation_ids + self.known_as

    @property
    def energy(self) -> float:
        """Of the cell of `structure`, eV."""
        return self.energy_per_atom * len(self.structure)

    @property
    def formula(self) -> str:
        """The reduced formula."""
        return str(self.structure.composition.reduced_formula)

    @property
    def space_group_symbol(self) -> str:
        """Hermann-Mauguin, short; empty where no symmetry was found."""
        return "" if self.space_group is None else space_group_symbol(self.space_group)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the structure comes from."""
        return provenance_in(self.structure.properties)

    def as_record(self) -> dict[str, Any]:
        """Return all but the structure, for tables and JSON."""
        names = ("structure", "hull", "sample_ids", "variation_ids", "known_as")
        values = {name: value for name, value in vars(self).items() if name not in names}
        return {
            "formula": self.formula,
            "num_atoms": len(self.structure),
            "space_group_symbol": self.space_group_symbol,
            **values,
            "known_as": list(self.known_as),
            "sample_ids": list(self.sample_ids),
            "variation_ids": list(self.variation_ids),
        }


def matcher() -> StructureMatcher:
    """Return the matcher that tells predictions apart."""
    from pymatgen.analysis.structure_matcher import StructureMatcher as Matcher

    return Matcher(ltol=LTOL, stol=STOL, angle_tol=ANGLE_TOL)


def distinct(contestants: Iterable[Contestant]) -> list[Contestant]:
    """Return the lowest of each set of equal structures, standing for all of them, lowest first."""
    every = sorted(contestants, key=lambda each: each.energy)
    found: list[Contestant] = []
    for places in group(_label(each) for each in every).values():
        found += _distinct_alike([every[i] for i in places])
    return sorted(found, key=lambda each: each.energy)


def primitive_cell(structure: Structure) -> Structure | None:
    """Return the primitive cell: as it is, or at exact symmetry where that alone shows it.

    Large supercells that still miss their symmetry by hundredths of an angstrom pass pymatgen.
    """
    reduced = reduce_cell(structure)
    try:
        exact = symmetrized(structure)
    except ValueError:
        return reduced
    return exact if reduced is None or len(exact) < len(reduced) else reduced


def _label(each: Contestant) -> tuple[str, str]:
    formula: str = each.result.atoms.symbols.formula.reduce()[0].format("hill")
    return formula, each.result.potential


def _distinct_alike(ascending: Sequence[Contestant]) -> list[Contestant]:
    compare = matcher()
    cells: list[Structure | None] = []
    energies: list[float] = []
    members: list[list[Contestant]] = []
    first = 0  # of the distinct ones that are still within the window
    for each in ascending:
        while first < len(energies) and each.energy - energies[first] > ENERGY_WINDOW:
            first += 1
        cell = primitive_cell(bare_structure(each.result.atoms))
        equal = first_match(cell, cells[first:], matcher=compare)
        if equal is None:
            cells.append(cell)
            energies.append(each.energy)
            members.append([each])
        else:
            members[first + equal].append(each)
    return [_merged(equal) for equal in members]


def _merged(equal: Sequence[Contestant]) -> Contestant:
    lowest = equal[0]
    return Contestant(
        lowest.result,
        tuple(name for each in equal for name in each.sample_ids),
        tuple(name for each in equal for name in each.known_as),
        lowest.refined,
        tuple(name for each in equal for name in each.variation_ids),
    )


def ranked(
    contestants: Sequence[Contestant], hull: Hull, before: Sequence[Contestant] = ()
) -> tuple[list[Prediction], list[str]]:
    """Return predictions, the best first, and what cannot be said of them.

    Those that the second potential has seen come first; then by energy above hull, or by energy
    where there is no place on the hull.

    Args:
        contestants: distinct structures.
        hull: the reference.
        before: as the first potential left them, those included that the second has seen: what
            it has not seen lies above these.
    """
    lowest: dict[tuple[str, str], float] = {}
    for each in (*contestants, *before):
        label = _label(each)
        lowest[label] = min(each.energy, lowest.get(label, each.energy))
    problems: list[str] = []
    made = [_prediction(each, lowest[_label(each)], hull, problems) for each in contestants]
    made.sort(
        key=lambda each: (
            not each.refined,
            each.energy_above_hull is None,
            each.energy_per_atom if each.energy_above_hull is None else each.energy_above_hull,
        )
    )
    return made, list(dict.fromkeys(problems))


def _prediction(each: Contestant, lowest: float, hull: Hull, problems: list[str]) -> Prediction:
    atoms = each.result.atoms
    whole = bare_structure(atoms)
    structure = primitive_cell(whole) or whole
    structure.properties = {KEY: provenance_in(atoms.info)}
    formation, found = None, None
    try:
        formation, found = place(each.result, hull)
    except (ConventionError, UnknownElementError) as error:
        problems.append(f"No energy above hull: {str(error).partition(' Known elements:')[0]}")
    if found is not None and found.note:
        problems.append(found.note)
    dataset = symmetry_dataset(structure)
    return Prediction(
        structure=structure,
        energy_per_atom=each.energy,
        energy_above_lowest=each.energy - lowest,
        formation_energy_per_atom=formation,
        energy_above_hull=None if found is None else found.energy_above_hull,
        space_group=None if dataset is None else int(dataset.number),
        symmetry_tolerance=SYMPREC,
        density=float(structure.density),
        num_found=len(each.sample_ids),
        sample_ids=each.sample_ids,
        variation_ids=each.variation_ids,
        known_as=each.known_as,
        converged=each.result.converged,
        potential=each.result.potential,
        refined=each.refined,
        hull=found,
    )
