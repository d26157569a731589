"""The campaign: verdicts, denominators, ranking, files, interruptions and going on."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ase.io
import cheap_potential
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner
from pymatgen.core import Molecule, Structure
from rich.console import Console

from adit_plugins import ADiTGenerator, read_structures
from adit_plugins.campaign import (
    Campaign,
    FileSource,
    GeneratorSource,
    Resources,
    Settings,
    Store,
    StructuresSource,
)
from adit_plugins.campaign.files import is_results, write_files
from adit_plugins.campaign.files import ranking as ranking_of
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.records import relaxed_row
from adit_plugins.campaign.report import print_tables
from adit_plugins.campaign.settings import DONE, PREFILTER, RELAX
from adit_plugins.campaign.store import Row as StoreRow
from adit_plugins.campaign.work import (
    Placed,
    Prefiltered,
    place_result,
    prefilter_and_place,
    relax_and_place,
)
from adit_plugins.cli import main
from adit_plugins.cli.progress import Pace, _plain_lines
from adit_plugins.relax.results import RelaxResult

SALT = bulk("NaCl", "rocksalt", a=5.69)
SERIAL = Resources(executor="serial", chunk_size=3, block_size=4)


def begin(folder: Path, structures: list[Atoms], **settings: Any) -> Campaign:
    named = []
    for i, atoms in enumerate(structures):
        named.append(atoms.copy())
        named[-1].info["adit"] = {"id": f"test/0/{i}"}
    source = StructuresSource(lambda start: named[start:], len(named))
    return Campaign.create(
        folder, source, Settings(**{"relaxer": None, "max_steps": 10} | settings), SERIAL
    )


def collided() -> Atoms:
    atoms = SALT.copy()
    atoms.positions[1] = atoms.positions[0] + 0.1
    return atoms


def numbers(counts: list[Any]) -> dict[str, tuple[int, int]]:
    return {count.name: (count.numerator, count.denominator) for count in counts}


def crystal_counts(campaign: Campaign) -> dict[str, tuple[int, int]]:
    return numbers(Tally(campaign.store.verdicts()).crystal_funnel())


def verdicts(campaign: Campaign) -> list[dict[str, Any]]:
    """The table, but for the time that each relaxation took."""
    rows = list(campaign.store.verdicts())
    for row in rows:
        row.pop("relax_seconds", None)
    return rows


def test_crystals_get_every_verdict_and_denominators(tmp_path: Path) -> None:
    strange = bulk("NaCl", "cesiumchloride", a=3.5)
    strange.numbers = [11, 18]  # sodium argide: no charge neutral choice
    with begin(tmp_path, [SALT, SALT * (2, 1, 1), collided(), strange]) as campaign:
        campaign.run()
        salt, double, broken, argide = campaign.store.verdicts()
        counts = crystal_counts(campaign)
    assert (salt["structure_valid"], salt["composition_valid"], salt["unique"]) == (1, 1, 1)
    assert (double["unique"], double["duplicate_of"], "novel" in double) == (0, "test/0/0", False)
    assert (broken["structure_valid"], "unique" in broken, "novel" in broken) == (0, False, False)
    assert broken["min_distance"] == pytest.approx(0.1 * 3**0.5)
    assert (argide["composition_valid"], argide["novel"]) == (0, 1)
    assert counts["structurally valid"] == (3, 4)
    assert counts["composition valid"] == (3, 4)
    assert counts["unique"] == (2, 3)
    assert counts["novel"][1] == 2
    assert not any("E hull" in name for name in counts)  # nothing was relaxed


def test_molecules_get_every_verdict_and_denominators(tmp_path: Path) -> None:
    torn = molecule("CH3CH2OH")
    torn.positions[0] += 5.0
    water = molecule("H2O")
    water.rotate(40, "x")
    with begin(tmp_path, [molecule("H2O"), water, torn, molecule("CH3"), water]) as campaign:
        campaign.run()
        first, second, broken, radical, third = campaign.store.verdicts()
        counts = numbers(Tally(campaign.store.verdicts()).molecule_funnel())
    assert first["smiles"] == "smiles:O"
    assert (first["unique"], second["unique"], second["duplicate_of"]) == (1, 0, "test/0/0")
    assert third["duplicate_of"] == "test/0/0"  # of an earlier block: found in the store
    assert not broken["connected"]
    assert not radical["strict_valid"]
    assert counts["valid (strict)"] == (3, 5)
    assert counts["connected"] == (4, 5)


@pytest.fixture(scope="module")
def relaxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A campaign with the real potential: rock salts, an unknown nitride, a broken cell, water."""
    unknown = bulk("YN", "zincblende", a=5.4)
    magnesia = bulk("MgO", "rocksalt", a=4.3)
    structures = [unknown, magnesia, SALT, collided(), molecule("H2O")]
    with begin(tmp_path_factory.mktemp("results"), structures, relaxer="chgnet") as campaign:
        campaign.run()
        write_files(campaign.store, campaign.interrupted)
        yield campaign


def test_relaxed_crystals_are_placed_and_ranked(relaxed: Campaign) -> None:
    nitride, magnesia, salt, broken, _ = relaxed.store.verdicts()
    assert magnesia["formation_energy_per_atom"] == pytest.approx(-3.05, abs=0.1)  # MP, corrected
    assert magnesia["energy_above_hull"] == pytest.approx(0.0, abs=0.05)
    assert nitride["energy_above_hull"] > 0.1
    assert not salt["novel"]  # so nobody relaxes it
    assert "outcome" not in salt and "outcome" not in broken
    ranked = [relaxed.store.row(i)["number"] for i in
              relaxed.store.candidates()]  # fmt: skip
    assert ranked == [1, 0]
    counts = crystal_counts(relaxed)
    potential = magnesia["potential"]
    assert potential.startswith("chgnet")
    assert counts[f"relaxed with {potential}"] == (2, 2)
    assert counts[f"E hull < 0.1 by {potential}"] == (1, 2)
    assert counts["E hull < 0.1, unique, novel"] == (1, 4)


def test_every_file_reads_back(relaxed: Campaign) -> None:
    out = relaxed.folder
    frames = ase.io.read(out / "relaxed.extxyz", ":")
    _, magnesia, *_ = relaxed.store.verdicts()
    assert frames[1].info["adit"]["id"] == "test/0/1"
    assert frames[1].info["energy_above_hull"] == pytest.approx(magnesia["energy_above_hull"])
    assert frames[1].get_potential_energy() == pytest.approx(relaxed.store.row(2).energy)
    assert len(ase.io.read(out / "crystals.extxyz", ":")) == 4
    assert sorted(path.name for path in (out / "cif").iterdir()) == [
        "0001-MgO.cif", "0002-YN.cif", "index.csv",
    ]  # fmt: skip
    assert [a.info["adit"]["id"] for a in read_structures(out / "cif")] == ["test/0/1", "test/0/0"]
    assert [a.info["adit"]["id"] for a in read_structures(out / "results.db")] == [
        f"test/0/{i}" for i in range(5)
    ]
    assert "test/0/4" in (out / "molecules.sdf").read_text()
    records = json.loads((out / "candidates.json").read_text())
    assert [record["rank"] for record in records["crystals"]] == [2, 1, None, None]
    assert records["crystals"][1]["relaxation"]["potential"].startswith("chgnet")
    assert Structure.from_dict(records["crystals"][1]["structure"]).lattice.a == pytest.approx(
        4.3 / 2**0.5  # as generated
    )
    assert Molecule.from_dict(records["molecules"][0]["structure"]).formula == "H2 O1"
    assert records["molecules"][0]["smiles"] == "O"
    ranking = json.loads((out / "ranking.json").read_text())
    with (out / "ranking.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["formula"] for row in table] == [row["formula"] for row in ranking] == ["MgO", "YN"]
    assert float(table[0]["energy_above_hull"]) == ranking[0]["energy_above_hull"]
    assert (table[1]["converged"], table[0]["space_group"]) == ("True", "225")
    summary = json.loads((out / "summary.json").read_text())
    visible = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert sorted(summary["files"]) == visible
    assert summary["settings"]["max_steps"] == 10
    assert not summary["interrupted"]
    with (out / "funnel.csv").open() as file:
        funnel = {row["stage"]: row["number"] for row in csv.DictReader(file)}
    assert funnel["structurally valid"] == "3"


def test_the_table_names_potential_coverage_and_candidates(relaxed: Campaign) -> None:
    console = Console(width=120, record=True, force_terminal=False)
    print_tables(relaxed.store, console)
    text = console.export_text()
    for part in (
        "by chgnet-",
        "3/4",
        "MgO",
        "1/1",
        "valid (strict)",
        "begin with test/0/",
        "coverage",
    ):
        assert part in text


def test_relaxed_crystals_without_a_place_on_the_hull_stay_in_the_denominator(
    tmp_path: Path,
) -> None:
    argide = bulk("NaAr", "rocksalt", a=6.0)  # the elements have no common reference
    settings = {"relaxer": "cheap_potential:make", "max_steps": 1}
    with begin(tmp_path, [bulk("MgO", "rocksalt", a=4.3), argide], **settings) as campaign:
        campaign.run()
        counts = crystal_counts(campaign)
    assert counts["relaxed with cheap"] == (2, 2)
    assert counts["E hull < 0.1 by cheap"][1] == 2


def test_an_element_without_reference_is_a_problem_of_one_structure() -> None:
    result = RelaxResult(bulk("Po", "sc", a=3.35), True, "converged", 1, -7.0, -7.0, 0.01, "p",
                         convention="of my own")  # fmt: skip
    placed = place_result(result)
    assert placed.hull is None
    assert "of my own" in placed.hull_problem


def test_a_prefilter_keeps_what_is_worth_relaxing(tmp_path: Path) -> None:
    structures = cheap_potential.crystals(8)
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    settings = {
        "relaxer": "cheap_potential:make", "prefilter": "cheap_potential:make",
        "prefilter_steps": 2, "max_steps": 4,
    }  # fmt: skip
    with begin(tmp_path / "all", structures, **settings, prefilter_limit=1e9) as campaign:
        campaign.run()
        key = "prefilter_energy_above_hull"
        energies = sorted(row[key] for row in campaign.store.verdicts() if key in row)
    limit = energies[len(energies) // 2]
    settings["prefilter_limit"] = limit
    with begin(tmp_path / "some", structures, **settings) as campaign:
        seen: dict[str, tuple[int, int]] = {}
        campaign.run(lambda stage, done, total: seen.update({stage: (done, total)}))
        rows = [row for row in campaign.store.verdicts() if "prefiltered" in row]
        counts = crystal_counts(campaign)
    passed = [row for row in rows if row["prefiltered"]]
    assert 0 < len(passed) < len(rows)
    assert all((row[key] < limit) == row["prefiltered"] for row in rows)
    assert all(("outcome" in row) == row["prefiltered"] for row in rows)
    assert counts["pre-filtered"] == (len(passed), len(rows))
    assert seen["crystals pre-filtered"] == (len(rows), len(rows))
    assert seen["crystals relaxed"] == (len(passed), len(passed))


def test_the_relaxer_looks_at_what_the_prefilter_would_drop() -> None:
    crystals = cheap_potential.crystals(4)
    names = ("cheap_potential:make_pessimist", "cheap_potential:make")
    plain = relax_and_place(names[0], 0.05, 2, crystals)
    high = [each.hull.energy_above_hull for each in plain if each.hull is not None]
    looks = relax_and_place(names[1], 0.05, 0, [each.result.atoms for each in plain])
    low = [each.hull.energy_above_hull for each in looks if each.hull is not None]
    assert len(high) == len(low) == 4 and high != low

    def judged(limit: float) -> list[Prefiltered]:
        return prefilter_and_place(*names, 0.05, 2, limit, crystals)

    assert all(each.look is None for each in judged(max(high) + 1))  # it need not be asked
    for found, both in zip(judged(0.0), zip(high, low, strict=True), strict=True):
        assert found.energy_above_hull == pytest.approx(min(both), abs=1e-6)


def test_what_the_relaxer_cannot_evaluate_goes_on_as_it_was() -> None:
    before, moved = bulk("Cu"), bulk("Cu", a=3.7)
    result = RelaxResult(moved, True, "converged", 1, -3.0, -3.0, 0.01, "p", convention="mp2020")
    placed = place_result(result)
    assert placed.hull is not None and placed.hull.energy_above_hull > 0.2
    look = Placed(RelaxResult.failure(moved.copy(), "energy out of bounds", "q"))
    settings = Settings(prefilter="p", prefilter_limit=0.1)
    row = relaxed_row(PREFILTER, before, Prefiltered(placed, look), settings)
    assert row.columns["prefiltered"] and row.columns["stage"] == RELAX
    assert row.columns["prefilter_energy_above_hull"] == placed.hull.energy_above_hull
    np.testing.assert_array_equal(row.atoms.cell, before.cell)
    dropped = relaxed_row(PREFILTER, before, Prefiltered(placed, placed), settings)
    assert not dropped.columns["prefiltered"] and dropped.columns["stage"] == DONE
    np.testing.assert_array_equal(dropped.atoms.cell, moved.cell)


def test_duplicates_are_found_in_the_store_after_the_memory_was_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.campaign.duplicates.MAX_KEPT", 0)
    structures = cheap_potential.crystals(20)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with begin(tmp_path / "a", structures) as campaign:
        campaign.run()
        found = verdicts(campaign)
    monkeypatch.undo()
    with begin(tmp_path / "b", structures) as campaign:
        campaign.run()
        assert verdicts(campaign) == found
    assert sum(not row.get("unique", True) for row in found) >= 3


def test_a_late_failure_keeps_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("oxide.extxyz", bulk("MgO", "rocksalt", a=4.3))
    command = ["discover", "oxide.extxyz", "--out", "found", "--workers", "0",
               "--relaxer", "cheap_potential:make_broken"]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "no such weights" in result.stderr.splitlines()[-1]
    assert "1 structures are in found/; adit discover --resume found goes on." in result.stderr
    assert json.loads(Path("found/summary.json").read_text())["interrupted"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fmax": float("nan")}, "fmax=nan"),
        ({"prefilter": "chgnet", "relaxer": None}, "--no-relax"),
        ({"prefilter_limit": -1.0}, "prefilter_limit=-1.0"),
    ],
)
def test_limits_are_checked_before_anything_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_an_interruption_keeps_honest_denominators_and_goes_on(tmp_path: Path) -> None:
    structures = cheap_potential.crystals(12)
    settings = {"relaxer": "cheap_potential:make", "max_steps": 4}
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    with begin(tmp_path / "whole", structures, **settings) as campaign:
        campaign.run()
        whole = verdicts(campaign)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "crystals relaxed" and done:
            raise KeyboardInterrupt

    with begin(tmp_path / "cut", structures, **settings) as campaign:
        campaign.run(stop)
        assert campaign.interrupted
        assert campaign.store.claims() == []
        write_files(campaign.store, campaign.interrupted)
        counts = crystal_counts(campaign)
        finished = sum("outcome" in row for row in whole)
        assert 0 < counts["relaxed with cheap"][1] < finished
        settled = sum(row["stage"] == "done" for row in campaign.store.verdicts())
        assert counts["E hull < 0.1, unique, novel"][1] == settled
        source = campaign.source
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["interrupted"]
    serial, potentials = Resources(executor="serial"), [settings["relaxer"]]
    with pytest.raises(ValueError, match="name it once more: --relaxer cheap_potential:"):
        Campaign.open(tmp_path / "cut", source, serial)
    with pytest.raises(ValueError, match=r"was begun with .*, not with chgnet"):
        Campaign.open(tmp_path / "cut", source, serial, [*potentials, "chgnet"])
    with Campaign.open(tmp_path / "cut", source, serial, potentials) as campaign:
        campaign.run()
        assert verdicts(campaign) == whole


def test_another_source_does_not_go_on(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "salt.extxyz", SALT)
    (tmp_path / "out").mkdir()
    with Campaign.create(tmp_path / "out", FileSource(tmp_path / "salt.extxyz"), Settings(None)):
        pass
    ase.io.write(tmp_path / "salt.extxyz", SALT * 2)
    with pytest.raises(ValueError, match="not the file that this campaign began with"):
        Campaign.open(tmp_path / "out")
    (tmp_path / "python").mkdir()
    with begin(tmp_path / "python", [SALT]):
        pass
    with pytest.raises(ValueError, match="made in Python"):
        Campaign.open(tmp_path / "python")
    with Store(tmp_path / "out") as store:  # and both have let go of their stores
        assert len(store) == 0


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"format": "other"}'])
def test_a_foreign_folder_is_no_results(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert not is_results(tmp_path)


@pytest.mark.parametrize(
    "kinds",
    [("crystal",), pytest.param(("crystal", "molecule"), marks=pytest.mark.slow)],  # PoseBusters
)
def test_fresh_samples_fill_a_campaign_wherever_it_was_cut(
    tmp_path: Path, tiny_checkpoint: str, kinds: tuple[str, ...]
) -> None:
    generators = [
        ADiTGenerator(kind=kind, checkpoint=tiny_checkpoint, num_steps=2, device="cpu")  # type: ignore[arg-type]
        for kind in kinds
    ]
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    source = GeneratorSource(generators, 5)
    with Campaign.create(tmp_path / "whole", source, Settings(relaxer=None), SERIAL) as campaign:
        campaign.run()
        whole = verdicts(campaign)
    assert [row["sample_id"] for row in whole] == [f"tiny/0/{i}" for _ in kinds for i in range(5)]
    assert [row["kind"] for row in whole] == [kind for kind in kinds for _ in range(5)]
    assert whole[3]["checkpoint_hash"].startswith("hash:")
    assert (whole[-3]["seed"], whole[-3]["sample_index"]) == (0, 2)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with Campaign.create(tmp_path / "cut", source, Settings(relaxer=None), SERIAL) as campaign:
        campaign.run(stop)
        assert len(campaign.store) == 4
    with Campaign.open(tmp_path / "cut") as campaign:  # the source comes from the store
        campaign.run()
        assert verdicts(campaign) == whole


def test_discover_from_a_file_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("mixed.extxyz", [SALT, molecule("CH4"), collided()])
    text = Path("mixed.extxyz").read_text()
    Path("mixed.extxyz").write_text(text + text.replace("5.69", "nan").split("5\n", 1)[0])
    command = ["discover", "mixed.extxyz", "--no-relax", "--out", "found"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "structurally valid" in result.stdout
    records = json.loads(Path("found/candidates.json").read_text())
    ids = [record["id"] for record in records["crystals"]]
    assert ids[:2] == ["mixed.extxyz/0", "mixed.extxyz/2"]
    assert f"{len(ids) + 1} structures in found/" in result.stdout

    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert "--resume found" in result.stderr
    (tmp_path / "found" / "notes.txt").write_text("mine")
    assert CliRunner().invoke(main, [*command, "--overwrite", "--num", "1"]).exit_code == 0
    assert not Path("found/molecules.sdf").exists()
    assert Path("found/notes.txt").read_text() == "mine"


def test_resume_goes_on_from_the_command_line_with_its_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("crystals.extxyz", cheap_potential.crystals(9))
    first = ["discover", "crystals.extxyz", "--out", "found", "--workers", "0", "--max-steps", "3"]
    ran = CliRunner().invoke(main, [*first, "--relaxer", "cheap_potential:make_broken"])
    assert ran.exit_code == 2
    # As if the relaxer had been repaired.
    with Store(Path("found")) as store, store._transaction():
        store._db.metadata = store.metadata | {
            "settings": store.metadata["settings"] | {"relaxer": "cheap_potential:make"}
        }
    result = CliRunner().invoke(main, ["discover", "--resume", "found", "--fmax", "1"])
    assert (result.exit_code, "not --fmax" in result.stderr) == (2, True)
    command = ["discover", "--resume", "found", "--executor", "serial"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, "--relaxer cheap_potential:make" in result.stderr) == (2, True)
    result = CliRunner().invoke(main, [*command, "--relaxer", "cheap_potential:make"])
    assert result.exit_code == 0, result.output
    assert "relaxed with cheap" in result.stdout
    result = CliRunner().invoke(main, ["discover", "--resume", "nowhere"])
    assert "nowhere holds no campaign" in result.stderr


def test_the_pace_counts_from_where_a_run_took_up(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.of("x", 50, 100) == (None, None)
    now[0] = 10.0
    assert pace.of("x", 70, 100) == (2.0, 15.0)
    report = _plain_lines(lambda: now[0])
    for done in range(101):
        now[0] = 10.0 + done
        report("x", done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "x: 0/100"
    assert lines[1] == "x: 10/100 (1/s, 2 min left)"
    assert lines[-1] == "x: 100/100"
    assert len(lines) == 11
    for done in range(100, 400):  # a stage whose total grows, and which moves slowly
        now[0] += 1
        report("x", done, 2 * done)
    assert len(capsys.readouterr().err.splitlines()) == 10
    for done in range(101):  # all in a moment
        report("y", done, 100)
    assert capsys.readouterr().err.splitlines() == ["y: 0/100", "y: 100/100"]


def named(folder: Path, structures: dict[str, Atoms], **settings: Any) -> list[dict[str, Any]]:
    """The rows of a campaign over one CIF each."""
    files = folder / "mine"
    files.mkdir()
    for name, atoms in structures.items():
        ase.io.write(files / name, atoms)
    chosen = Settings(**{"relaxer": "cheap_potential:make", "max_steps": 80} | settings)
    with Campaign.create(folder, FileSource(files), chosen, SERIAL) as campaign:
        campaign.run()
        write_files(campaign.store)
        return list(campaign.store.verdicts())


def strained(ratio: float, shear: float) -> Atoms:
    """TiAl far from its structure, layers of either: with another c/a and a tilt."""
    cell = [[2.8, 0, 0], [0, 2.8, 0], [shear, 0, 2.8 * ratio]]
    return Atoms("TiAl", cell=cell, pbc=True, scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]])


def test_mixed_valence_is_ranked_and_what_relaxation_makes_known_is_said(tmp_path: Path) -> None:
    spinel = bulk("FeO", "rocksalt", a=4.3) * (2, 2, 1)
    del spinel[[0]]  # Fe3O4: no single state of iron balances it
    structures = {"z.cif": strained(2.2, 0.0), "b.cif": strained(0.75, 0.3), "odd.cif": spinel}
    rows = {row["sample_id"]: row for row in named(tmp_path, structures)}
    assert all(row["novel"] and row["unique"] for row in rows.values())  # as they came
    assert {name: row["novelty"] for name, row in rows.items()} == {
        "z": "known structure", "b": "known structure", "odd": "known formula",
    }  # fmt: skip
    worse, better = sorted("zb", key=lambda name: -rows[name]["energy_above_hull"])
    duplicates = {name: row.get("relaxed_duplicate_of") for name, row in rows.items()}
    assert duplicates == {worse: better, better: None, "odd": None}
    assert not rows["odd"]["composition_valid"] and rows["odd"]["neutral_by"] == "mixed"
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert [row["id"] for row in ranking] == [better, "odd"]
    assert ranking[1]["origin"].startswith("odd.cif")
    assert numbers(Tally(rows.values()).crystal_funnel())["unique, novel as relaxed"] == (1, 3)
    with Store(tmp_path) as store:
        store.metadata["settings"]["neutral_by"] = "smact"
        assert [row["id"] for row in ranking_of(store)] == [better]
        store.metadata["settings"] |= {"neutral_by": "mixed", "max_hull": 4.0}
        assert [row["id"] for row in ranking_of(store)] == [better]
        store.metadata["settings"]["max_hull"] = -1.0
        console = Console(width=80, record=True, force_terminal=False)
        print_tables(store, console)
        assert "none within max_hull -1.0" in console.export_text()


def test_a_table_of_80_columns_breaks_no_formula_and_no_number(tmp_path: Path) -> None:
    with Store.create(tmp_path, {"total": 1, "settings": asdict(Settings())}) as store:
        names = ("num_reference_phases", "num_subsystems_covered", "num_subsystems")
        hull = dict.fromkeys(names, 12)
        row = StoreRow(
            bulk("Cu") * (6, 1, 1),
            {"kind": "crystal", "number": 0, "stage": "done", "relaxed": True, "converged": False,
             "energy_above_hull": -0.1234, "metastable_probability": 0.9,
             "novelty": "known formula", "neutral_by": "smact", "composition": "Cu1",
             "outcome": "step limit", "potential": "p"},
            {"adit": {"id": "my-checkpoint/0/0"}, "hull": hull,
             "relaxation": {"space_group_after": 1}},
        )  # fmt: skip
        rows = []
        for i, formula in enumerate(("Ca3Cu2Re2O12", "Pm4Nd2Tm2Al4Si6", "Ba2YWO6")):
            rows.append(dataclasses.replace(row, atoms=Atoms(formula, cell=[9] * 3, pbc=True)))
            rows[-1].columns = row.columns | {"number": i, "composition": formula}
            rows[-1].data = row.data | {"adit": {"id": f"my-checkpoint/0/{i}"}}
        store.add(rows)
        console = Console(width=80, record=True, force_terminal=False)
        print_tables(store, console)
        text = console.export_text()
    table = text[text.index("ids begin with my-checkpoint/0/") : text.index("E hull: eV")]
    lines = [line.split() for line in table.splitlines()[4:] if line.strip()]
    assert [(line[1], line[2], line[-1]) for line in lines] == [
        ("Ca3Cu2(ReO6)2", "-0.123*", "0"), ("Pm2NdTmAl2Si3", "-0.123*", "1"),
        ("Ba2YWO6", "-0.123*", "2"),
    ]  # fmt: skip


def test_a_campaign_ends_with_enough_candidates_and_goes_on_no_further(tmp_path: Path) -> None:
    structures = cheap_potential.crystals(40)
    settings = {"relaxer": "cheap_potential:make", "max_steps": 4}
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    with begin(tmp_path / "all", structures, **settings) as campaign:
        campaign.run()
        energies = [row["energy_above_hull"] for row in ranking_of(campaign.store)]
    limit = energies[len(energies) // 2]
    with begin(tmp_path / "some", structures, **settings, until=2, max_hull=limit) as campaign:
        seen: dict[str, tuple[int, int]] = {}
        campaign.run(lambda stage, done, total: seen.update({stage: (done, total)}))
        made, found = len(campaign.store), campaign.store.num_found()
        assert found >= 2 and made < len(structures)
        assert seen["candidates found"] == (2, 2)
        assert all(row["energy_above_hull"] < limit for row in ranking_of(campaign.store))
    with Campaign.open(
        tmp_path / "some", StructuresSource(lambda start: structures[start:], 40), SERIAL,
        potentials=["cheap_potential:make"],
    ) as campaign:  # fmt: skip
        campaign.run()
        assert (len(campaign.store), campaign.store.num_found()) == (made, found)
