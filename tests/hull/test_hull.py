"""The hull against pymatgen's PhaseDiagram, and what is said about coverage and unknowns."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from adit_plugins.hull.energies import place_energy
from adit_plugins.hull.table import (
    SHIPPED,
    Hull,
    UnknownElementError,
    element_references,
    formation_energy_per_atom,
)


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


def shipped_rows() -> dict[str, float]:
    packed = Path(__file__).parents[2] / "adit_plugins/data/hull.csv.gz"
    rows = (line.split(",") for line in gzip.decompress(packed.read_bytes()).decode().split()[1:])
    return {formula: float(energy) for formula, energy in rows}


def symbols_of(formula: str) -> frozenset[str]:
    return frozenset(re.findall("[A-Z][a-z]?", formula))


def inside(rows: dict[str, float], system: frozenset[str]) -> dict[str, float]:
    return {formula: energy for formula, energy in rows.items() if symbols_of(formula) <= system}


def test_the_shipped_table_is_a_hull(shipped: Hull) -> None:
    rows = shipped_rows()
    assert f"{len(rows):,} formulas" in SHIPPED
    assert max(rows.values()) <= 0
    assert all(energy == 0 for formula, energy in rows.items() if len(symbols_of(formula)) == 1)
    compounds = [f for f in rows if len(symbols_of(f)) > 1 and "Yb" not in symbols_of(f)]
    rng = np.random.default_rng(0)
    above = {
        formula: rows[formula] - shipped.energy_above_hull(formula, 0.0).hull_energy_per_atom
        for formula in rng.choice(compounds, 600, replace=False)
    }
    assert max(above.values()) < 1e-3, max(above, key=lambda formula: above[formula])
    # What the hull of the others gives never lies below: neither does it with pymatgen.
    for formula in rng.choice(compounds, 20, replace=False):
        rest = inside(rows, symbols_of(formula))
        own = rest.pop(formula)
        others = diagram(rest, sorted(symbols_of(formula)))
        assert own < others.get_hull_energy_per_atom(Composition(formula)) + 1e-3, formula


def test_shipped_table_equals_pymatgen_in_random_systems(shipped: Hull) -> None:
    rows = shipped_rows()
    systems = sorted({tuple(sorted(s)) for f in rows if len(s := symbols_of(f) - {"Yb"}) > 2})
    rng = np.random.default_rng(1)
    for i in rng.choice(len(systems), 12, replace=False):
        elements = list(systems[i])
        known = inside(rows, frozenset(elements))
        reference = diagram(known, elements)
        for _ in range(4):
            amounts = rng.integers(1, 6, size=len(elements))
            formula = "".join(f"{e}{n}" for e, n in zip(elements, amounts, strict=True))
            expected = reference.get_hull_energy_per_atom(Composition(formula))
            found = shipped.energy_above_hull(formula, 0.0)
            assert found.hull_energy_per_atom == pytest.approx(expected, abs=1e-6)
            compounds = [f for f in known if len(symbols_of(f)) > 1]
            assert found.num_reference_phases == len(compounds)
            covered = {symbols_of(f) for f in compounds}
            assert found.num_subsystems_covered == len(covered)


def test_compounds_with_the_tables_energy_are_on_its_hull(shipped: Hull) -> None:
    # In tables of mixed releases these lay 60 to 70 meV/atom above others of the same table.
    rows = shipped_rows()
    for formula in ("Na2MnS2O8", "PrB12", "ErSi2", "NaCl"):
        place = shipped.energy_above_hull(formula, rows[formula])
        assert place.energy_above_hull == pytest.approx(0, abs=1e-3)


def test_a_phase_at_the_height_of_the_elements_is_no_trouble() -> None:
    hull = Hull({"Na4Cl": -1e-15, "NaCl": 0.0})
    assert hull.energy_above_hull("NaCl", 0.1).energy_above_hull == pytest.approx(0.1)
    hull = Hull({"Na4Cl": -1e-15, "NaCl": -2.0})
    assert hull.energy_above_hull("NaCl", -2.0).energy_above_hull == pytest.approx(0)


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
    good.write_text("formula,hull_energy_per_atom\nNaCl,-1.5\nNaCl,-1.2\nNa,0.2\n")  # the lowest
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
