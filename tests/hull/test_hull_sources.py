"""Other references, energy conventions, calibration, and the two commands on real files."""

from __future__ import annotations

import gzip
import json
import pickle
import time
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner, Result
from monty.json import MontyEncoder
from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import (
    ComputedEntry,
)

from adit_plugins.cli import main
from adit_plugins.hull.calibration import metastable_probability
from adit_plugins.hull.energies import (
    ConventionError,
    corrected_energy,
    mp2020_correction,
    mp_hubbards,
    place_energy,
    undecided_correction,
)
from adit_plugins.hull.entries import HullSourceError
from adit_plugins.hull.loaders import load_hull
from adit_plugins.hull.table import Hull, UnknownElementError
from adit_plugins.registry import UnknownPluginError

ENERGIES = {"Na": -1.3, "Cl2": -3.7, "NaCl": -7.3, "NaCl3": -10.0, "Na3Cl": -9.0}  # eV a formula


def adit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def rock_salt(symbols: str, a: float) -> Structure:
    metal, anion = Composition(symbols).elements
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(a), [metal, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()


def test_entries_and_patched_diagram_agree_with_pymatgen(tmp_path: Path) -> None:
    entries = [ComputedEntry(formula, energy) for formula, energy in ENERGIES.items()]
    (tmp_path / "entries.json").write_text(json.dumps(entries, cls=MontyEncoder))
    diagram = PatchedPhaseDiagram([PDEntry(e.composition, e.energy) for e in entries])
    packed = gzip.compress(pickle.dumps(diagram))
    (tmp_path / "ppd.pkl.gz").write_bytes(packed)
    reference = PhaseDiagram(entries)
    for spec in ("entries:entries.json", "matbench-discovery:ppd.pkl.gz"):
        name, _, file = spec.partition(":")
        hull = load_hull(f"{name}:{tmp_path / file}")
        assert file in hull.source
        for formula in ("NaCl", "Na2Cl", "NaCl2"):
            formation = hull.formation_energy_per_atom(formula, -3.0)
            place = hull.energy_above_hull(formula, formation)
            entry = PDEntry(Composition(formula), -3.0 * Composition(formula).num_atoms)
            expected = reference.get_decomp_and_e_above_hull(entry, allow_negative=True)[1]
            assert place.energy_above_hull == pytest.approx(expected, abs=1e-9)
            assert place.source == hull.source
        with pytest.raises(UnknownElementError, match="Fe"):
            hull.energy_above_hull("FeCl2", -1.0)


def test_sources_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MP_API_KEY", raising=False)
    (tmp_path / "x.json").write_text('[{"a": 1}]')
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1, 2]))
    for spec, part in (
        ("entries", "entries:FILE"),
        (f"entries:{tmp_path / 'x.json'}", "no list of pymatgen entries"),
        (f"entries:{tmp_path / 'none.json'}", "none.json"),
        (f"matbench-discovery:{tmp_path / 'x.pkl'}", "no patched phase diagram"),
        ("mp-api", "MP_API_KEY"),
    ):
        with pytest.raises(HullSourceError, match=part):
            load_hull(spec)
    with pytest.raises(UnknownPluginError, match="matbench-discovery"):
        load_hull("oqmd")


def test_hubbard_u_and_corrections_are_those_of_the_materials_project() -> None:
    iron = rock_salt("FeO", 4.3)
    assert mp_hubbards(iron) == {"Fe": 5.3}
    assert mp_hubbards(rock_salt("FeN", 4.3)) == {}
    # -2.256 eV for iron in oxides and -0.687 eV for oxygen (Wang et al. 2021, table 1)
    assert mp2020_correction(iron) == pytest.approx(-2.943, abs=0.01)
    assert mp2020_correction(rock_salt("MgO", 4.2)) == pytest.approx(-0.687, abs=0.002)
    assert mp2020_correction(rock_salt("NaCl", 5.6)) == pytest.approx(-0.614, abs=0.002)


def crowded(symbols: list[str]) -> Structure:
    """Atoms 3 angstrom apart, so that nothing is taken for a peroxide."""
    grid = [[i % 4 / 4, i // 4 % 4 / 4, i // 16 / 4] for i in range(len(symbols))]
    return Structure(Lattice.cubic(12), symbols, grid)


def test_large_formulas_are_corrected_whole() -> None:
    # 25 O and 2 Cl; pymatgen guesses no oxidation states for more than 20 atoms and forgets Cl.
    large = crowded(["Li"] * 10 + ["B"] * 14 + ["Cl"] * 2 + ["O"] * 25)
    assert mp2020_correction(large) == pytest.approx(25 * -0.687 + 2 * -0.614, abs=1e-6)
    large = crowded(["Li"] * 20 + ["Cl"] * 17 + ["N"])
    assert mp2020_correction(large) == pytest.approx(17 * -0.614 - 0.361, abs=1e-6)
    assert undecided_correction("Li10B14Cl2O25") == undecided_correction("NaCl") == ""
    assert undecided_correction("Fe23Al3Si4") == ""  # no guess, but no anions either


def test_an_undecided_correction_is_in_the_result() -> None:
    hull = Hull.load()
    atoms = crowded(["Na"] * 4 + ["Cl"] + ["O"]).to_ase_atoms()  # cannot be neutral
    for convention, expected in (("mp-raw", "of Cl, which as anions"), ("mp2020", "")):
        note = place_energy(atoms, -20.0, convention, "x", hull)[1].note
        assert expected in note and bool(expected) == bool(note)
    assert "0.102 eV/atom" in undecided_correction("Na4ClO")  # 0.614 / 6
    assert undecided_correction("XeO3") == undecided_correction("Ar") == ""
    # Too many ways to share out the charges of carbon: said, not waited for.
    start = time.process_time()
    assert "of Cl, N" in undecided_correction("H400C200N40O220Cl30")
    assert time.process_time() - start < 5


def test_moments_that_are_vectors_do_not_matter_for_the_hubbard_u() -> None:
    iron = bulk("FeO", "rocksalt", a=4.3)
    plain = corrected_energy(iron, 0.0, "mp-raw")
    iron.set_initial_magnetic_moments([[0, 0, 4.0], [0, 0, 0]])
    assert corrected_energy(iron, 0.0, "mp-raw") == pytest.approx(plain)


def test_each_convention_is_corrected_once() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6)
    assert corrected_energy(salt, -7.0, "mp2020") == -7.0
    assert corrected_energy(salt, -7.0, "mp-raw") == pytest.approx(-7.614, abs=0.002)
    with pytest.raises(ConventionError, match=r"'mp2020', 'mp-raw'"):
        corrected_energy(salt, -7.0, "")


def test_probability_falls_with_distance_and_is_given_only_where_calibrated() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6)
    hull = Hull.load()
    near, far = (
        place_energy(salt, energy, "mp2020", "chgnet-0.3.0", hull)[1].metastable_probability
        for energy in (-7.35, -6.6)
    )
    assert near is not None and far is not None
    assert near > 0.7 > 0.2 > far
    place = place_energy(salt, -7.3, "mp2020", "another", hull)[1]
    assert place.metastable_probability is None
    own = Hull({"NaCl": -2.0}).energy_above_hull("NaCl", -2.0)
    assert metastable_probability(own, "chgnet-0.3.0") is None


def test_without_a_composition_the_hull_is_what_the_others_make_it() -> None:
    hull = Hull({"Na3Cl": -1.0, "NaCl": -2.0, "NaCl3": -1.0})
    assert hull.energy_above_hull("NaCl", 0.0).hull_energy_per_atom == pytest.approx(-2.0)
    rest = hull.without("Na2Cl2")
    assert rest.energy_above_hull("NaCl", 0.0).hull_energy_per_atom == pytest.approx(-1.0)
    assert hull.energy_above_hull("NaCl", 0.0).hull_energy_per_atom == pytest.approx(-2.0)


def test_many_elements_go_through_the_linear_program() -> None:
    elements = ["Li", "Na", "K", "Rb", "Mg", "Ca", "O"]
    hull = Hull({"Li2O": -2.0, "MgO": -3.0, "Na2O": -1.4})
    formula = "".join(elements) + "3"
    found = hull.energy_above_hull(formula, 0.0).hull_energy_per_atom
    # One Mg, Li and Na each: MgO, half a Li2O and half a Na2O, the rest stays elemental.
    assert found == pytest.approx(-(2 * 3.0 + 1.5 * 2.0 + 1.5 * 1.4) / 9, abs=1e-6)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    salt = bulk("NaCl", "rocksalt", a=5.75)
    salt.info["adit"] = {"id": "a/0/0"}
    ase.io.write("in.extxyz", [salt, bulk("Yb"), molecule("H2O")])
    return tmp_path


def test_relax_then_hull(place: Path) -> None:
    result = adit("relax", "in.extxyz", "--workers", "0", "--max-steps", "30")
    assert result.exit_code == 0, result.output
    assert "2 converged" in result.output and "1 not periodic: chgnet" in result.output
    frames = ase.io.read("relaxed.extxyz", ":")
    record = frames[0].info["relax"]
    assert record["convention"] == "mp2020"
    assert (record["space_group_before"], record["space_group_after"]) == (225, 225)
    assert record["max_stress"] < 2
    assert frames[0].info["adit"]["id"] == "a/0/0"
    assert frames[2].info["relax"]["energy"] is None
    result = adit("hull", "relaxed.extxyz", "--json", "hull.json")
    assert result.exit_code == 0, result.output
    assert "shipped table" in result.output and "No reference energy for Yb" in result.output
    salt, ytterbium, water = json.loads(Path("hull.json").read_text())["structures"]
    assert abs(salt["energy_above_hull"]) < 0.05
    assert salt["metastable_probability"] > 0.7
    assert ytterbium["energy_above_hull"] is water["energy_above_hull"] is None


def test_relax_goes_on_where_it_stopped(place: Path) -> None:
    options = ("--workers", "0", "--max-steps", "2", "--relaxer", "ase.calculators.emt:EMT")
    coppers = [bulk("Cu", a=a) for a in (3.5, 3.7, 3.8)]
    ase.io.write("cu.extxyz", coppers)
    assert adit("relax", "cu.extxyz", "--out", "whole.extxyz", *options).exit_code == 0
    frames = ase.io.read("whole.extxyz", ":")
    ase.io.write("part.extxyz", frames[1:2])
    untouched = frames[1].info["relax"]["seconds"]
    result = adit("relax", "cu.extxyz", "--out", "part.extxyz", "--resume", *options)
    assert "3 of 3" in result.output
    again: list[Atoms] = ase.io.read("part.extxyz", ":")
    assert [atoms.info["relax"]["index"] for atoms in again] == [0, 1, 2]
    assert again[1].info["relax"]["seconds"] == untouched
    for arguments, part in (
        (("cu.extxyz", "--out", "part.extxyz"), "--resume"),
        (
            ("cu.extxyz", "--out", "part.extxyz", "--resume", "--fmax", "1"),
            "fmax was 0.05, not 1.0",
        ),
        (("in.extxyz", "--out", "part.extxyz", "--resume"), "other structures"),
        (("cu.extxyz", "--out", "in.extxyz", "--resume"), "was not written by adit relax"),
        (("cu.extxyz", "--out", "x.cif"), ".extxyz"),
        (("cu.extxyz", "--out", "none/x.extxyz"), "none"),
        (("none.extxyz",), "no such file"),
    ):
        result = adit("relax", *arguments, *options)
        assert result.exit_code == 2
        assert part in result.stderr
        assert result.stderr.count("\n") == 1


def test_hull_refuses_what_it_cannot_place(place: Path) -> None:
    for arguments, part in (
        (("in.extxyz",), "adit relax first"),
        (("in.extxyz", "--hull", "oqmd"), "Known: alexandria, entries"),
        (("none.extxyz",), "no such file"),
        (("in.extxyz", "--json", "x.txt"), ".json"),
    ):
        result = adit("hull", *arguments)
        assert result.exit_code == 2
        assert part in result.stderr
