"""Campaigns that were cut off go on, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import cheap_potential
import pytest
from ase.build import molecule
from click.testing import CliRunner
from test_campaign import SALT, SERIAL, begin, collided, crystal_counts, verdicts

from adit_plugins import ADiTGenerator
from adit_plugins.campaign import (
    Campaign,
    FileSource,
    GeneratorSource,
    Resources,
    Settings,
    Store,
)
from adit_plugins.campaign.files import is_results, write_files
from adit_plugins.cli import main
from adit_plugins.cli.progress import Pace, _plain_lines


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
        write_files(campaign.store, campaign.ended)
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
