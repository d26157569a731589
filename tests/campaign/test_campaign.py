"""The campaign: verdicts, denominators, ranking and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
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

from adit_plugins import read_structures
from adit_plugins.campaign import (
    Campaign,
    Resources,
    Settings,
    StructuresSource,
)
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.records import relaxed_row
from adit_plugins.campaign.report import print_tables
from adit_plugins.campaign.settings import DONE, PREFILTER, RELAX
from adit_plugins.campaign.work import (
    Placed,
    Prefiltered,
    place_result,
    prefilter_and_place,
    relax_and_place,
)
from adit_plugins.cli import main
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
        write_files(campaign.store, campaign.ended)
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
    assert counts["passed pre-filter"] == (len(passed), len(rows))
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
    assert "1 structures are in found/, 1 of them not judged yet; adit discover" in result.stderr
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
