"""The DFT stage: elements and crystals by one engine, verdicts in the store, input folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from click.testing import CliRunner

from adit_plugins.campaign import Campaign, Resources, Settings, Store, StructuresSource
from adit_plugins.campaign.files import write_files
from adit_plugins.cli import main
from adit_plugins.dft.engines import DftError, find_engine, reference_structure
from adit_plugins.registry import UnknownPluginError


def adit(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def alloy(first: str, second: str, a: float) -> Atoms:
    """CsCl type."""
    return Atoms([first, second], scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[a] * 3, pbc=True)


def emt(atoms: Atoms) -> EMT:
    """An engine of one's own."""
    return EMT()


def failing(atoms: Atoms) -> EMT:
    raise RuntimeError("no licence\nfor this code")


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three ranked alloys; potential energies do not matter, their order does."""
    monkeypatch.chdir(tmp_path)
    alloys = [alloy("Cu", "Au", 3.0), alloy("Al", "Ag", 3.2), alloy("Ni", "Pt", 2.9)]
    folder = tmp_path / "found"
    folder.mkdir()
    source = StructuresSource(lambda start: alloys[start:], 3)
    settings = Settings(relaxer="cheap_potential:make", max_steps=2)
    means = Resources(executor="serial")
    with Campaign.create(folder, source, settings, means) as made:
        made.run()
        write_files(made.store)
    return folder


def test_formation_energies_come_from_elements_of_the_same_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alloys = [alloy("Cu", "Au", 3.0), alloy("Al", "Pd", 3.0)]
    ase.io.write("alloys.extxyz", alloys)
    command = ["dft", "alloys.extxyz", "--engine", "ase:emt", "--workers", "0", "--out", "x.json"]
    result = adit(*command)
    assert result.exit_code == 0, result.output
    rows = json.loads(Path("x.json").read_text())
    for atoms, row in zip(alloys, rows, strict=True):
        atoms.calc = EMT()
        expected = atoms.get_potential_energy()
        for symbol in atoms.symbols:
            element = bulk(symbol)
            element.calc = EMT()
            expected -= element.get_potential_energy() / len(element)
        assert row["formation_energy_per_atom"] == pytest.approx(expected / 2)
        assert row["reason"] == "single point"
        assert row["energy_above_hull"] is not None
        assert row["settings"] == {"calculator": "ase:emt"}
    again = adit(*command)
    assert "elements by DFT: 0/0" in again.stderr  # they are in dft_references.json
    relaxed = adit(*command, "--relax-steps", "30")
    assert "elements by DFT: 0/4" in relaxed.stderr  # other settings, other references
    better = json.loads(Path("x.json").read_text())
    assert all(
        b["energy_per_atom"] <= a["energy_per_atom"] for a, b in zip(rows, better, strict=True)
    )


def test_the_queue_computes_the_best_once_and_ranks_with_it(campaign: Path) -> None:
    command = ["dft", campaign, "--engine", "test_dft:emt", "--workers", "0", "--top"]
    result = adit(*command, 2)
    assert result.exit_code == 0, result.output
    assert "DFT form" in result.stdout
    with (campaign / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["dft_formation_energy_per_atom"]) for row in rows] == [True, True, False]
    assert rows[0]["dft_engine"] == "test_dft:emt"
    funnel = (campaign / "funnel.csv").read_text()
    assert "DFT formation energy by test_dft:emt,2,2,sent to DFT" in funnel
    with Store(campaign) as store:
        before = [row.get("dft_energy_per_atom") for row in store.rows()]
        assert store.row(store.candidates()[0]).data["dft"]["settings"] == {
            "calculator": "test_dft:emt"
        }
    assert "crystals by DFT: 0/1" in adit(*command, 3).stderr
    with Store(campaign) as store:
        after = [row["dft_energy_per_atom"] for row in store.rows()]
    assert [a for a, b in zip(after, before, strict=True) if b is not None] == [
        b for b in before if b is not None
    ]
    assert "by DFT" not in adit(*command, 3).stderr


def test_a_code_that_fails_is_a_verdict(campaign: Path) -> None:
    result = adit("dft", campaign, "--engine", "test_dft:failing", "--workers", "0", "--top", 1)
    assert result.exit_code == 1, result.output  # nothing was computed, and why is the last line
    assert result.stdout.rstrip().endswith("not computed: RuntimeError: no licence for this code")
    with Store(campaign) as store:
        row = store.row(store.candidates()[0])
    assert row["dft_outcome"] == "RuntimeError: no licence for this code"
    assert "dft_formation_energy_per_atom" not in row


def test_bad_input_is_explained(campaign: Path, tmp_path: Path) -> None:
    for spec, error in (("castep9", UnknownPluginError), ("ase:none", UnknownPluginError),
                        ("no_module:x", UnknownPluginError)):  # fmt: skip
        with pytest.raises(error, match=spec.split(":")[-1] if ":" in spec else "gpaw"):
            find_engine(spec)
    with pytest.raises(ValueError, match="takes no cutoff"):
        find_engine("ase:emt", {"cutoff": 300.0})
    with pytest.raises(DftError, match=r"P .*--references"):
        reference_structure("P")
    ase.io.write("water.xyz", molecule("H2O"))
    assert "holds no crystals" in adit("dft", "water.xyz", "--engine", "ase:emt").stderr
    ase.io.write("salt.cif", bulk("NaCl", "rocksalt", a=5.6))
    message = adit("dft", campaign, "--engine", "ase:emt", "--references", "salt.cif").stderr
    assert "ClNa, which is no element" in message


def test_references_of_ones_own_take_the_place_of_the_usual(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "al.cif", bulk("Al", "bcc", a=3.2))
    ase.io.write(tmp_path / "alloy.cif", alloy("Al", "Pd", 3.0))
    command = ["dft", tmp_path / "alloy.cif", "--engine", "ase:emt", "--workers", "0"]
    energies = []
    for i, more in enumerate(([], ["--references", tmp_path / "al.cif"])):
        (tmp_path / str(i)).mkdir()
        assert adit(*command, *more, "--out", tmp_path / str(i) / "x.json").exit_code == 0
        row = json.loads((tmp_path / str(i) / "x.json").read_text())[0]
        energies.append(row["formation_energy_per_atom"])
    assert energies[1] < energies[0]  # body-centred aluminium lies higher


def test_input_folders_for_vasp_and_espresso(campaign: Path) -> None:
    assert adit("dft", campaign, "--inputs", "vasp", "--top", 2, "--out", "v").exit_code == 0
    folders = sorted(path for path in Path("v").iterdir() if path.is_dir())
    assert [folder.name[:5] for folder in folders] == ["0001-", "0002-"]
    names = {path.name for path in folders[0].iterdir()}
    assert {"INCAR", "KPOINTS", "POSCAR", "POTCAR.spec"} <= names
    poscar = ase.io.read(folders[0] / "POSCAR", format="vasp")
    assert len(poscar) == 2
    result = adit("dft", campaign, "--inputs", "espresso", "--top", 3, "--out", "q")
    assert result.exit_code == 0, result.output
    text = next(Path("q").glob("*Ni*/espresso.pwi")).read_text()
    assert "vc-relax" in text
    assert "nspin" in text  # nickel
    assert "Ni.UPF" in text
    assert ase.io.read(next(Path("q").glob("0001-*/espresso.pwi")), format="espresso-in").pbc.all()
    assert "not empty" in adit("dft", campaign, "--inputs", "vasp", "--out", "v").stderr


@pytest.mark.slow
def test_gpaw_computes_a_crystal_and_its_elements(tmp_path: Path) -> None:
    pytest.importorskip("gpaw")
    ase.io.write(tmp_path / "alloy.cif", alloy("Al", "Li", 3.17))
    result = adit("dft", tmp_path / "alloy.cif", "--cutoff", 250, "--kpoint-density", 2.0,
                  "--out", tmp_path / "x.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "cutoff_eV 250" in result.stdout
    row = json.loads((tmp_path / "x.json").read_text())[0]
    assert -0.4 < row["formation_energy_per_atom"] < 0.1
    assert row["engine"].startswith("gpaw-")
    with pytest.raises(ValueError, match="gpaw knows no size"):
        find_engine("gpaw", {"size": 1})


def test_the_table_of_moments_reaches_the_reference() -> None:
    assert reference_structure("Fe").get_initial_magnetic_moments().tolist() == [5.0]
    assert reference_structure("O").get_initial_magnetic_moments().sum() == pytest.approx(2.0)
    assert not reference_structure("Al").has("initial_magmoms")
