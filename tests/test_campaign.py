"""The discovery pipeline: verdicts, denominators, ranking, files and interruptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner
from pymatgen.core import Molecule, Structure
from rich.console import Console

from adit_plugins import ADiTGenerator, Sample
from adit_plugins.campaign import Campaign, Settings
from adit_plugins.campaign.files import is_results, write_files
from adit_plugins.campaign.funnel import crystal_funnel, molecule_funnel
from adit_plugins.campaign.pipeline import mark_duplicate_and_novel_molecules, place_on_hull
from adit_plugins.campaign.report import print_tables
from adit_plugins.cli import main
from adit_plugins.hull import Hull
from adit_plugins.molecules import MoleculeReport
from adit_plugins.relax import RelaxerError, RelaxResult

SALT = bulk("NaCl", "rocksalt", a=5.69)


def no_report(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


def campaign_of(structures: list[Atoms], **settings: Any) -> Campaign:
    campaign = Campaign(Settings(**{"relaxer": None, "workers": 0, "max_steps": 10} | settings))
    for i, atoms in enumerate(structures):
        sample = Sample.from_ase(atoms)
        sample.provenance["id"] = f"test/0/{i}"
        campaign.add(sample)
    return campaign


def collided() -> Atoms:
    atoms = SALT.copy()
    atoms.positions[1] = atoms.positions[0] + 0.1
    return atoms


def numbers(counts: list[Any]) -> dict[str, tuple[int, int]]:
    return {count.name: (count.numerator, count.denominator) for count in counts}


def test_crystals_get_every_verdict_and_denominators() -> None:
    strange = bulk("NaCl", "cesiumchloride", a=3.5)
    strange.numbers = [11, 18]  # sodium argide: no charge neutral choice
    campaign = campaign_of([SALT, SALT * (2, 1, 1), collided(), strange])
    campaign.screen(no_report)
    campaign.relax(no_report)
    salt, double, broken, argide = campaign.crystals
    assert (salt.structure_valid, salt.composition_valid, salt.unique) == (True, True, True)
    assert (double.unique, double.duplicate_of, double.novel) == (False, "test/0/0", None)
    assert (broken.structure_valid, broken.unique, broken.novel) == (False, None, None)
    assert broken.min_distance == pytest.approx(0.1 * 3**0.5)
    assert (argide.composition_valid, argide.novel) == (False, True)
    counts = numbers(crystal_funnel(campaign.crystals))
    assert counts["structurally valid"] == (3, 4)
    assert counts["composition valid"] == (3, 4)
    assert counts["unique"] == (2, 3)
    assert counts["novel"][1] == 2
    assert not any("E hull" in name for name in counts)  # nothing was relaxed


def test_molecules_get_every_verdict_and_denominators() -> None:
    torn = molecule("CH3CH2OH")
    torn.positions[0] += 5.0
    water = molecule("H2O")
    water.rotate(40, "x")
    campaign = campaign_of([molecule("H2O"), water, torn, molecule("CH3")])
    campaign.screen(no_report)
    first, second, broken, radical = campaign.molecules
    assert first.report is not None
    assert first.report.smiles == "O"
    assert (first.unique, second.unique, second.duplicate_of) == (True, False, "test/0/0")
    assert broken.report is not None
    assert not broken.report.connected
    assert radical.report is not None
    assert not radical.report.strict_valid
    counts = numbers(molecule_funnel(campaign.molecules))
    assert counts["valid (strict)"] == (2, 4)
    assert counts["connected"] == (3, 4)


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, Path]:
    """A campaign with the real potential: rock salt, an unknown nitride, a broken cell, water."""
    unknown = bulk("ScN", "zincblende", a=5.1)
    campaign = campaign_of([unknown, SALT, collided(), molecule("H2O")], relaxer="chgnet")
    campaign.screen(no_report)
    for crystal in campaign.crystals[:2]:
        crystal.novel = True  # whatever the shipped table knows of these textbook crystals
    campaign.relax(no_report)
    campaign.rank()
    out = tmp_path_factory.mktemp("results")
    write_files(campaign, out, {"file": "test"})
    return campaign, out


def test_relaxed_crystals_are_placed_and_ranked(relaxed: tuple[Campaign, Path]) -> None:
    nitride, salt, broken = relaxed[0].crystals
    assert salt.formation_energy_per_atom == pytest.approx(-2.1, abs=0.1)  # MP: -2.10 eV/atom
    assert salt.energy_above_hull == pytest.approx(0.0, abs=0.05)
    assert salt.hull is not None
    assert salt.hull.num_subsystems_covered == 1
    assert nitride.energy_above_hull is not None
    assert nitride.energy_above_hull > 0.1
    assert (salt.rank, nitride.rank, broken.rank) == (1, 2, None)
    assert broken.relaxation is None
    counts = numbers(crystal_funnel(relaxed[0].crystals))
    potential = salt.relaxation.potential if salt.relaxation else ""
    assert potential.startswith("chgnet")
    assert counts[f"relaxed with {potential}"] == (2, 2)
    assert counts[f"E hull <= 0.1 by {potential}"] == (1, 2)
    assert counts["E hull <= 0.1, unique, novel"] == (1, 3)


def test_every_file_reads_back(relaxed: tuple[Campaign, Path]) -> None:
    campaign, out = relaxed
    frames = ase.io.read(out / "relaxed.extxyz", ":")
    salt = frames[1]
    assert salt.info["adit"]["id"] == "test/0/1"
    assert salt.info["energy_above_hull"] == pytest.approx(campaign.crystals[1].energy_above_hull)
    assert salt.get_potential_energy() == pytest.approx(campaign.crystals[1].relaxation.energy)
    assert len(ase.io.read(out / "crystals.extxyz", ":")) == 3
    assert len(list((out / "cif").glob("*.cif"))) == 2
    assert "test/0/3" in (out / "molecules.sdf").read_text()
    records = json.loads((out / "candidates.json").read_text())
    assert [record["rank"] for record in records["crystals"]] == [2, 1, None]
    assert records["crystals"][1]["relaxation"]["potential"].startswith("chgnet")
    assert Structure.from_dict(records["crystals"][1]["structure"]).formula == "Na1 Cl1"
    assert Molecule.from_dict(records["molecules"][0]["structure"]).formula == "H2 O1"
    assert records["molecules"][0]["smiles"] == "O"
    summary = json.loads((out / "summary.json").read_text())
    assert sorted(summary["files"]) == sorted(path.name for path in out.iterdir())
    assert summary["relaxation"]["max_steps"] == 10
    assert not summary["interrupted"]


def test_the_table_names_potential_coverage_and_candidates(
    relaxed: tuple[Campaign, Path],
) -> None:
    console = Console(width=120, record=True, force_terminal=False)
    print_tables(relaxed[0], console)
    text = console.export_text()
    for part in ("by chgnet-", "2/3", "NaCl", "1/1", "valid (strict)", "test/0/1", "coverage"):
        assert part in text


def test_relaxed_crystals_without_a_place_on_the_hull_stay_in_the_denominator() -> None:
    campaign = campaign_of([SALT, SALT * (2, 1, 1)])
    campaign.screen(no_report)
    for crystal in campaign.crystals:
        atoms = crystal.sample.to_ase()
        crystal.relaxation = RelaxResult(atoms, True, "converged", 1, -7.0, -3.5, 0.01, "p")
    place_on_hull(campaign.crystals[0], Hull.load())
    campaign.crystals[1].hull_problem = "no reference"
    assert numbers(crystal_funnel(campaign.crystals))["E hull <= 0.1 by p"][1] == 2


def test_a_late_failure_keeps_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RelaxerError("no worker can start")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Campaign, "relax", fail)
    ase.io.write("salt.extxyz", SALT)
    result = CliRunner().invoke(main, ["discover", "salt.extxyz", "--out", "found"])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "Error: no worker can start"
    assert "1 finished structures are in found/" in result.stderr
    assert json.loads(Path("found/summary.json").read_text())["interrupted"]


def test_limits_are_checked_before_anything_is_made() -> None:
    with pytest.raises(ValueError, match="fmax=nan"):
        Settings(fmax=float("nan"))


def test_a_smiles_that_rdkit_cannot_read_again_is_not_known() -> None:
    campaign = campaign_of([molecule("H2O")])
    report = MoleculeReport("c1cccn1", rdkit_valid=True, connected=True, strict_valid=True)
    campaign.molecules[0].report = report
    mark_duplicate_and_novel_molecules(campaign.molecules)
    assert campaign.molecules[0].novel


def test_an_interruption_keeps_honest_denominators(tmp_path: Path) -> None:
    campaign = campaign_of([SALT, bulk("MgO", "rocksalt", a=4.2)], relaxer="chgnet")

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "crystals relaxed" and done == 1:
            raise KeyboardInterrupt

    campaign.screen(stop)
    with pytest.raises(KeyboardInterrupt):
        campaign.relax(stop)
    campaign.interrupted = True
    campaign.rank()
    write_files(campaign, tmp_path, {})
    counts = numbers(crystal_funnel(campaign.crystals))
    assert next(value for name, value in counts.items() if "relaxed" in name) == (1, 1)
    assert counts["E hull <= 0.1, unique, novel"][1] == 1
    assert len(ase.io.read(tmp_path / "relaxed.extxyz", ":")) == 1
    assert json.loads((tmp_path / "summary.json").read_text())["interrupted"]


def test_another_run_replaces_our_files_and_keeps_others(tmp_path: Path) -> None:
    write_files(campaign_of([SALT, molecule("H2O")]), tmp_path, {})
    (tmp_path / "notes.txt").write_text("mine")
    assert is_results(tmp_path)
    write_files(campaign_of([molecule("CH4")]), tmp_path, {})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        "notes.txt", "molecules.extxyz", "molecules.sdf", "candidates.json", "summary.json",
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"format": "other"}'])
def test_a_foreign_folder_is_no_results(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert not is_results(tmp_path)


def test_fresh_samples_fill_a_campaign(tiny_checkpoint: str) -> None:
    campaign = Campaign(Settings(relaxer=None))
    for kind in ("crystal", "molecule"):
        generator = ADiTGenerator(kind=kind, checkpoint=tiny_checkpoint, num_steps=2, device="cpu")
        campaign.generate(generator, 3, no_report)
    assert [c.sample.id for c in campaign.crystals] == [f"tiny/0/{i}" for i in range(3)]
    assert len(campaign.molecules) == 3
    assert set(campaign.seconds) == {"crystals generated", "molecules generated"}


def test_discover_from_a_file_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("mixed.extxyz", [SALT, molecule("CH4"), collided()])
    command = ["discover", "mixed.extxyz", "--no-relax", "--out", "found"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "structurally valid" in result.stdout
    assert "3 structures in found/" in result.stdout
    records = json.loads(Path("found/candidates.json").read_text())
    assert [record["id"] for record in records["crystals"]] == ["mixed.extxyz/0", "mixed.extxyz/2"]

    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert CliRunner().invoke(main, [*command, "--overwrite", "--num", "1"]).exit_code == 0
    assert not Path("found/molecules.sdf").exists()
