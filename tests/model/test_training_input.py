"""What is asked of training: options, budgets, data, a run to resume."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_training import TINY, make_data, stages

from adit_model import ADiT
from adit_model.checkpoints import CheckpointNotice
from adit_model.config import ADiTConfig
from adit_model.data import PreparedData
from adit_model.training.cli import main
from adit_model.training.stages import tell_of_larger

_ = stages  # a fixture


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--data", "nowhere.safetensors"], ["nowhere.safetensors", "adit data prepare"]),
        (["--tokens", "0"], ["tokens", "0"]),
        (["--precision", "int4"], ["int4", "bfloat16"]),
        (["--optimizer", "sgd"], ["sgd", "muon"]),
        (["--width", "33"], ["33"]),
        (["--size", "S"], ["--size S", "--width"]),
        (["--resume"], ["no run to resume"]),
        (["--shares", "1"], ["shares"]),
    ],
)
def test_bad_options_are_one_clear_line(
    tmp_path: Path, change: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path)
    out = tmp_path / "run"
    arguments = ["autoencoder", "--data", *data, "--out", str(out), "--steps", "1", *TINY, *change]
    try:
        status: Any = main(arguments)
    except SystemExit as left:  # what argparse sees itself
        status = left.code
    assert status == 2
    message = capsys.readouterr().err
    assert message.startswith("Error: ")
    assert message.count("\n") == 1
    for word in words:
        assert word in message
    assert not out.exists()


def test_a_budget_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["autoencoder", "--data", *make_data(tmp_path), "--out", str(tmp_path / "r")]) == 2
    assert "--minutes" in capsys.readouterr().err


def test_damaged_prepared_data_is_refused(tmp_path: Path) -> None:
    path = Path(make_data(tmp_path)[0])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"crystals.safetensors.*adit data prepare"):
        PreparedData.load(path)


def test_resume_needs_nothing_but_data_and_out(
    stages: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = stages
    out = tmp_path / "run"
    base = ["denoiser", "--data", *data, "--out", str(out), "--threads", "1", "--device", "cpu"]
    begin = [*base, "--steps", "1", "--autoencoder", str(folder / "one" / "model"), *TINY]
    assert main(begin) == 0
    before = ADiT.from_pretrained(out / "model")
    assert main([*base, "--steps", "2", "--tokens", "99", "--resume"]) == 0
    after = ADiT.from_pretrained(out / "model")
    assert after.config.denoiser == before.config.denoiser
    assert "--tokens: " in capsys.readouterr().out
    rows = [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]  # the last step of a run is always logged


def test_data_beyond_the_autoencoder_are_told_of(
    stages: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, data = stages
    prepared = PreparedData.load(Path(data[0]))
    one = int(prepared.num_atoms.max())
    known = ADiTConfig(size_histogram={prepared.kind: [0] * (one - 1) + [1]})
    with pytest.warns(CheckpointNotice, match=f"at most {one - 1} atoms.*up to {one}"):
        tell_of_larger(known, [prepared], "small")
    begin = ["denoiser", "--data", *data, "--out", str(tmp_path / "run"), "--steps", "1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointNotice)
        begin += ["--threads", "1", "--autoencoder", str(folder / "one" / "model"), *TINY]
        assert main(begin) == 0
