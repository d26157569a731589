"""From a potential's energy to a place on the hull, each in its own convention.

CHGNet was trained on energies with the Materials Project's 2020 corrections (Wang et al. 2021,
doi 10.1038/s41598-021-94550-5), which the hull contains; it takes none again. MACE-MP, SevenNet
and DFT with the Materials Project's settings give raw energies, to which they must be added.

Which elements are anions, and so corrected, follows from oxidation states that are guessed from the
formula. Where no guess is possible, only the most electronegative element is corrected, as the
scheme has it, and the result says what that may have left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from adit_plugins.hull.calibration import metastable_probability
from adit_plugins.hull.references import references_of
from adit_plugins.hull.results import HullResult
from adit_plugins.hull.table import Hull, atomic_fractions
from adit_plugins.hull.thinness import likely_too_low_by
from adit_plugins.relax.results import CONVENTIONS, MP2020, MP_RAW, RelaxResult, bare_structure
from adit_plugins.validity.oxidation import PYMATGEN_MAX_SITES, guessed_oxidation_states

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


# Elements that MP2020 corrects as anions, and that often are beside a more electronegative one.
# Oxygen and sulfur are told by their bonds.
SECOND_ANIONS = ("Cl", "Br", "I", "N", "Se", "Te")


class ConventionError(ValueError):
    """An energy cannot be compared with the Materials Project's."""


def place(result: RelaxResult, hull: Hull) -> tuple[float, HullResult]:
    """Return formation energy (eV/atom) and energy above hull of a relaxed crystal.

    Raises:
        ConventionError: the energy is on no scale that the hull knows, or takes no correction.
        UnknownElementError: an element has no reference energy.
        ValueError: there is no energy, or the structure is no crystal.
    """
    if result.energy is None:
        raise ValueError(f"no energy: {result.reason}")
    if not result.atoms.pbc.all():
        raise ValueError("molecules have no place on the hull of crystals")
    return place_energy(result.atoms, result.energy, result.convention, result.potential, hull)


def place_energy(
    atoms: Atoms, energy: float, convention: str, potential: str, hull: Hull
) -> tuple[float, HullResult]:
    """Return formation energy (eV/atom) and energy above hull for a total energy.

    Both contain the corrections of the potential's own elements (`adit_plugins.hull.references`),
    where it has any; the distance without them stands beside.

    Args:
        atoms: the crystal; corrections depend on the geometry (peroxides, for one).
        energy: total energy, eV.
        convention: one of `CONVENTIONS`.
        potential: where the energy comes from; its elements and its calibration are looked up by
            this name.
        hull: the reference.

    Raises:
        ConventionError: see `corrected_energy`.
        UnknownElementError: an element has no reference energy.
        ValueError: the energy is not a finite number.
    """
    if not math.isfinite(energy):
        raise ValueError(f"no energy: it is {energy}")
    references = references_of(potential)
    if references is not None and not convention:  # of a potential whose user has calibrated it
        convention = references.convention
    if references is not None and references.convention != convention:
        references = None  # fitted on energies of another scale
    corrected = corrected_energy(atoms, energy, convention)
    formula = atoms.get_chemical_formula(empirical=True)
    formation = hull.formation_energy_per_atom(formula, corrected / len(atoms))
    shift = 0.0 if references is None else references.shift(atomic_fractions(formula))
    found = hull.energy_above_hull(formula, formation - shift)
    found = replace(
        found,
        raw_energy_above_hull=formation - found.hull_energy_per_atom,
        references="" if references is None else references.label,
    )
    return formation - shift, replace(
        found,
        metastable_probability=metastable_probability(found, potential),
        likely_too_low_by=likely_too_low_by(found),
        note=undecided_correction(formula) if convention == MP_RAW else "",
    )


def corrected_energy(atoms: Atoms, energy: float, convention: str) -> float:
    """Return the total energy (eV) with the corrections that its convention lacks.

    Raises:
        ConventionError: the convention is unknown, or pymatgen finds no correction.
    """
    if convention == MP2020:
        return energy
    if convention != MP_RAW:
        known = ", ".join(repr(name) for name in CONVENTIONS)
        raise ConventionError(
            f"energies of the convention {convention!r} have no place on the Materials Project's "
            f"hull. Known: {known} (of `adit hull --convention`; or `adit relaxer calibrate`)."
        )
    return energy + mp2020_correction(bare_structure(atoms))


def mp2020_correction(structure: Structure, hubbards: Mapping[str, float] | None = None) -> float:
    """Return what MaterialsProject2020Compatibility adds to a raw energy, eV a cell.

    Run type and Hubbard U are those that the Materials Project would have chosen; without them
    pymatgen drops a compound such as FeO and says nothing. Oxidation states are guessed for large
    formulas too (pymatgen stops at 20 atoms, and leaves out Cl in Li10B14Cl2O25);
    `undecided_correction` tells where they were not.

    Args:
        structure: what was computed.
        hubbards: with which U (eV) by element; None for those of the Materials Project.

    Raises:
        ConventionError: pymatgen gives no answer for this structure.
    """
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    composition = structure.composition.element_composition
    corrected = _corrected_elements() & {element.symbol for element in composition}
    if not corrected:
        return 0.0  # as in most alloys; no need for the rest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about POTCARs; oxidation states: undecided_correction
        hubbards = mp_hubbards(structure) if hubbards is None else dict(hubbards)
        parameters = {
            "run_type": "GGA+U" if hubbards else "GGA",
            "is_hubbard": bool(hubbards),
            "hubbards": hubbards,
        }
        reduced = composition.reduced_composition
        data: dict[str, Mapping[str, float]] = {}
        if corrected <= {"O", "S"}:  # whose corrections follow from bonds: nothing to guess
            data["oxidation_states"] = {}
        elif reduced.num_atoms > PYMATGEN_MAX_SITES:
            data["oxidation_states"] = dict(guessed_oxidation_states(reduced.reduced_formula))
        entry = ComputedStructureEntry(structure, 0.0, parameters=parameters, data=data)
        scheme = MaterialsProject2020Compatibility(check_potcar=False)
        processed = scheme.process_entries([entry], on_error="ignore")
    if not processed:
        formula = structure.composition.reduced_formula
        raise ConventionError(f"no MP2020 correction for {formula} with {parameters}")
    return float(processed[0].correction)


@lru_cache(maxsize=1)
def _corrected_elements() -> frozenset[str]:
    """The anions that MP2020 corrects; metals with a U it corrects beside O and F alone."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    names = MaterialsProject2020Compatibility(check_potcar=False).comp_correction
    return frozenset({"O", *names})


def undecided_correction(formula: str) -> str:
    """Return what MP2020 may leave out for this formula as its oxidation states are unknown.

    Empty where they are known, or where no element could be a second anion.
    """
    from pymatgen.core import Composition
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    composition = Composition(formula).element_composition
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity
        first = max(composition, key=lambda element: np.nan_to_num(element.X))
    second = [each.symbol for each in composition if each.symbol in SECOND_ANIONS]
    second = sorted(symbol for symbol in second if symbol != first.symbol)
    if not second or guessed_oxidation_states(composition.reduced_formula):
        return ""
    per_atom = MaterialsProject2020Compatibility(check_potcar=False).comp_correction
    most = sum(per_atom[symbol] * composition.get_atomic_fraction(symbol) for symbol in second)
    return (
        f"oxidation states of {composition.reduced_formula} cannot be guessed: without an MP2020 "
        f"correction of {', '.join(second)}, which as anions would lower it by {-most:.3f} eV/atom"
    )


def mp_hubbards(structure: Structure) -> dict[str, float]:
    """Return the Hubbard U (eV) by element with which the Materials Project computes this.

    Empty for a plain GGA calculation. From pymatgen's MPRelaxSet.
    """
    from pymatgen.io.vasp.sets import MPRelaxSet

    composition = structure.composition.element_composition
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity
        anion = max(composition, key=lambda element: np.nan_to_num(element.X)).symbol
    # As the set itself does it; making a whole set of inputs takes 50 times as long.
    by_anion: Mapping[str, Mapping[str, float]] = MPRelaxSet.CONFIG["INCAR"]["LDAUU"]
    values = by_anion.get(anion, {})
    symbols = [element.symbol for element in composition]
    return {symbol: float(values[symbol]) for symbol in symbols if values.get(symbol)}
