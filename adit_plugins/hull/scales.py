"""Formation energies with other corrections than those of 2020, brought to these.

Tables of the Materials Project's energies, and of those that others computed with its settings,
come on three scales: raw PBE (with a Hubbard U where the Materials Project has one), with its
legacy corrections (Jain et al. 2011, doi 10.1103/PhysRevB.84.045115), as its releases had them
until 2021, and with those of 2020 (Wang et al. 2021, doi 10.1038/s41598-021-94550-5), as the hull
has them. What separates them follows from the structure: which elements are anions, whether oxygen
is an oxide's or a peroxide's, and which metals have a U.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from adit_plugins.hull.energies import mp2020_correction, mp_hubbards
from adit_plugins.hull.table import atomic_fractions, element_references

if TYPE_CHECKING:
    from pymatgen.core import Structure

RAW, LEGACY = "raw", "legacy"
SCALES = (RAW, LEGACY)
# eV/atom, fitted to measured energies of formation: `CompoundEnergies` of pymatgen's
# MPCompatibility.yaml.
LEGACY_GASES = {
    "F": -1.42055013381,
    "Cl": -1.25385097674,
    "N": -7.95247218762,
    "H": -3.23973666138,
}


def shift_to_mp2020(structure: Structure, scale: str) -> float:
    """Return what has to be added to a formation energy for the scale of 2020, eV/atom.

    Args:
        structure: relaxed by DFT with the Materials Project's settings.
        scale: one of `SCALES`, that of the formation energy.

    Raises:
        ValueError: an unknown scale.
        ConventionError: pymatgen gives no correction for this structure.
    """
    if scale not in SCALES:
        raise ValueError(f"unknown scale of energies '{scale}'. Known: {', '.join(SCALES)}.")
    fractions = atomic_fractions(structure.composition)
    if len(fractions) == 1:
        return 0.0
    shift = mp2020_correction(structure) / len(structure)
    if scale == LEGACY:
        shift -= legacy_correction(structure) / len(structure)
        shift += sum(x * legacy_references().get(symbol, 0.0) for symbol, x in fractions.items())
    return shift


def legacy_correction(structure: Structure) -> float:
    """Return the legacy corrections of a compound of oxygen, sulfur or with a U, eV a cell.

    Those of pymatgen's `MaterialsProjectCompatibility` without its check of POTCARs.
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hubbards = mp_hubbards(structure)
        parameters = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards}
        entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
        anions, metals = _legacy_scheme()
        correction = float(anions.get_correction(entry).nominal_value)
        if hubbards:
            correction += float(metals.get_correction(entry).nominal_value)
    return correction


@lru_cache(maxsize=1)
def legacy_references() -> Mapping[str, float]:
    """Return by how much the legacy scheme's elements lie above the tabulated ones, eV/atom.

    It corrects the compounds of F, Cl, N and H by the energy of their gases; the scheme of 2020
    does not.
    """
    elements = element_references()
    return {symbol: energy - elements[symbol] for symbol, energy in LEGACY_GASES.items()}


@lru_cache(maxsize=1)
def _legacy_scheme() -> tuple[Any, Any]:
    from pymatgen.entries import compatibility
    from pymatgen.io.vasp.sets import MPRelaxSet

    file = f"{compatibility.MODULE_DIR}/MPCompatibility.yaml"
    anions = compatibility.AnionCorrection(file)
    return anions, compatibility.UCorrection(file, MPRelaxSet, "Advanced")
