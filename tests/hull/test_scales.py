"""Energies with legacy or no corrections, brought to the scale of 2020."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp.sets import MPRelaxSet

from adit_plugins.hull.energies import mp2020_correction, mp_hubbards
from adit_plugins.hull.scales import legacy_correction, shift_to_mp2020


def salt(metal: str, anion: str, a: float = 4.3) -> Structure:
    return Structure(Lattice.cubic(a), [metal, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


# eV a formula, of pymatgen's MPCompatibility.yaml and MP2020Compatibility.yaml; of NaCl the energy
# of the gas that the legacy scheme has instead, against the tabulated -1.84853693.
@pytest.mark.parametrize(
    ("structure", "raw", "legacy"),
    [
        (salt("Mg", "O"), -0.687, -0.687 + 0.70229),
        (salt("Fe", "O"), -0.687 - 2.256, -0.687 - 2.256 + 0.70229 + 2.733),
        (salt("Mg", "S", 5.2), -0.503, -0.503 + 0.66346),
        (salt("Na", "Br", 6), -0.534, -0.534),
        (salt("Na", "Cl", 5.6), -0.614, -0.614 - 1.25385097674 + 1.84853693),
        (salt("Fe", "Al"), 0.0, 0.0),
        (salt("Fe", "Fe"), 0.0, 0.0),
    ],
)
def test_corrections_are_taken_from_the_scheme_of_the_energy(
    structure: Structure, raw: float, legacy: float
) -> None:
    assert shift_to_mp2020(structure, "raw") == pytest.approx(raw / 2, abs=1e-4)
    assert shift_to_mp2020(structure, "legacy") == pytest.approx(legacy / 2, abs=1e-4)


def test_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'r2scan'. Known: raw, legacy"):
        shift_to_mp2020(salt("Mg", "O"), "r2scan")


def test_oxygen_is_told_by_its_bonds_where_nothing_is_guessed() -> None:
    pair = Structure(
        Lattice.cubic(5), ["Li", "Li", "O", "O"],
        [[0.5, 0, 0], [0, 0.5, 0], [0.5, 0.5, 0.35], [0.5, 0.5, 0.65]],
    )  # fmt: skip
    assert mp2020_correction(pair) == pytest.approx(2 * -0.465)  # a peroxide
    assert legacy_correction(pair) < -0.4


@pytest.mark.parametrize("symbols", ["Fe O", "Ni F", "Fe S", "Co N", "Mn O", "Na Cl", "W O"])
def test_the_hubbard_u_is_that_of_the_whole_set_of_inputs(symbols: str) -> None:
    structure = salt(*symbols.split())
    incar = MPRelaxSet(structure).incar
    expected = dict(zip(symbols.split(), incar.get("LDAUU", [0, 0]), strict=True))
    assert mp_hubbards(structure) == {s: u for s, u in expected.items() if u}
