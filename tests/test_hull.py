"""The hull against pymatgen's PhaseDiagram, and what is said about coverage and unknowns."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from adit_plugins.hull import (
    Hull,
    UnknownElementError,
    element_references,
    formation_energy_per_atom,
)
from adit_plugins.hull_energies import place_energy


@pytest.fixture(scope="module")
def shipped() -> Hull:
    return Hull.load()


def diagram(energies: dict[str, float], elements: list[str]) -> PhaseDiagram:
    entries = [PDEntry(Composition(element), 0.0) for element in elements]
    for formula, energy in energies.items():
        composition = Composition(formula)
        entries.append(PDEntry(composition, energy * composition.num_atoms))
    return PhaseDiagram(entries)


def test_equals_pymatgens_phase_diagram_on_random_quaternaries() -> None:
    rng = np.random.default_rng(0)
    elements = ["Li", "Fe", "P", "O"]

    def formula() -> str:
        counts = rng.integers(0, 5, size=4)
        counts[rng.integers(4)] += 1
        return "".join(f"{e}{n}" for e, n in zip(elements, counts, strict=True) if n)

    energies = {formula(): float(rng.uniform(-2.5, 0.3)) for _ in range(40)}
    energies = {f: e for f, e in energies.items() if len(Composition(f)) > 1}
    hull, reference = Hull(energies), diagram(energies, elements)
    for _ in range(30):
        composition = Composition(formula())
        expected = reference.get_hull_energy_per_atom(composition)
        found = hull.energy_above_hull(composition, -1.0)
        assert found.hull_energy_per_atom == pytest.approx(expected, abs=1e-9)
        assert found.energy_above_hull == pytest.approx(-1.0 - expected, abs=1e-9)


def test_shipped_table_equals_pymatgen_in_a_real_system(shipped: Hull) -> None:
    text = gzip.decompress(
        (Path(__file__).parent.parent / "adit_plugins/data/hull.csv.gz").read_bytes()
    ).decode()
    rows = dict(line.split(",") for line in text.splitlines()[1:])
    inside = {
        formula: float(energy)
        for formula, energy in rows.items()
        if set(Composition(formula).chemical_system.split("-")) <= {"Li", "Co", "O"}
    }
    reference = diagram(inside, ["Li", "Co", "O"])
    for formula in ("LiCoO2", "LiCo3O7", "Li5CoO4", "CoO", "Li3Co"):
        expected = reference.get_hull_energy_per_atom(Composition(formula))
        found = shipped.energy_above_hull(formula, 0.0)
        assert found.hull_energy_per_atom == pytest.approx(expected, abs=1e-6)
    assert found.num_subsystems == 1  # the last one has two elements
    ternary = shipped.energy_above_hull("LiCoO2", 0.0)
    assert (ternary.num_subsystems, ternary.num_subsystems_covered) == (4, 3)  # no Li-Co compound
    assert ternary.num_reference_phases == sum(len(Composition(f)) > 1 for f in inside)


def test_a_known_stable_phase_is_on_the_hull_and_a_better_one_below(shipped: Hull) -> None:
    energy = shipped.energy_above_hull("NaCl", 0.0).hull_energy_per_atom
    assert energy == pytest.approx(-2.1, abs=0.1)  # eV/atom; 411 kJ/mol by experiment
    assert shipped.energy_above_hull("NaCl", energy).energy_above_hull == pytest.approx(0, abs=1e-9)
    assert shipped.energy_above_hull("Na4Cl4", energy - 0.1).energy_above_hull == pytest.approx(
        -0.1
    )


def test_mixture_is_the_tie_line() -> None:
    hull = Hull({"NaCl": -2.0})
    assert hull.energy_above_hull("Na3Cl", 0.0).hull_energy_per_atom == pytest.approx(-1.0)


def test_elements_are_the_zero_and_have_no_subsystems(shipped: Hull) -> None:
    result = shipped.energy_above_hull("Fe", 0.25)
    assert result.energy_above_hull == pytest.approx(0.25)
    assert (result.num_subsystems, result.num_reference_phases) == (0, 0)


def test_unknown_chemical_system_says_so() -> None:
    result = Hull({"NaCl": -2.0}).energy_above_hull("FeO", -1.0)
    assert result.energy_above_hull == pytest.approx(-1.0)
    assert (result.num_reference_phases, result.num_subsystems_covered) == (0, 0)


def test_formation_energy_is_the_energy_less_the_elements() -> None:
    references = element_references()
    expected = -3.4 - (references["Na"] + references["Cl"]) / 2
    assert formation_energy_per_atom("Na2Cl2", -3.4) == pytest.approx(expected)
    assert formation_energy_per_atom("Si", references["Si"]) == pytest.approx(0)


def test_element_without_reference_is_a_clear_error(shipped: Hull) -> None:
    with pytest.raises(UnknownElementError, match=r"for Po\. Known elements: Ac, Ag"):
        formation_energy_per_atom("PoO2", -5.0)
    with pytest.raises(ValueError, match="no energy: it is nan"):
        place_energy(bulk("Cu"), float("nan"), "mp2020", "a potential", shipped)
    with pytest.raises(UnknownElementError, match="Po"):
        shipped.energy_above_hull("PoO2", -1.0)


def test_own_table_and_damaged_tables(tmp_path: Path) -> None:
    good = tmp_path / "own.csv"
    good.write_text("formula,hull_energy_per_atom\nNaCl,-1.5\n")
    assert Hull.load(good).energy_above_hull("NaCl", 0).hull_energy_per_atom == pytest.approx(-1.5)
    for name, content in {
        "header.csv": b"a,b\nNaCl,-1\n",
        "number.csv": b"formula,hull_energy_per_atom\nNaCl,low\n",
        "bracket.csv": b"formula,hull_energy_per_atom\nMg(OH)2,-1\n",
        "cut.csv.gz": gzip.compress(b"formula,hull_energy_per_atom\nNaCl,-1\n")[:20],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}' is no hull table"):
            Hull.load(tmp_path / name)
    with pytest.raises(ValueError, match="is no hull table"):
        Hull.load(tmp_path / "missing.csv")
