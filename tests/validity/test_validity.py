"""Validity predicates against hand-made cases, the literal published rule, and real molecules."""

import itertools
import time

import numpy as np
import pytest
import smact
from ase import Atoms
from ase.build import molecule
from pymatgen.core import Composition, Lattice, Structure
from smact.screening import pauling_test

from adit_plugins.validity import crystals as validity
from adit_plugins.validity import neutral_by


def rock_salt(a: float = 5.64) -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def test_min_distance_is_the_bond_and_does_not_depend_on_the_cell() -> None:
    structure = rock_salt()
    assert validity.min_interatomic_distance(structure) == pytest.approx(2.82)
    primitive = structure.get_primitive_structure()
    assert validity.min_interatomic_distance(primitive) == pytest.approx(2.82)
    sheared = Structure(
        Lattice([[5.64, 0, 0], [56.4, 5.64, 0], [0, -28.2, 5.64]]),
        structure.species,
        structure.cart_coords,
        coords_are_cartesian=True,
    )
    assert validity.min_interatomic_distance(sheared) == pytest.approx(2.82)


def test_own_periodic_image_counts() -> None:
    thin = Structure(Lattice.orthorhombic(0.4, 8, 8), ["Fe"], [[0, 0, 0]])
    assert validity.min_interatomic_distance(thin) == pytest.approx(0.4)
    assert not validity.is_structure_valid(thin)


@pytest.mark.parametrize(
    ("separation", "expected"), [(0.49, False), (0.51, True)], ids=["closer", "farther"]
)
def test_distance_limit(separation: float, expected: bool) -> None:
    pair = Structure(Lattice.cubic(6), ["H", "H"], [[0, 0, 0], [separation / 6, 0, 0]])
    assert validity.is_structure_valid(pair) is expected


def test_flat_and_broken_cells_are_invalid_not_errors() -> None:
    flat = Structure(Lattice([[3, 0, 0], [0, 3, 0], [3, 3, 0]]), ["Fe"], [[0, 0, 0]])
    assert not validity.is_structure_valid(flat)
    broken = Structure(Lattice.cubic(3), ["Fe", "O"], [[0, 0, 0], [np.nan, 0, 0]])
    assert not validity.is_structure_valid(broken)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("NaCl", True),
        ("BaTiO3", True),
        ("Fe2O3", True),
        ("Fe", True),  # a single element
        ("CuZnAl", True),  # an alloy
        ("NaCl2", False),  # not neutral
        ("ArO2", False),  # no oxidation states
        ("KrF2", True),
    ],
)
def test_composition_rule(formula: str, expected: bool) -> None:
    assert validity.is_composition_valid(Composition(formula)) is expected
    assert validity.is_composition_valid(Composition(formula) * 4) is expected


def published_rule(formula: str) -> bool:
    """CDVAE's smact_validity, written out: every product of oxidation states."""
    composition = Composition(formula).reduced_composition
    symbols = [element.symbol for element in composition]
    counts = [int(n) for n in composition.values()]
    elements = [smact.Element(symbol) for symbol in symbols]
    if len(symbols) == 1 or all(symbol in smact.metals for symbol in symbols):
        return True
    for states in itertools.product(*(e.oxidation_states_smact14 or [] for e in elements)):
        neutral = smact.neutral_ratios(states, stoichs=[(c,) for c in counts])
        if neutral and pauling_test(states, [e.pauling_eneg for e in elements]):
            return True
    return False


def test_composition_rule_equals_the_published_product() -> None:
    rng = np.random.default_rng(0)
    symbols = [symbol for symbol in smact.ordered_elements(3, 83) if symbol not in ("Ne", "Ar")]
    formulas = []
    for _ in range(150):
        chosen = rng.choice(symbols, size=rng.integers(2, 5), replace=False)
        formulas.append("".join(f"{symbol}{rng.integers(1, 5)}" for symbol in chosen))
    answers = [validity.is_composition_valid(formula) for formula in formulas]
    assert answers == [published_rule(formula) for formula in formulas]
    assert 0.2 < np.mean(answers) < 0.9  # both answers occur, or the comparison means nothing


def test_composition_rule_is_quick_for_many_elements() -> None:
    start = time.perf_counter()
    validity.is_composition_valid("Mn3Ru2Re5Os7W3Ir2Fe1Cr2V3Mo4Cl1N1")
    assert time.perf_counter() - start < 2


def test_fractions_of_atoms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Na0\.5Cl0\.5 has fractions"):
        validity.is_composition_valid("Na0.5Cl0.5")


def test_unknown_oxidation_table_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'smact15'.*smact14"):
        validity.is_composition_valid("NaCl", table="smact15")


def test_sound_molecule_passes_everything() -> None:
    (report,) = validity.check_molecules([molecule("CH3CH2OH")])
    assert (report.smiles, report.rdkit_valid, report.strict_valid) == ("CCO", True, True)
    assert report.posebusters is not None
    assert all(report.posebusters.values())
    assert {"bond_lengths", "internal_steric_clash", "internal_energy"} <= set(report.posebusters)


def test_two_molecules_are_rdkit_valid_but_not_strictly() -> None:
    first, second = molecule("H2O"), molecule("CH4")
    second.translate([6, 0, 0])
    (report,) = validity.check_molecules([first + second], posebusters=False)
    assert report.rdkit_valid
    assert not report.connected
    assert not report.strict_valid
    assert report.posebusters is None


@pytest.mark.parametrize("radical", ["CH3", "OH", "CH3O"])
def test_radicals_are_not_strictly_valid(radical: str) -> None:
    (report,) = validity.check_molecules([molecule(radical)], posebusters=False)
    assert report.connected
    assert not report.strict_valid


def test_diradical_hidden_as_distant_charges_is_not_strictly_valid() -> None:
    propane = molecule("C3H8")  # C0 in the middle, C1 and C2 at the ends
    terminal = [
        next(
            i
            for i, s in enumerate(propane.symbols)
            if s == "H" and propane.get_distance(c, i) < 1.2
        )
        for c in (1, 2)
    ]
    del propane[terminal]
    (report,) = validity.check_molecules([propane], posebusters=False)
    assert not report.strict_valid


def test_adjacent_charges_are_sound() -> None:
    (report,) = validity.check_molecules([molecule("CH3NO2")], posebusters=False)
    assert report.smiles == "C[N+](=O)[O-]"
    assert report.strict_valid


def test_garbage_is_rejected_quickly_and_nan_is_no_error() -> None:
    rng = np.random.default_rng(0)
    clouds = [Atoms("C5H9NO3", rng.normal(size=(18, 3)) * 1.4) for _ in range(100)]
    clouds.append(Atoms("CO", [[0, 0, 0], [np.nan, 0, 0]]))
    start = time.perf_counter()
    reports = validity.check_molecules(clouds, posebusters=False)
    assert time.perf_counter() - start < 3
    assert sum(report.strict_valid for report in reports) == 0
    assert reports[-1].smiles is None


def test_smiles_do_not_depend_on_order_rotation_or_mirror() -> None:
    atoms = molecule("CH3CONH2")
    turned = atoms[np.random.default_rng(0).permutation(len(atoms))]
    turned.rotate(77, (1, 2, 3))
    turned.positions[:, 0] *= -1
    first, second = validity.check_molecules([atoms, turned], posebusters=False)
    assert first.smiles == second.smiles == "CC(N)=O"


def test_openbabel_takes_the_largest_fragment() -> None:
    pytest.importorskip("openbabel")
    first, second = molecule("H2O"), molecule("CH3CH2OH")
    second.translate([8, 0, 0])
    assert validity.openbabel_smiles(first + second) == "CCO"
    assert validity.openbabel_smiles(molecule("C6H6")) == "c1ccccc1"


@pytest.mark.parametrize(
    ("formula", "rule"),
    [
        ("NaCl", "smact"), ("NiAl", "smact"), ("LiMn2O4", "mixed"), ("Fe3O4", "mixed"),
        ("Co3O4", "mixed"), ("V6O13", "mixed"), ("Pr6O11", "guess"), ("Na2Cl", "none"),
        ("Li2Mn4O8", "mixed"), ("Mn30Fe30O77", "mixed"),
    ],
)  # fmt: skip
def test_the_first_rule_that_balances_the_charges_is_named(formula: str, rule: str) -> None:
    assert neutral_by(formula) == rule


def test_mixed_valence_is_judged_as_smact_4_does() -> None:
    from smact.screening import smact_validity

    formulas = ["Fe3O4", "LiMn2O4", "Pr6O11", "KO2", "Ti4O7", "Al3O", "FeF", "Mn3Cl7", "CuSO4"]
    ours = [validity.is_composition_valid(f, "smact4", mixed_valence=True) for f in formulas]
    assert ours == [smact_validity(f, mixed_valence=True) for f in formulas]
    assert True in ours and False in ours
