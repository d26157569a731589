"""LeMat-GenBench's validity of a crystal: charge, distances by radii, plausible density.

The rules of LeMat-GenBench (LeMaterial, https://github.com/LeMaterial/lemat-genbench, read in
2026) with public tables in the place of its data files; the cheap questions are asked first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from adit_plugins.structures.given import to_structure

if TYPE_CHECKING:
    import smact
    from pymatgen.core import Structure

    from adit_plugins.structures.samples import Convertible

METALLIC = 0.7  # SMACT's metallicity score, above which charge is no question
RADIUS_SCALE, RADIUS_EXTRA, RADIUS_UNKNOWN = 0.5, 0.7, 1.0  # angstrom, but for the scale
AMU_PER_CUBIC_ANGSTROM = 1.66053906660  # in g/cm^3
MASS_DENSITY = (0.01, 25.0)  # g/cm^3
ATOMIC_DENSITY = (1e-5, 0.5)  # atoms a cubic angstrom
# H B C N O F Si P S Cl As Se Br Sb Te I: pymatgen's bond_valence.ELECTRONEG, whose module takes
# seconds to import.
ELECTRONEGATIVE = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 51, 52, 53)
NEIGHBOUR_CUTOFFS, BOND_LIMIT = (4.0, 11.0), 1.1  # angstrom, and in units of the nearest distance
CELL_LENGTH, MIN_VOLUME = (1.0, 100.0), 1.0  # angstrom, cubic angstrom


@dataclass(frozen=True)
class LematReport:
    """The three verdicts, and all of them together.

    Attributes:
        charge: charge neutral, or metallic.
        distance: no pair of atoms closer than half of (both radii + 0.7 angstrom).
        plausible: densities, lengths and volume in range.
    """

    charge: bool
    distance: bool
    plausible: bool

    @property
    def valid(self) -> bool:
        """Whether all three hold."""
        return self.charge and self.distance and self.plausible


def check_lemat(structure: Convertible) -> LematReport:
    """Judge one crystal with finite coordinates and a volume.

    Two steps of the original are left out. Bond-valence assignment (`BVAnalyzer`), which takes up
    to ten seconds a structure and passed none of 600 samples of DiffCSP that the other steps had
    not passed; and writing a CIF, which does not fail. Oxidation states are SMACT's `icsd24`
    table, where the original has its own count over ICSD and LeMat-Bulk. Its space-group check is
    part of the caller's work (`adit_plugins.metrics.crystals`).
    """
    structure = to_structure(structure)
    return LematReport(
        charge=_is_neutral_or_metallic(structure),
        distance=_distances_pass(structure),
        plausible=_is_plausible(structure),
    )


@lru_cache(maxsize=200)
def smact_element(symbol: str) -> smact.Element:
    """Return SMACT's data of an element, which it reads from its tables at every call.

    Raises:
        NameError: SMACT knows no element of that name (beyond lawrencium).
    """
    import smact

    return smact.Element(symbol)


def mass_density(structure: Structure) -> float:
    """Return the density in g/cm^3 (pymatgen's own goes through its units and takes 5 ms)."""
    mass = sum(_atomic_mass(site.specie.symbol) for site in structure)  # atomic mass units
    return mass * AMU_PER_CUBIC_ANGSTROM / float(structure.volume)


@lru_cache(maxsize=200)
def _atomic_mass(symbol: str) -> float:
    from pymatgen.core import Element

    return float(Element(symbol).atomic_mass)


def _is_neutral_or_metallic(structure: Structure) -> bool:
    from smact.metallicity import metallicity_score

    composition = structure.composition
    if _neutral_composition(tuple(composition.reduced_composition.get_el_amt_dict().items())):
        return True
    try:
        if metallicity_score(composition) > METALLIC:
            return True
    except (KeyError, NameError, TypeError, ValueError):  # an element beyond SMACT's tables
        return False
    return _has_no_bond_valence(structure)


@lru_cache(maxsize=100_000)
def _neutral_composition(amounts: tuple[tuple[str, float], ...]) -> bool:
    """Whether charges balance, an element taking one state or two that differ by 1, never 0."""
    sums = {0}
    for symbol, amount in amounts:
        n = round(amount)
        try:
            states = set(smact_element(symbol).oxidation_states_icsd24 or ())
        except NameError:
            return False
        charges = {n * q for q in states}
        charges |= {n * q + k for q in states if q + 1 in states for k in range(n + 1)}
        charges.discard(0)
        sums = {a + b for a in sums for b in charges}
    return 0 in sums


def _has_no_bond_valence(structure: Structure) -> bool:
    """Whether no atom is bonded to another element across an electronegative one: a metal.

    The original asks whether pymatgen's `calculate_bv_sum` is 0 for every atom, over its neighbours
    up to 1.1 times the nearest. Such a sum has a term for just these pairs, and none cancels out.
    """
    numbers = np.array([site.specie.Z for site in structure])
    negative = np.isin(numbers, ELECTRONEGATIVE)
    for cutoff in NEIGHBOUR_CUTOFFS:
        first, second, _, distance = structure.get_neighbor_list(cutoff)
        nearest = np.full(len(structure), np.inf)
        np.minimum.at(nearest, first, distance)
        if (BOND_LIMIT * nearest <= cutoff).all():
            break
    bonded = distance < BOND_LIMIT * nearest[first]
    polar = (numbers[first] != numbers[second]) & (negative[first] | negative[second])
    return bool(np.isfinite(nearest).all()) and not bool((bonded & polar).any())


def _distances_pass(structure: Structure) -> bool:
    """Half of (both radii + 0.7 angstrom) is the least distance; an atom's own images are free."""
    from pymatgen.core import Element

    radii = np.array(
        [float(Element(site.specie.symbol).atomic_radius or RADIUS_UNKNOWN) for site in structure]
    )
    limits = RADIUS_SCALE * (RADIUS_EXTRA + radii[:, None] + radii[None, :])
    np.fill_diagonal(limits, 0.0)
    return bool((structure.distance_matrix >= limits).all())


def _is_plausible(structure: Structure) -> bool:
    volume = structure.volume
    return (
        math.isfinite(volume)
        and volume > MIN_VOLUME
        and MASS_DENSITY[0] <= mass_density(structure) <= MASS_DENSITY[1]
        and ATOMIC_DENSITY[0] <= len(structure) / volume <= ATOMIC_DENSITY[1]
        and all(CELL_LENGTH[0] <= length <= CELL_LENGTH[1] for length in structure.lattice.abc)
    )
