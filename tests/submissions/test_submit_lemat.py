"""`adit submit lemat-genbench`: what it writes is what that benchmark's runner reads."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk, molecule
from click.testing import CliRunner, Result
from submission_rules import check_lemat_csv

from adit_plugins import ADiTGenerator, read_structures
from adit_plugins.cli import main
from adit_plugins.submissions.lemat_genbench import card_figures


def submit(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["submit", "lemat-genbench", *arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_generated_crystals_and_their_figures(place: Path, tiny_checkpoint: str) -> None:
    options = ("--checkpoint", tiny_checkpoint, "--num", "5", "--num-steps", "3", "--seed", "2")
    result = submit("--out", "out", *options)
    assert result.exit_code == 0, result.output
    found = check_lemat_csv(place / "out" / "structures.csv", 5)
    expected = ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=3, seed=2).generate(5)
    assert all(
        one.matches(other) or one == other for one, other in zip(found, expected, strict=True)
    )
    form = json.loads((place / "out" / "submission.json").read_text())
    assert form["pre_relaxed"] is False and form["relaxation"] is None
    assert form["for_the_leaderboard"] is False and form["filtered"] is False
    assert form["num_structures"] == form["inference_structures"] == 5
    assert form["inference_seconds"] >= 0 and form["peak_memory_MB"] > 100
    parameters = ADiTGenerator(checkpoint=tiny_checkpoint).model.parameters()
    assert form["num_parameters"] == sum(each.numel() for each in parameters)
    assert form["settings"]["seed"] == 2
    assert len(read_structures("out/structures.csv")) == 5  # our own reader understands it too


def test_the_releases_card_says_how_it_was_trained() -> None:
    figures = card_figures(None)
    assert "min" in figures["card_training"] and "million" in figures["card_weights"]
    assert card_figures("hf:no/where") == {}


def test_samples_of_ours_in_a_file_bring_their_card(place: Path) -> None:
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.info["adit"] = {"id": "adit-joint/0/0", "checkpoint": "adit-joint"}
    ase.io.write("ours.extxyz", salt)
    assert submit("ours.extxyz", "--out", "out", "--num", "1").exit_code == 0
    form = json.loads((place / "out" / "submission.json").read_text())
    assert form["checkpoint"] == "adit-joint" and "min" in form["card_training"]


def test_relaxing_first_is_said_and_a_failure_stays_in_the_set(place: Path) -> None:
    crystals = [bulk("Cu", a=a) for a in (3.5, 3.8)] + [bulk("Fe")]  # EMT has no iron
    ase.io.write("in.extxyz", crystals)
    emt = ("--relax", "ase.calculators.emt:EMT", "--workers", "0", "--num", "3")
    result = submit("in.extxyz", "--out", "out", *emt)
    assert result.exit_code == 0, result.output
    found = check_lemat_csv(place / "out" / "structures.csv", 3)
    assert [each.volume for each in found[:2]] == pytest.approx([11.55, 11.55], abs=0.1)
    assert found[2].volume == pytest.approx(crystals[2].cell.volume)
    relaxation = json.loads((place / "out" / "submission.json").read_text())["relaxation"]
    assert (relaxation["converged"], relaxation["failed_and_given_unrelaxed"]) == (2, 1)
    assert (relaxation["fmax"], relaxation["max_steps"]) == (0.05, 500)


def test_what_adit_relax_wrote_is_known_as_relaxed(place: Path) -> None:
    ase.io.write("in.extxyz", [bulk("Cu", a=3.5), bulk("Cu", a=3.7)])
    relax = ["relax", "in.extxyz", "--relaxer", "ase.calculators.emt:EMT", "--workers", "0"]
    assert CliRunner().invoke(main, relax).exit_code == 0
    assert submit("relaxed.extxyz", "--out", "out", "--num", "2").exit_code == 0
    form = json.loads((place / "out" / "submission.json").read_text())
    assert form["pre_relaxed"] is True
    assert form["relaxation"]["relaxer"] == "ase.calculators.emt:EMT"


def test_wrong_numbers_and_molecules_are_refused(place: Path) -> None:
    ase.io.write("two.extxyz", [bulk("Cu"), bulk("Ag")])
    ase.io.write("water.extxyz", molecule("H2O"))
    for arguments, part in (
        (("two.extxyz",), "2 structures, not 2500"),
        (("water.extxyz", "--num", "1"), "is no crystal"),
        (("none.extxyz",), "no such file"),
        (("two.extxyz", "--num", "2", "--relax", "chgnut"), "'chgnut'"),
    ):
        result = submit(*arguments, "--out", "out")
        assert result.exit_code == 2
        assert part in result.stderr and result.stderr.count("\n") == 1
        assert not (place / "out" / "structures.csv").exists()


def test_all_2500_rows_fit_the_readers_field_limit(place: Path) -> None:
    copies = [bulk("NaCl", "rocksalt", a=5.6, cubic=True)] * 2500
    ase.io.write("all.extxyz", copies)
    assert submit("all.extxyz", "--out", "out").exit_code == 0
    csv.field_size_limit(sys.maxsize)
    assert len(check_lemat_csv(place / "out" / "structures.csv", 2500)) == 2500
    assert json.loads((place / "out" / "submission.json").read_text())["for_the_leaderboard"]
