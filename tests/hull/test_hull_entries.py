"""Entries of pymatgen as a reference: functionals apart, corrections counted, nothing imported."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest
from monty.json import MontyEncoder
from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import (
    CompositionEnergyAdjustment,
    ComputedEntry,
    ComputedStructureEntry,
    ConstantEnergyAdjustment,
)

from adit_plugins.hull.entries import HullSourceError, from_entries
from adit_plugins.hull.loaders import _OnlineHull, load_hull

ENERGIES = {"Na": -1.3, "Cl2": -3.7, "NaCl": -7.3, "NaCl3": -10.0, "Na3Cl": -9.0}  # eV a formula


def write_entries(path: Path, *run_types: str) -> None:
    """Sodium, chlorine and their salt, once by each kind of calculation, on scales far apart."""
    scale = {"GGA": 1.0, "GGA+U": 1.0, "": 1.0, "R2SCAN": 4.0, "r2SCAN": 4.0, "PBESOL": 1.5}
    entries = [
        ComputedEntry(formula, energy * scale[run_type], parameters={"run_type": run_type})
        for run_type in run_types
        for formula, energy in ENERGIES.items()
    ]
    path.write_text(json.dumps(entries, cls=MontyEncoder))


def salt_energy(spec: str) -> float:
    hull = load_hull(spec)
    return hull.energy_above_hull("NaCl", 0.0).hull_energy_per_atom


def test_functionals_are_not_mixed(tmp_path: Path) -> None:
    pure, file = tmp_path / "pure.json", tmp_path / "mixed.json"
    write_entries(pure, "GGA", "GGA+U", "")  # the Materials Project's own mixture
    expected = (-7.3 + 1.3 + 3.7 / 2) / 2
    assert salt_energy(f"entries:{pure}") == pytest.approx(expected)
    for other in ("R2SCAN", "r2SCAN", "PBESOL"):
        write_entries(file, "GGA", other)
        with pytest.raises(HullSourceError, match=rf"5 of PBE, 5 of {other.upper()}.*entries:PBE:"):
            load_hull(f"entries:{file}")
        assert salt_energy(f"entries:PBE:{file}") == pytest.approx(expected)
        assert "(5 of PBE, 5 left out)" in load_hull(f"entries:PBE:{file}").source
    write_entries(file, "R2SCAN")  # alone: of one functional, but not of the potentials'
    with pytest.raises(HullSourceError, match="5 of R2SCAN"):
        load_hull(f"entries:{file}")
    with pytest.raises(HullSourceError, match="no entries of PBE"):
        load_hull(f"entries:PBE:{file}")
    entries = [
        ComputedEntry(f, 4 * e, parameters={"run_type": "R2SCAN"}) for f, e in ENERGIES.items()
    ]
    own = from_entries(entries, "own", "r2SCAN")
    assert own.energy_above_hull("NaCl", 0.0).hull_energy_per_atom == pytest.approx(4 * expected)


def test_mixed_functionals_are_refused_by_every_source(tmp_path: Path) -> None:
    entries = [
        ComputedEntry(formula, energy * factor, parameters={"run_type": run_type})
        for factor, run_type in ((1, "GGA"), (4, "R2SCAN"))
        for formula, energy in ENERGIES.items()
    ]
    diagram = PatchedPhaseDiagram(entries, keep_all_spaces=True)
    (tmp_path / "ppd.pkl.gz").write_bytes(gzip.compress(pickle.dumps(diagram)))
    with pytest.raises(HullSourceError, match="of R2SCAN"):
        load_hull(f"matbench-discovery:{tmp_path / 'ppd.pkl.gz'}")

    class Rester:
        def get_entries_in_chemsys(self, *_: object, **__: object) -> list[ComputedEntry]:
            return entries

    with pytest.raises(HullSourceError, match="of R2SCAN"):
        _OnlineHull(Rester()).energy_above_hull("NaCl", 0.0)
    moved = [ComputedEntry(formula, energy) for formula, energy in ENERGIES.items()]
    name = "MP GGA(U)/r2SCAN mixing adjustment"
    moved[2].energy_adjustments.append(ConstantEnergyAdjustment(-20.0, name=name))
    with pytest.raises(HullSourceError, match="1 of r2SCAN mixing scheme"):
        from_entries(moved, "own")
    (tmp_path / "totals.csv").write_text("formula,hull_energy_per_atom\nNa,-1.3\nNaCl,-3.6\n")
    with pytest.raises(ValueError, match=r"element Na is at -1\.3.*total energies"):
        load_hull(f"table:{tmp_path / 'totals.csv'}")


def test_raw_energies_of_gga_u_are_named_in_the_source() -> None:
    raw = [ComputedEntry("FeO", -12.0, parameters={"run_type": "GGA+U"})]
    raw += [ComputedEntry("Fe", -8.0), ComputedEntry("O2", -9.8)]
    assert "1 of GGA+U without the corrections" in from_entries(raw, "own").source
    raw[0] = ComputedEntry("FeO", -12.0, correction=-2.9, parameters={"run_type": "GGA+U"})
    assert from_entries(raw, "own").source == "own"


def test_json_with_corrections_equals_pymatgens_reading(tmp_path: Path) -> None:
    entries = [ComputedEntry(formula, energy) for formula, energy in ENERGIES.items()]
    entries[2] = ComputedEntry("Na2Cl2", -14.0)
    entries[2].energy_adjustments.append(CompositionEnergyAdjustment(-0.614, 2, name="Cl"))
    salt = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    entries.append(ComputedStructureEntry(salt, -7.35, correction=-0.2))
    text = json.dumps({"entries": entries}, cls=MontyEncoder)
    ions = text.replace('{"Na": 2.0, "Cl": 2.0}', '{"Na+": 2.0, "Cl-": 2.0}')
    assert ions != text
    (tmp_path / "x.json").write_text(ions)
    hull, reference = load_hull(f"entries:{tmp_path / 'x.json'}"), PhaseDiagram(entries)
    for formula in ("NaCl", "Na2Cl", "NaCl2"):
        energy = hull.energy_above_hull(formula, 0.0).hull_energy_per_atom
        expected = reference.get_hull_energy_per_atom(Composition(formula))
        elements = sum(
            x * hull.references[str(element)]
            for element, x in Composition(formula).fractional_composition.items()
        )
        assert energy + elements == pytest.approx(expected, abs=1e-9)


def test_nothing_that_a_json_names_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_hull.py").write_text("open('imported', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"@module": "evil_hull", "@class": "X", "a": 1}
    good = [ComputedEntry(formula, energy).as_dict() for formula, energy in ENERGIES.items()]
    for more in (
        {"parameters": {"x": evil, "run_type": "GGA"}},
        {"data": evil},
        {"energy_adjustments": [evil]},
        {"parameters": [1], "data": "x"},
        {"@module": "evil_hull"},
    ):
        items = [{**each, **more} for each in good]
        Path("x.json").write_text(json.dumps(items))
        assert salt_energy("entries:x.json") < 0
    for bad in (
        evil,
        {**good[0], **evil},
        {**good[0], "composition": evil},
        {**good[0], "composition": {"Na": evil}},
        {**good[0], "energy": evil},
        {**good[0], "correction": evil},
        {**good[0], "correction": None, "energy": float("nan")},
        {**good[0], "energy": 10**400},
        {**good[0], "energy_adjustments": 5, "composition": "(" * 5000 + "Na"},
        {**good[0], "@class": "GibbsComputedStructureEntry"},
        [1],
    ):
        Path("x.json").write_text(json.dumps([*good, bad]))
        with pytest.raises(HullSourceError, match=r"no list of pymatgen entries \(entry 5: "):
            load_hull("entries:x.json")
    Path("x.json").write_text("[" * 100_000)
    with pytest.raises(HullSourceError, match="no JSON"):
        load_hull("entries:x.json")
    assert not Path("imported").exists()
