"""A folder of one's own files: each has its name and its ending, and files say what they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ase.io
import cheap_potential
import pytest
from ase.build import bulk, molecule
from pymatgen.io.cif import CifParser
from rich.console import Console
from test_campaign import SERIAL

from adit_plugins.campaign import Campaign, FileSource, Resources, Settings, StructuresSource
from adit_plugins.campaign.endings import STRUCTURES
from adit_plugins.campaign.files import SUMMARY, write_files
from adit_plugins.campaign.report import print_tables
from adit_plugins.structures.reading import read_structures

CHEAP = Settings(relaxer="cheap_potential:make", max_steps=3)


def own_folder(place: Path) -> Path:
    """Files that end in as many ways, with names of their own."""
    folder = place / "mine"
    folder.mkdir()
    metal = bulk("AgN", "zincblende", a=5.1)
    for name, atoms in {
        "my best": metal, "again": metal * (2, 1, 1), "tight": bulk("NaCl", "rocksalt", a=0.9),
    }.items():  # fmt: skip
        ase.io.write(folder / f"{name}.cif", atoms)
    ase.io.write(folder / "water.xyz", molecule("H2O"))
    (folder / "broken.cif").write_text("data_x\nloop_\n")
    return folder


def screened(place: Path) -> tuple[Path, str]:
    out = place / "out"
    out.mkdir()
    with Campaign.create(out, FileSource(own_folder(place)), CHEAP, SERIAL) as campaign:
        campaign.run()
        write_files(campaign.store, campaign.ended, campaign.seconds)
        console = Console(width=80, record=True, force_terminal=False)
        print_tables(campaign.store, console)
    return out, console.export_text()


def test_every_file_has_a_row_under_its_name_that_says_how_it_ended(tmp_path: Path) -> None:
    out, said = screened(tmp_path)
    rows = {row["id"]: row for row in csv.DictReader((out / STRUCTURES).open())}
    assert set(rows) == {"again", "broken", "my best", "tight", "water"}
    assert rows["tight"]["ended"] == "invalid: atoms too close, or no volume"
    assert rows["my best"]["ended"] == "duplicate of again"
    assert rows["again"]["ended"] == "candidate" and rows["again"]["rank"] == "1"
    assert rows["again"]["file"] == "0001-AgN.cif" and float(rows["again"]["energy_above_hull"])
    assert rows["broken"]["ended"] == "holds no structure" and rows["broken"]["num_atoms"] == "0"
    assert rows["water"]["ended"].startswith("valid") and rows["water"]["smiles"] == "O"
    for name in rows:
        assert name in said
    assert "Your 5 structures" in said and "generated" not in said
    records = json.loads((out / "candidates.json").read_text())
    assert all(each["ended"] for each in records["crystals"] + records["molecules"])


def test_the_summary_is_complete_for_files_and_for_nothing(tmp_path: Path) -> None:
    out, _ = screened(tmp_path)
    summary = json.loads((out / SUMMARY).read_text())
    numbers = {"total": 5, "structures": 5, "judged": 5, "unreadable": 1, "candidates": 1}
    assert summary | numbers == summary
    assert summary["ended"] == "all" and "generated" not in json.dumps(summary["counts"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with Campaign.create(empty, FileSource(tmp_path / "mine"), CHEAP, SERIAL) as campaign:
        write_files(campaign.store)
    nothing = json.loads((empty / SUMMARY).read_text())
    assert set(nothing) == set(summary)
    assert (nothing["ended"], nothing["total"], nothing["structures"]) == ("unfinished", 5, 0)


def test_a_cif_that_is_passed_on_says_what_it_is(tmp_path: Path) -> None:
    out, _ = screened(tmp_path)
    path = out / "cif" / "0001-AgN.cif"
    (block,) = CifParser(str(path)).as_dict().values()
    (row,) = csv.DictReader((out / "ranking.csv").open())
    assert block["_adit_id"] == "again" and block["_adit_potential"] == "cheap"
    assert block["_adit_origin"] == row["origin"]
    energy = float(row["energy_above_hull"])
    assert float(block["_adit_energy_above_hull"]) == pytest.approx(energy, rel=1e-5)
    assert "eV/atom" in path.read_text()
    assert read_structures(path)[0].info["adit"]["id"] == "again"


def pausing(monkeypatch: pytest.MonkeyPatch) -> StructuresSource:
    monkeypatch.setenv(cheap_potential.PAUSE, "0.4")
    crystals = cheap_potential.crystals(12)
    return StructuresSource(lambda start: crystals[start:], len(crystals))


def test_minutes_end_a_campaign_with_what_is_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, seen = pausing(monkeypatch), dict[str, Any]()
    means = Resources("serial", minutes=1 / 60)
    with Campaign.create(tmp_path, source, CHEAP, means) as campaign:
        campaign.run(lambda stage, done, total: seen.update({stage: (done, total)}))
        assert campaign.ended == "minutes" and not campaign.interrupted
        assert campaign.seconds < 5
        some = len(campaign.store.candidates())
        assert some and campaign.store.num_waiting()
        write_files(campaign.store, campaign.ended)
    assert seen["structures checked of at most"] == (12, 12)
    assert json.loads((tmp_path / SUMMARY).read_text())["ended"] == "minutes"
    monkeypatch.setenv(cheap_potential.PAUSE, "0")
    with Campaign.open(tmp_path, source, SERIAL, [CHEAP.relaxer or ""]) as campaign:
        campaign.run()
        assert campaign.ended == "all" and len(campaign.store.candidates()) > some


def test_a_second_opinion_ends_with_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pausing(monkeypatch)
    monkeypatch.setenv(cheap_potential.PAUSE, "0")
    with Campaign.create(tmp_path, source, CHEAP, Resources("serial")) as campaign:
        campaign.run()
    asked = {"confirm": "cheap_potential:make_pessimist", "confirm_limit": 99.0}
    named = [CHEAP.relaxer or "", asked["confirm"]]
    means = Resources("serial", chunk_size=1, minutes=0.5 / 60)
    monkeypatch.setenv(cheap_potential.PAUSE, "0.4")
    with Campaign.open(tmp_path, source, means, named, asked) as campaign:
        campaign.run()
        assert campaign.ended == "minutes"
        asked_of = [row for row in campaign.store.verdicts() if "confirm_outcome" in row]
        assert 0 < len(asked_of) < len(campaign.store.candidates())
