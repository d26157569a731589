"""Ctrl-C and SIGTERM: what was finished is kept, and said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.db
import ase.io
import pytest
from ase.build import bulk
from test_cli import FAST, place

from adit_plugins.structures.reading import read_structures

_ = place  # a fixture


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """A real process, as Ctrl-C needs one; returns once its first progress is on stderr."""
    command = [sys.executable, "-m", "adit_plugins.cli", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    assert "/" in process.stderr.readline()
    return process


def interrupt(
    process: subprocess.Popen[str], after: float, by: signal.Signals = signal.SIGINT
) -> str:
    """Ctrl-C (or another signal) after some seconds; returns stderr."""
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(after)
    process.send_signal(by)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return errors


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_keep_the_finished_samples(
    place: Path, tiny_checkpoint: str, by: signal.Signals
) -> None:
    process = start(
        "generate", "--checkpoint", tiny_checkpoint, "--num", "100000", "--batch-size", "4",
        "--workers", "0", "--out", "x.extxyz", *FAST,
    )  # fmt: skip
    message = interrupt(process, after=1.5, by=by).splitlines()[-1]
    structures = read_structures("x.extxyz")
    assert f"Interrupted: {len(structures)} of 100000 samples" in message
    assert structures
    assert [path.name for path in place.iterdir()] == ["x.extxyz"]


def test_ctrl_c_before_anything_is_finished(place: Path, tiny_checkpoint: str) -> None:
    process = start(
        "generate", "--checkpoint", tiny_checkpoint, "--num", "30000", "--batch-size", "30000",
        "--out", "x.extxyz", *FAST,
    )  # fmt: skip
    assert "0 of 30000" in interrupt(process, after=0.1)
    assert list(place.iterdir()) == []


def test_ctrl_c_in_discover_leaves_valid_results(place: Path, tiny_checkpoint: str) -> None:
    process = start(
        "discover", "--checkpoint", tiny_checkpoint, "--num", "100000", "--batch-size", "4",
        "--out", "found", *FAST,
    )  # fmt: skip
    while not ase.db.connect(place / "found" / "results.db", use_lock_file=False).count():
        assert process.poll() is None
        time.sleep(0.2)
    message = interrupt(process, after=0.1).splitlines()[-1]
    num = len(read_structures(place / "found" / "crystals.extxyz"))
    assert re.fullmatch(
        rf"Interrupted: {num} structures are in found/(, \d+ of them not judged yet)?; "
        r"adit discover --resume found goes on\.",
        message,
    )
    assert [path.name for path in place.glob("**/.*")] == [".driver.lock"]


def test_ctrl_c_while_workers_start_prints_no_traceback(place: Path) -> None:
    ase.io.write("oxide.extxyz", bulk("MgO", "rocksalt", 4.3))
    process = subprocess.Popen(
        [sys.executable, "-m", "adit_plugins.cli", "discover", "oxide.extxyz", "--workers", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    while "crystals relaxed: 0/1" not in process.stderr.readline():
        assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to this process and its workers
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()) == (
        130, ["Interrupted: 1 structures are in results/, 1 of them not judged yet; "
              "adit discover --resume results goes on."],
    )  # fmt: skip
