"""`adit improve` as a person uses it: what it shows, trains, resumes and refuses."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from adit_model import ADiT
from adit_model.data import PreparedData
from adit_plugins.cli import main
from adit_plugins.improvement import Campaign
from adit_plugins.improvement.lineage import KEY, parent_of

HIGH = ["--max-hull", "0.5"]
QUICK = [
    "--tokens", "64", "--steps", "3", "--threads", "1", "--precision", "float32",
    "--validate-minutes", "0", "--log-steps", "1", "--device", "cpu",
]  # fmt: skip


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["improve", *map(str, arguments)])


def assert_error(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    for part in parts:
        assert part in line, line


@pytest.fixture(scope="module")
def improved(
    found_campaign: Path,
    prepared_crystals: Path,
    prepared_molecules: Path,
    told_checkpoint: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("improved") / "run"
    files = [
        "--data",
        prepared_crystals,
        prepared_molecules,
        "--shares",
        "0.4",
        "0.6",
        "--share",
        "0.25",
    ]
    result = run(found_campaign, *files, *HIGH, *QUICK, "--init", told_checkpoint, "--out", out)
    assert result.exit_code == 0, result.output
    assert "3 of 9 crystals are picked" in result.stdout
    assert "seen so many times" in result.stdout
    return out


def test_the_checkpoint_says_where_it_is_from(improved: Path, told_checkpoint: str) -> None:
    model, parent = ADiT.from_pretrained(improved / "model"), ADiT.from_pretrained(told_checkpoint)
    assert model.name == "told-r1"
    (entry,) = model.config.provenance[KEY]
    assert entry["parent"] == f"told {parent.hash}"
    assert entry["picks"] == {"crystal": 3, "molecule": 1}
    assert entry["campaigns"][0]["potentials"] == ["mace-adit"]
    assert len(entry["campaigns"][0]["id"]) == 12
    options = entry["options"]
    assert (options["share"], options["max_hull"], options["seed"]) == (0.25, 0.5, 0)
    assert options["steps"] == 3 and options["data"][0] == "crystals.safetensors"
    assert model.config.provenance["continued_from"].startswith("told ")
    card = (improved / "model" / "README.md").read_text()
    assert "# told-r1" in card and "3 crystals, 1 molecule |" in card and "mace-adit" in card


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_processes_pick_and_train_together(
    improved: Path, found_campaign: Path, told_checkpoint: str, tmp_path: Path
) -> None:
    """The first one alone shows and writes; its picks are those of a run in one process."""
    data = json.loads((improved / "training.json").read_text())["data"][:2]
    out = tmp_path / "run"
    command = [
        *TORCHRUN, "-m", "adit_plugins.cli", "improve", found_campaign, "--data", *data, *HIGH,
        *QUICK, "--shares", "0.4", "0.6", "--share", "0.25", "--init", told_checkpoint,
        "--out", out,
    ]  # fmt: skip
    said = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    for line in ("3 of 9 crystals are picked", "seen so many times"):
        assert said.stdout.count(line) == 1
    settings = json.loads((out / "training.json").read_text())
    assert settings["processes"] == 2
    assert settings["shares"] == pytest.approx([0.3, 0.45, 0.1, 0.15])
    assert (out / "picks.csv").read_bytes() == (improved / "picks.csv").read_bytes()
    picks = PreparedData.load(out / "picks-crystal.safetensors")
    expected = PreparedData.load(improved / "picks-crystal.safetensors")
    assert torch.equal(picks.atomic_numbers, expected.atomic_numbers)
    model = ADiT.from_pretrained(out / "model")
    assert model.name == "told-r1" and model.config.provenance["denoiser"]["processes"] == 2
    assert "# told-r1" in (out / "model" / "README.md").read_text()


def test_picks_are_trained_on_beside_the_data(improved: Path) -> None:
    settings = json.loads((improved / "training.json").read_text())
    names = [Path(path).name for path in settings["data"]]
    assert names[2:] == ["picks-crystal.safetensors", "picks-molecule.safetensors"]
    assert settings["shares"] == pytest.approx([0.3, 0.45, 0.1, 0.15])
    picks = PreparedData.load(improved / "picks-crystal.safetensors")
    assert picks.num_atoms.tolist() == [2, 2, 2] and not picks.split.any()
    assert set(picks.labels) == {"density", "space_group"}
    with (improved / "picks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["crystal"] * 3 + ["molecule"]
    assert float(rows[0]["energy_above_hull"]) < float(rows[2]["energy_above_hull"])


def test_sizes_are_those_of_all_data_of_a_kind(improved: Path, told_checkpoint: str) -> None:
    histogram = ADiT.from_pretrained(improved / "model").config.size_histogram
    assert histogram["crystal"] == [0, 0, 33]  # thirty of the data and three picks
    assert histogram["molecule"] == [0, 0, 0, 10, 0, 1, 1]


def test_a_run_is_resumed_with_its_picks(
    improved: Path, found_campaign: Path, told_checkpoint: str
) -> None:
    data = json.loads((improved / "training.json").read_text())["data"][:2]
    command = [found_campaign, "--data", *data, *HIGH, *QUICK, "--out", improved]
    assert_error(run(*command, "--init", told_checkpoint), "--resume")
    longer = [*command, "--shares", "0.4", "0.6", "--share", "0.25", "--steps", "5", "--resume"]
    result = run(*longer)
    assert result.exit_code == 0, result.output
    model = ADiT.from_pretrained(improved / "model")
    assert model.name == "told-r1" and len(model.config.provenance[KEY]) == 1
    assert model.config.provenance["denoiser"]["steps"] == 5
    assert "after 5 steps" in result.stdout


def test_ctrl_c_leaves_a_checkpoint_that_resumes(
    found_campaign: Path, prepared_crystals: Path, told_checkpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ["--data", str(prepared_crystals), *HIGH, *QUICK[:2], *QUICK[4:], "--out", str(out)]
    command = [str(found_campaign), *options, "--init", told_checkpoint, "--minutes", "5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "adit_plugins.cli", "improve", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    log, deadline = out / "log.jsonl", time.monotonic() + 240
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "--resume" in errors
    assert "# told-r1" in (out / "model" / "README.md").read_text()
    steps = ADiT.from_pretrained(out / "model").config.provenance["denoiser"]["steps"]
    result = run(*command, "--resume", "--steps", str(steps + 2))
    assert result.exit_code == 0 and f"after {steps + 2} steps" in result.stdout


def test_a_second_round_knows_the_first(improved: Path) -> None:
    parent = parent_of([], str(improved / "model"))
    assert len(parent.rounds) == 1 and parent.next_name == "told-r2"


def test_dry_run_shows_picks_and_reasons_and_writes_nothing(
    found_campaign: Path, prepared_crystals: Path, told_checkpoint: str, tmp_path: Path
) -> None:
    before = set(found_campaign.iterdir())
    result = run(found_campaign, *HIGH, "--dry-run", "--init", told_checkpoint)
    assert result.exit_code == 0, result.output
    assert "4 of 9 crystals are picked" in result.stdout
    assert "1 are duplicates" in result.stdout and "eV/atom  test/0/3" in result.stdout
    assert "Not compared with the training data" in result.stdout
    result = run(
        found_campaign, *HIGH, "--dry-run", "--init", told_checkpoint, "--data", prepared_crystals
    )
    assert "1 are in the data's val or test split" in result.stdout
    assert "Not compared" not in result.stdout
    assert set(found_campaign.iterdir()) == before


def test_mistakes_are_one_line(
    found_campaign: Path,
    prepared_crystals: Path,
    prepared_molecules: Path,
    told_checkpoint: str,
    tmp_path: Path,
) -> None:
    rest = [
        "--data",
        prepared_crystals,
        "--out",
        tmp_path / "run",
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    init = ["--init", told_checkpoint]
    assert_error(run(tmp_path / "none", *rest), "No folder", "none")
    assert_error(run(tmp_path, *rest), "holds no campaign")
    assert_error(
        run(found_campaign, *init, *rest, "--max-hull", "-1"), "No pick is left", "of 9 crystals"
    )
    assert_error(run(found_campaign, *rest, "--share", "1"), "--share is 1", "above 0 and below 1")
    assert_error(run(found_campaign, "--steps", "1"), "--data and --out", "--dry-run")
    assert_error(
        run(found_campaign, "--data", prepared_crystals, "--out", tmp_path / "run"),
        "--steps or --minutes",
    )
    assert_error(run(found_campaign, *rest, *HIGH, "--init", tmp_path / "none"), "No checkpoint")
    assert_error(
        run(found_campaign, *HIGH, "--data", "none.safetensors", *rest[2:]), "none.safetensors"
    )
    assert_error(run(found_campaign, *rest, "--autoencoder", told_checkpoint), "--init")
    assert_error(run(found_campaign, *rest, "--resume"), "no run to resume")
    only = run(
        found_campaign,
        *init,
        *rest[2:],
        "--data",
        prepared_molecules,
        "--max-hull",
        "0.5",
        "--tokens",
        "8",
    )
    assert "have no data of their kind in --data" in only.output
    assert not (tmp_path / "none").exists()


def test_the_checkpoint_that_made_the_campaigns_is_the_default(told_checkpoint: str) -> None:
    weights = ADiT.from_pretrained(told_checkpoint).hash
    made = Campaign("one", "1", told_checkpoint, weights, [])
    assert parent_of([made], None).config.name == "told"
    of_files = Campaign("two", "2", None, "", [])
    assert parent_of([of_files], None).config.name == "adit-joint"
    other = Campaign("three", "3", None, "0" * 12, [])
    with pytest.raises(ValueError, match="Several checkpoints"):
        parent_of([made, other], None)
    with pytest.raises(ValueError, match="other weights"):
        parent_of([other], None)
    assert parent_of([made, other], told_checkpoint).config.name == "told"


def test_help_names_the_page_and_every_option_of_training() -> None:
    import contextlib
    import io

    from adit_model.training.cli import parser as training
    from adit_plugins.cli.improve import parser

    text = parser().format_help()
    assert "docs/improve.md" in text
    assert all(each in text for a in training()._actions for each in a.option_strings)
    with contextlib.redirect_stdout(io.StringIO()):
        assert run("--help").exit_code == 0
