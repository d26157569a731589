"""From a potential's energy to a place on the hull, each in its own convention.

CHGNet was trained on energies with the Materials Project's 2020 corrections (Wang et al. 2021,
doi 10.1038/s41598-021-94550-5), which the hull contains; it takes none again. MACE-MP, SevenNet
and DFT with the Materials Project's settings give raw energies, to which they must be added.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from adit_plugins.hull import Hull, HullResult
from adit_plugins.hull_calibration import metastable_probability
from adit_plugins.relax_results import (
    CONVENTIONS,
    MP2020,
    MP_RAW,
    RelaxResult,
    bare_structure,
)

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


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

    Args:
        atoms: the crystal; corrections depend on the geometry (peroxides, for one).
        energy: total energy, eV.
        convention: one of `CONVENTIONS`.
        potential: where the energy comes from; its calibration is looked up by this name.
        hull: the reference.

    Raises:
        ConventionError: see `corrected_energy`.
        UnknownElementError: an element has no reference energy.
        ValueError: the energy is not a finite number.
    """
    if not math.isfinite(energy):
        raise ValueError(f"no energy: it is {energy}")
    corrected = corrected_energy(atoms, energy, convention)
    formula = atoms.get_chemical_formula(empirical=True)
    formation = hull.formation_energy_per_atom(formula, corrected / len(atoms))
    found = hull.energy_above_hull(formula, formation)
    return formation, replace(
        found, metastable_probability=metastable_probability(found, potential)
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
            f"hull. Known: {known} (of `adit hull --convention`)."
        )
    return energy + mp2020_correction(bare_structure(atoms))


def mp2020_correction(structure: Structure) -> float:
    """Return what MaterialsProject2020Compatibility adds to a raw energy, eV a cell.

    Run type and Hubbard U are those that the Materials Project would have chosen; without them
    pymatgen drops a compound such as FeO and says nothing.

    Raises:
        ConventionError: pymatgen gives no answer for this structure.
    """
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about POTCARs and unguessable oxidation states
        hubbards = mp_hubbards(structure)
        parameters = {
            "run_type": "GGA+U" if hubbards else "GGA",
            "is_hubbard": bool(hubbards),
            "hubbards": hubbards,
        }
        entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
        scheme = MaterialsProject2020Compatibility(check_potcar=False)
        processed = scheme.process_entries([entry], inplace=False, on_error="ignore")
    if not processed:
        formula = structure.composition.reduced_formula
        raise ConventionError(f"no MP2020 correction for {formula} with {parameters}")
    return float(processed[0].correction)


def mp_hubbards(structure: Structure) -> dict[str, float]:
    """Return the Hubbard U (eV) by element with which the Materials Project computes this.

    Empty for a plain GGA calculation. From pymatgen's MPRelaxSet, without POTCARs.
    """
    from pymatgen.io.vasp.sets import MPRelaxSet

    incar = MPRelaxSet(structure.get_sorted_structure()).incar
    species = list(dict.fromkeys(site.specie.symbol for site in structure.get_sorted_structure()))
    values = incar.get("LDAUU", [])
    return {symbol: float(u) for symbol, u in zip(species, values, strict=False) if u}
