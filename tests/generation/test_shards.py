"""Samples in shards: the same from any number of workers, and after any interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adit_plugins import ADiTGenerator, read_structures
from adit_plugins.campaign.executors import SerialExecutor
from adit_plugins.cli import main
from adit_plugins.generation.shards import GenerationError, ShardedGeneration, read_shards
from adit_plugins.processes import DIED, LostError


def adit(*arguments: object) -> int:
    status: int | None = main([str(each) for each in arguments], standalone_mode=False)
    return status or 0


def command(checkpoint: str, out: Path, *more: object) -> tuple[object, ...]:
    recipe = ("--checkpoint", checkpoint, "--num-steps", 2, "--precision", "float32")
    return ("generate", *recipe, "--num", 50, "--shard-size", 12, "--out", out, *more)


def samples(folder: Path) -> list[tuple[str, list[int], list[list[float]]]]:
    return [
        (s.id, s.atomic_numbers.tolist(), np.asarray(s.positions).tolist())
        for s in read_shards(folder)
    ]


def assert_the_same(folder: Path, other: Path) -> None:
    """Positions to rounding: a worker has one thread, which adds in another order than two."""
    for ours, theirs in zip(samples(folder), samples(other), strict=True):
        assert ours[:2] == theirs[:2]
        np.testing.assert_allclose(ours[2], theirs[2], atol=1e-3)


def test_two_workers_two_machines_and_one_process_make_the_same_samples(
    tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, parts = (tmp_path / name for name in ("one", "two", "parts"))
    assert adit(*command(tiny_checkpoint, one, "--workers", 0)) == 0
    assert "50 samples in" in capsys.readouterr().out
    assert adit(*command(tiny_checkpoint, two, "--workers", 2)) == 0
    for machine in (1, 0):
        assert (
            adit(*command(tiny_checkpoint, parts, "--workers", 0, "--shard", f"{machine}/2")) == 0
        )
    expected = samples(one)
    assert [each[0] for each in expected] == [f"tiny/0/{i}" for i in range(50)]
    assert_the_same(two, one)
    assert_the_same(parts, one)
    assert len(list(one.glob("shard-*.extxyz"))) == 5
    assert adit("merge", one, "--out", tmp_path / "all.db") == 0
    merged = read_structures(tmp_path / "all.db")
    assert [atoms.info["adit"]["id"] for atoms in merged] == [each[0] for each in expected]
    # And they are the samples of one file.
    alone = ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=2, precision="float32").samples(50)
    for sample, (identity, numbers, _) in zip(alone, expected, strict=True):
        assert (sample.id, sample.atomic_numbers.tolist()) == (identity, numbers)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_nothing_is_made_twice(
    tiny_checkpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [str(each) for each in command(tiny_checkpoint, out, "--workers", 1)]
    process = subprocess.Popen([sys.executable, "-m", "adit_plugins.cli", *arguments])
    deadline = time.monotonic() + 120
    while len(list(out.glob("records/shard-*.json"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob("records/shard-*.json")}
    assert before
    assert adit(*arguments) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert [each[0] for each in samples(out)] == [f"tiny/0/{i}" for i in range(50)]


class Losing(SerialExecutor):
    """Loses the workers of its first tasks."""

    def __init__(self, losses: int) -> None:
        self.losses = losses

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.losses -= 1
        if self.losses < 0:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        future.set_exception(LostError("gone", DIED, []))
        return future


def plan(checkpoint: str, out: Path, **changes: Any) -> ShardedGeneration:
    recipe = {"num_steps": 2, "precision": "float32"} | changes
    generator = ADiTGenerator(checkpoint=checkpoint, **recipe)
    return ShardedGeneration.open(out, generator, 7, 3)


def test_a_lost_worker_costs_nothing_and_three_are_told(
    tiny_checkpoint: str, tmp_path: Path
) -> None:
    executor: Executor = Losing(2)
    assert plan(tiny_checkpoint, tmp_path / "a").run(executor)["written"] == 7
    with pytest.raises(LostError):
        plan(tiny_checkpoint, tmp_path / "b").run(Losing(100))


def test_what_does_not_fit_is_one_clear_line(tiny_checkpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = plan(tiny_checkpoint, out)
    with pytest.raises(GenerationError, match="lacks 3 of 3 shards"):
        list(read_shards(out))
    made.run(SerialExecutor())
    with pytest.raises(GenerationError, match="num_steps was 2, not 3"):
        plan(tiny_checkpoint, out, num_steps=3)
    plan(tiny_checkpoint, out, batch_size=2)  # changes no sample
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(GenerationError, match="no folder of shards"):
        plan(tiny_checkpoint, tmp_path / "other")
    lines = (out / "shard-000001.extxyz").read_text().splitlines(keepends=True)
    size = int(lines[0])
    (out / "shard-000001.extxyz").write_text("".join(lines[: size + 2]))
    with pytest.raises(GenerationError, match="holds 1 samples and its record says 3"):
        list(read_shards(out))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--unique",), "--unique looks at all samples"),
        (("--until", 3, "--valid-only"), "--until looks at all samples"),
        (("--format", "nonsense"), "unknown suffix '.nonsense'"),
        (("--executor", "abacus"), "No plugin 'abacus'"),
    ],
)
def test_options_that_files_cannot_have_are_refused(
    tiny_checkpoint: str, tmp_path: Path, more: tuple[object, ...], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        adit(*command(tiny_checkpoint, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_counts_of_what_was_thrown_away_come_from_all_shards(
    tiny_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert adit(*command(tiny_checkpoint, out, "--workers", 0, "--valid-only")) == 0
    counts = [json.loads(path.read_text())["counts"] for path in out.glob("records/shard-*.json")]
    assert sum(each["made"] for each in counts) == 50
    invalid = sum(each.get("invalid", 0) for each in counts)
    assert invalid + len(samples(out)) == 50
    assert (
        f"thrown away: {f'{invalid} invalid' if invalid else 'nothing'}" in capsys.readouterr().out
    )
