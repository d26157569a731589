"""One run in two processes: the steps of one, every way to end, another number to go on with."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_training import TINY, make_data

from adit_model import ADiT
from adit_model.data import PreparedData
from adit_model.training import distributed
from adit_model.training.cli import main
from adit_model.training.distributed import World, backend_of, joined
from adit_model.training.settings import TrainingError

# Each process leaves its weights beside the run folder.
EACH_RANK = """
import sys, torch
from adit_model.training import cli
from adit_model.training.trainer import Trainer
save = Trainer.save
def both(self, wait=False):
    torch.save([p.detach() for p in self.parameters], f"{self.config.out}-{self.world.rank}.pt")
    save(self, wait)
Trainer.save = both
raise SystemExit(cli.main(sys.argv[1:]))
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def unseen_too(folder: Path) -> list[str]:
    """Data with a val split."""
    paths = make_data(folder)
    for path in paths:
        data = PreparedData.load(Path(path))
        split = data.split.clone()
        split[5::10] = 1
        dataclasses.replace(data, split=split).save(Path(path))
    return paths


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_two_processes_make_the_steps_of_one_and_one_goes_on_with_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With Muon, which has AdamW for what is no hidden matrix."""
    common = ["autoencoder", "--data", *unseen_too(tmp_path), *TINY, "--optimizer", "muon"]
    common += ["--decay", "0.001", "--warmup-steps", "2", "--validate-minutes", "1e-9"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*common, "--accumulate", "2", "--steps", "6", "--out", str(one)]) == 0
    script = tmp_path / "each_rank.py"
    script.write_text(EACH_RANK)
    command = [*TORCHRUN, str(script), *common, "--steps", "3", "--out", str(two)]
    subprocess.run(command, check=True, timeout=120)
    first, second = (torch.load(tmp_path / f"two-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    capfd.readouterr()
    assert main([*common, "--accumulate", "2", "--steps", "6", "--out", str(two), "--resume"]) == 0
    assert "processes: 2 until here, 1 from here on" in capfd.readouterr().out
    expected, found = rows(one), rows(two)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(expected, found, strict=True):
        for name in a:
            if name.endswith(("_loss", "norm")):
                assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5), (name, a["step"])
    assert "molecule_validation_loss" in found[2]
    # More than rounding sets these apart: the second process draws other batches than the first.
    alone = tmp_path / "alone"
    assert main([*common, "--steps", "3", "--out", str(alone)]) == 0
    assert rows(alone)[2]["grad_norm"] != pytest.approx(found[2]["grad_norm"], rel=2e-3)


def start_two(arguments: list[str]) -> list[subprocess.Popen[str]]:
    """As torchrun does, but nobody looks after them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "adit_model.training", *arguments],
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]


def wait_for_lines(log: Path, number: int, processes: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > number):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_signal_ends_all_after_the_same_step_and_a_death_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["autoencoder", "--data", *make_data(tmp_path), "--out", str(run), *TINY]
    arguments += ["--minutes", "5"]
    both = start_two(arguments)
    wait_for_lines(run / "log.jsonl", 3, both)
    both[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [130, 130], said
    assert "continue with --resume" in said[0] and not said[1]
    assert json.loads((run / "training.json").read_text())["processes"] == 2

    before = len(rows(run))
    first, second = both = start_two([*arguments, "--resume"])
    wait_for_lines(run / "log.jsonl", before + 3, both)
    second.kill()
    _, error = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 2
    (line,) = [each for each in error.splitlines() if each.startswith("Error")]
    assert "process 1 of 2 has lost another one" in line and "--resume" in line
    ADiT.from_pretrained(run / "model")
    number = rows(run)[-1]["step"]
    assert f"step {number}" in line or f"step {number + 1}" in line
    assert main([*arguments, "--resume", "--steps", str(int(number) + 3)]) == 0


def test_batches_of_a_step_are_dealt_out_once() -> None:
    dealt = [list(World(rank, 3).parts(2)) for rank in range(3)]
    assert dealt == [[0, 1], [2, 3], [4, 5]]
    assert list(World().parts(6)) == [part for each in dealt for part in each]


def test_gpus_move_gradients_by_nccl_and_each_process_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What would run on GPUs, as far as it can be told without one."""
    assert backend_of(torch.device("cuda", 1)) == "nccl"
    assert backend_of(torch.device("cpu")) == "gloo"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    wrong = pytest.raises(TrainingError, match="2 GPUs: torchrun --nproc-per-node 2")
    with wrong, joined(torch.device("cuda")):
        pass
    asked = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(
        distributed.distributed, "init_process_group", lambda name, **_: asked.append(name)
    )
    monkeypatch.setattr(distributed.distributed, "new_group", lambda backend: asked.append(backend))
    monkeypatch.setattr(distributed.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed.distributed, "barrier", lambda group: None)
    monkeypatch.setattr(distributed.distributed, "destroy_process_group", lambda: None)
    with joined(torch.device("cuda")) as (world, device):
        assert (world.rank, world.size, device) == (1, 4, torch.device("cuda", 1))
    assert asked == [torch.device("cuda", 1), "nccl", "gloo"]
