"""Substitution: the right sites change, charges are counted, the cell follows the radii."""

from __future__ import annotations

import pytest
from ase.build import bulk, molecule
from pymatgen.core import Lattice, Structure

from adit_plugins import ADiTGenerator, substituted

ROCKSALT = {"NaCl": 5.64, "KCl": 6.29, "MgO": 4.21, "CaO": 4.81}  # angstrom, experiment
LITHIUM_COBALTATE = Structure.from_spacegroup(
    "R-3m",
    Lattice.hexagonal(2.816, 14.05),
    ["Li", "Co", "O"],
    [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2395]],
)


@pytest.mark.parametrize(("old", "new", "exchange"), [
    ("NaCl", "KCl", {"Na": "K"}), ("KCl", "NaCl", {"K": "Na"}), ("MgO", "CaO", {"Mg": "Ca"}),
])  # fmt: skip
def test_the_cell_comes_near_that_of_the_new_salt(
    old: str, new: str, exchange: dict[str, str]
) -> None:
    made = substituted(bulk(old, "rocksalt", ROCKSALT[old]), exchange)
    assert made.structure.reduced_formula == new and made.charge_balanced and made.radii == "ionic"
    found = (4 * made.structure.volume) ** (1 / 3)
    assert abs(found - ROCKSALT[new]) < 0.4 * abs(ROCKSALT[old] - ROCKSALT[new])
    assert made.volume_ratio == pytest.approx((found / ROCKSALT[old]) ** 3)


def test_sites_keep_their_order_and_what_is_known_is_said() -> None:
    made = substituted(LITHIUM_COBALTATE, {"Co": "Mn"})
    assert [s.specie.symbol for s in made.structure] == ["Li"] * 3 + ["Mn"] * 3 + ["O"] * 6
    assert made.oxidation_states == {"Li": 1, "Mn": 3, "O": -2}
    told = made.structure.properties["adit"]
    assert told == {"substitution_of": "Li3 Co3 O6", "elements": {"Co": "Mn"}}
    swapped = substituted(LITHIUM_COBALTATE, {"Li": "Co", "Co": "Li"}, rescale=False)
    assert [s.specie.symbol for s in swapped.structure][:4] == ["Co"] * 3 + ["Li"]
    assert swapped.volume_ratio == pytest.approx(1) and swapped.radii is None


def test_what_is_not_balanced_or_no_salt_is_said() -> None:
    wrong = substituted(bulk("NaCl", "rocksalt", 5.64), {"Na": "La"})
    assert not wrong.charge_balanced and wrong.oxidation_states == {} and wrong.radii == "atomic"
    alloy = substituted(bulk("CuZn", "cesiumchloride", 2.95), {"Cu": "Mg"})
    assert alloy.charge_balanced and alloy.radii == "atomic" and alloy.volume_ratio > 1


@pytest.mark.parametrize(("elements", "words"), [
    ({"Co": "Mn"}, "Co is not in NaCl, which has Cl, Na"), ({"Na": "Xx"}, "no element 'Xx'"),
    ({}, "new symbols by old ones"), ({"Na": "D"}, "no element 'D'"),
])  # fmt: skip
def test_mistakes_are_named(elements: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        substituted(bulk("NaCl", "rocksalt", 5.64), elements)
    with pytest.raises(ValueError, match="only the elements of crystals"):
        substituted(molecule("H2O"), {"O": "S"})


def test_a_substitution_is_a_start_for_variations_and_completions(told_checkpoint: str) -> None:
    made = substituted(bulk("NaCl", "rocksalt", 5.64), {"Na": "Li"}).structure
    recipe = ADiTGenerator(checkpoint=told_checkpoint, num_steps=2)
    assert recipe.variations(made, 1)[0].num_atoms == 2
    completed = recipe.complete(made, 1, elements="F")[0]
    assert completed.atomic_numbers.tolist() == [3, 17, 9]
