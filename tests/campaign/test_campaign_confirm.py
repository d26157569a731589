"""A second potential's word on the candidates of the first."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cheap_potential
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console
from test_campaign import SERIAL, numbers

from adit_plugins.campaign import Campaign, Resources, Settings, Store, StructuresSource
from adit_plugins.campaign.confirm import _annotation
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.jobs import Killer
from adit_plugins.campaign.report import print_tables
from adit_plugins.cli import main
from adit_plugins.metrics.stability import METASTABLE, is_within
from adit_plugins.relax.run import relax

FIRST, SECOND = "cheap_potential:make", "cheap_potential:make_pessimist"


def started(folder: Path, settings: Settings, resources: Resources) -> Campaign:
    named = cheap_potential.crystals(10)
    for i, atoms in enumerate(named):
        atoms.info["adit"] = {"id": f"test/0/{i}"}
    source = StructuresSource(lambda start: named[start:], len(named))
    return Campaign.create(folder, source, settings, resources)


def confirmed(folder: Path, resources: Resources = SERIAL, **settings: Any) -> list[dict[str, Any]]:
    chosen = {"relaxer": FIRST, "max_steps": 8, "confirm": SECOND, "confirm_limit": 99.0}
    with started(folder, Settings(**chosen | settings), resources) as campaign:
        campaign.run()
        write_files(campaign.store)
        return list(campaign.store.verdicts())


def test_candidates_get_a_second_energy_from_where_the_first_left_them(tmp_path: Path) -> None:
    rows = confirmed(tmp_path, confirm_steps=3)
    with Store(tmp_path) as store:
        candidates = [store.row(row_id) for row_id in store.candidates()]
        assert candidates and len(candidates) < len(rows)
        for row in candidates:
            atoms = row.toatoms()
            atoms.info = {}
            own, other = row["energy_above_hull"], row["confirm_energy_above_hull"]
            (start,) = relax([atoms], SECOND_MADE, max_steps=0, workers=0)
            (end,) = relax([atoms], SECOND_MADE, max_steps=3, workers=0)
            record = row.data["confirm"]
            assert record["start_energy"] == pytest.approx(start.energy)
            assert record["energy"] == pytest.approx(end.energy)
            assert np.allclose(record["positions"], end.atoms.positions)
            assert row["confirm_difference"] == pytest.approx(other - own)
            fall = (start.energy - end.energy) / len(atoms)
            assert row["confirm_start_energy_above_hull"] - other == pytest.approx(fall)
            agrees = is_within(own, METASTABLE) == is_within(other, METASTABLE)
            assert bool(row["confirm_agrees"]) == agrees
            assert row["potential"] == "cheap" and row["confirm_potential"] == "pessimist"
        console = Console(width=80, record=True, force_terminal=False)
        print_tables(store, console)
    asked = numbers(Tally(rows).crystal_funnel())["both agree"][1]
    assert asked == len(candidates) == sum("confirm_outcome" in row for row in rows)
    ranked = list(csv.DictReader((tmp_path / "ranking.csv").open()))
    assert {row["confirm_potential"] for row in ranked} == {"pessimist"}
    assert all(row["raw_energy_above_hull"] == row["energy_above_hull"] for row in ranked)
    content = json.loads((tmp_path / "candidates.json").read_text())
    assert any(
        row.get("confirm", {}).get("potential") == "pessimist" for row in content["crystals"]
    )
    text = console.export_text()
    assert "2nd: by pessimist" in " ".join(text.split())
    assert all(word in text for word in ("2nd", "diff", "agree", "by both"))
    assert max(len(line) for line in text.splitlines()) <= 80


def SECOND_MADE() -> Any:  # noqa: N802 - a factory that stands for its name
    return cheap_potential.make_pessimist()


def test_what_lies_too_high_is_not_asked_about_and_a_failure_is_said(tmp_path: Path) -> None:
    rows = confirmed(tmp_path, confirm="ase.calculators.emt:EMT", confirm_limit=3.0)
    asked = [row for row in rows if "confirm_outcome" in row]
    placed = [row["energy_above_hull"] for row in rows if row.get("relaxed")]
    assert asked and max(row["energy_above_hull"] for row in asked) < 3.0 < max(placed)
    assert all("confirm_agrees" not in row for row in asked)
    assert any("Error: " in row["confirm_outcome"] for row in asked)


def test_an_interrupted_campaign_asks_about_the_rest_alone(tmp_path: Path) -> None:
    chosen = Settings(
        relaxer=FIRST, max_steps=8, confirm=SECOND, confirm_limit=99.0, confirm_steps=3
    )
    seen: list[int] = []

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "candidates confirmed":
            seen.append(done)
            if done >= 2:
                raise KeyboardInterrupt

    with started(tmp_path, chosen, SERIAL) as campaign:
        campaign.run(interrupt)
        assert campaign.interrupted
        first = {r["sample_id"]: r for r in campaign.store.verdicts() if "confirm_outcome" in r}
        source = campaign.source
    assert 2 <= len(first) < len(seen) + 10
    with pytest.raises(ValueError, match="confirm is 'cheap_potential:make_pessimist', which may"):
        Campaign.open(tmp_path, source, SERIAL, potentials=[FIRST])
    with Campaign.open(tmp_path, source, SERIAL, potentials=[FIRST, SECOND]) as campaign:
        campaign.run()
        rows = {r["sample_id"]: r for r in campaign.store.verdicts() if "confirm_outcome" in r}
        assert len(rows) == len(campaign.store.candidates()) > len(first)
    assert all(rows[name] == row for name, row in first.items())


def test_a_finished_campaign_can_be_asked_about_later_and_by_another(tmp_path: Path) -> None:
    with started(tmp_path, Settings(relaxer=FIRST, max_steps=8), SERIAL) as campaign:
        campaign.run()
        source = campaign.source
        before = list(campaign.store.verdicts())
    for second in (SECOND, "ase.calculators.emt:EMT"):
        asked = {"confirm": second, "confirm_limit": 99.0, "confirm_steps": 0}
        with Campaign.open(tmp_path, source, SERIAL, [FIRST, second], asked) as campaign:
            campaign.run()
        with Store(tmp_path, read_only=True) as store:
            assert store.metadata["settings"]["confirm"] == second
            after = list(store.verdicts())
            ids = store.candidates()
        own = [{k: v for k, v in row.items() if not k.startswith("confirm")} for row in after]
        assert own == before
        assert sum(row.get("confirm_potential") is not None for row in after) == len(ids) > 0
        # Of the one that was asked before nothing stays, not where the second has no answer either.
        assert any("confirm_agrees" in row for row in after) == (second == SECOND)


def test_a_worker_that_dies_is_replaced_and_one_that_cannot_live_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cheap_potential.FLAG, str(tmp_path / "died"))
    deadly = "cheap_potential:make_deadly_once"
    rows = confirmed(tmp_path, Resources(workers=1), confirm=deadly)
    assert (tmp_path / "died").exists()
    with Store(tmp_path, read_only=True) as store:
        ids = store.candidates()
        assert ids and sum("confirm_agrees" in row for row in rows) == len(ids)
        columns, data = _annotation(store, ids[0], Killer("it died"), deadly)
    said = {name: value for name, value in columns.items() if value is not None}
    assert said == {"confirm_potential": deadly, "confirm_outcome": "quarantined"}
    assert data["confirm"]["reason"] == "quarantined: it died"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"confirm": FIRST, "relaxer": FIRST}, "has relaxed already"),
        ({"confirm": SECOND, "relaxer": None}, "a second opinion needs a first one"),
        ({"confirm": SECOND, "confirm_limit": float("nan")}, "confirm_limit=nan must be"),
        ({"confirm": SECOND, "confirm_steps": -1}, "max_steps=-1"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Settings(**settings)


def test_an_unknown_second_potential_is_found_before_anything_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["discover", "--num", "1", "--out", str(out), "--confirm"]
    result = CliRunner().invoke(main, [*arguments, "unheard-of"])
    assert result.exit_code == 2 and "No plugin 'unheard-of' in adit.relaxers" in result.output
    result = CliRunner().invoke(main, [*arguments, "sevennet"], env={"ADIT_HOME": str(tmp_path)})
    assert result.exit_code == 2 and "adit env create sevennet" in result.output
    assert not out.exists()
