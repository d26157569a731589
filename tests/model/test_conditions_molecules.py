"""The DFT benchmark of told properties: its tasks, their log, and the table made of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import conditions_molecules
import qm9_level
from conditions_molecules import Drawn, errors_of, found_of, table, write_tasks

LIMITS = {"qm9_at_random": 2.0, "qm9_drawn_at_the_target": 0.1}


class NoData(conditions_molecules.Known):
    """Limits without QM9."""

    def __init__(self) -> None:
        pass

    def limits(self, name: str, target: float) -> dict[str, float]:
        return LIMITS


def tasks(first: float, num: int, wanted: str) -> list[dict[str, Any]]:
    """Of H2 at several distances, angstrom."""
    return [
        qm9_level.task([1, 1], [[0, 0, 0], [0, 0, first + step]], wanted) for step in range(num)
    ]


def made_up(numbers: Any, positions: Any, wanted: str) -> dict[str, float] | None:
    """The distance as its gap; no value beyond 6 angstrom, and no convergence at 2."""
    distance = positions[1][2]
    if distance > 6:
        raise RuntimeError("not solvable")
    return None if distance == 2 else {"homo_lumo_gap": distance, "dipole_moment": 0.0}


def test_a_log_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qm9_level, "computed", made_up)
    untold = Drawn("", 0.0, "untold", tasks(4.0, 3, ""))  # 4, 5, 6
    told = Drawn("homo_lumo_gap", 5.0, "guidance 1", tasks(1.0, 4, "homo_lumo_gap"))  # 1, 2, 3, 4
    path, log = tmp_path / "tasks.jsonl", tmp_path / "log.jsonl"
    write_tasks(qm9_level.in_turns([untold.tasks, told.tasks]), path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    # Cut off after five of seven: the last one of those told nothing and the last told are absent.
    text = "".join(json.dumps(qm9_level.solved(line)) + "\n" for line in lines[:5])
    log.write_text(text + '{"id": "cut o')
    rows = table([untold, told], NoData(), qm9_level.read_log(log))["homo_lumo_gap"]["5"]
    assert rows.pop("untold") == {
        "computed": "3/3", "mean_absolute_error": pytest.approx(2 / 3), "values": [4, 5, 6],
    }  # fmt: skip
    assert rows.pop("guidance 1") == {
        "computed": "1/4", "mean_absolute_error": 4.0, "values": [1],
    }  # fmt: skip
    assert rows == LIMITS


def test_a_failed_calculation_is_a_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qm9_level, "computed", made_up)
    (unsolvable,) = tasks(7.0, 1, "")
    line = qm9_level.solved(unsolvable)
    assert line["id"] == unsolvable["id"]
    assert line["found"] is None


def test_what_the_log_has_is_not_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, asked = tmp_path / "log.jsonl", tasks(1.0, 2, "")
    text = "".join(json.dumps({"id": each["id"], "found": None}) + "\n" for each in asked)
    log.write_text(text)
    qm9_level.compute_all(asked, log, processes=1)
    assert log.read_text() == text
    assert "0 of 2 molecules" in capsys.readouterr().out


def test_ids_tell_geometries_and_wishes_apart() -> None:
    (gap,), (dear,) = tasks(1.0, 1, "homo_lumo_gap"), tasks(1.0, 1, "polarizability")
    (moved,), (rounded,) = tasks(1.001, 1, "homo_lumo_gap"), tasks(1 + 1e-9, 1, "homo_lumo_gap")
    assert len({gap["id"], dear["id"], moved["id"]}) == 3
    assert rounded == gap


def test_turns_are_fair_wherever_they_are_cut() -> None:
    groups = [tasks(first, num, "") for first, num in ((1.0, 1), (10.0, 3), (20.0, 3))]
    firsts = [each["positions"][1][2] for each in qm9_level.in_turns(groups)]
    assert firsts == [1, 10, 20, 11, 21, 12, 22]


def test_the_check_is_of_those_that_were_computed() -> None:
    known = NoData()
    names = ("homo_lumo_gap", "dipole_moment", "polarizability")
    known.data = type("Labels", (), {"labels": dict.fromkeys(names, torch.tensor([1.0, 2.0]))})()
    found = known.check([0, 1], [dict.fromkeys(names, 1.25), None])
    assert found == {"molecules": 1} | {f"largest_error_{name}": 0.25 for name in names}
    assert errors_of([None], "dipole_moment", 1.0)["mean_absolute_error"] is None
    assert found_of(tasks(1.0, 1, ""), {}) == [None]
