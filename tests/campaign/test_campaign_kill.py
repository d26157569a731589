"""Kill -9 of the driver or of a worker, at twenty random moments: the table stays the same."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ase.io
import cheap_potential
import numpy as np
import psutil
import pytest

from adit_plugins.campaign import Store

KILLS, SEED = 20, 1
STRUCTURES = 48
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(Path(__file__).parents[1]),
    cheap_potential.PAUSE: "0.2",
    "OMP_NUM_THREADS": "1",
}
MEANS = ("--workers", "2", "--chunk-size", "3")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The real driver: begins, or goes on where there is a store."""
    if (folder / "results.db").exists():
        what: tuple[str, ...] = ("--resume", str(folder), "--relaxer", "cheap_potential:make")
    else:
        what = (str(folder.parent / "crystals.extxyz"), "--out", str(folder),
                "--relaxer", "cheap_potential:make", "--max-steps", "5")  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "adit_plugins.cli", "discover", *what, *MEANS],
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def table(folder: Path) -> list[tuple[dict[str, Any], np.ndarray, float | None]]:
    """Verdicts, geometry and energy of every row; not the time that it took."""
    with Store(folder) as store:
        rows = []
        for row in store.rows():
            columns = dict(row.key_value_pairs)
            columns.pop("relax_seconds", None)
            rows.append((columns, row.positions, row.get("energy")))
        assert store.claims() == []
        return rows


def files(folder: Path) -> dict[str, bytes]:
    names = ("crystals.extxyz", "relaxed.extxyz", "ranking.csv", "funnel.csv")
    found = {name: (folder / name).read_bytes() for name in names}
    found["relaxed.extxyz"] = b""  # holds the seconds of each relaxation
    return found


def strike(process: subprocess.Popen[bytes], rng: random.Random) -> str | None:
    """Kill the driver or one of its workers; None if there was nothing to kill any more."""
    workers = [
        child
        for child in psutil.Process(process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]
    if process.poll() is not None:
        return None
    if workers and rng.random() < 0.5:
        rng.choice(workers).kill()
        return "worker"
    process.kill()
    process.wait()
    return "driver"


@pytest.mark.slow
def test_twenty_kills_end_in_the_same_table(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "crystals.extxyz", cheap_potential.crystals(STRUCTURES))
    whole = start(tmp_path / "whole")
    begun = time.monotonic()
    assert whole.wait(timeout=300) == 0
    duration = time.monotonic() - begun
    expected = table(tmp_path / "whole")
    assert len(expected) == STRUCTURES

    rng = random.Random(SEED)
    victims: list[str] = []
    rounds = 0
    while len(victims) < KILLS:
        folder = tmp_path / f"round{rounds}"
        rounds += 1
        process = start(folder)
        while process.poll() is None:
            time.sleep(rng.uniform(0.2, duration * 0.7))
            if process.poll() is None and len(victims) < KILLS:
                victim = strike(process, rng)
                victims += [victim] if victim else []
                if victim == "driver":
                    process = start(folder)
        assert process.returncode == 0, process.stderr and process.stderr.read().decode()
        found = table(folder)
        assert [row[0] for row in found] == [row[0] for row in expected]
        assert [row[2] for row in found] == [row[2] for row in expected]
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine[1], theirs[1])
        assert files(folder) == files(tmp_path / "whole")
        shutil.rmtree(folder)
    print(f"\n{len(victims)} kills in {rounds} campaigns: {', '.join(victims)}")
    assert {"driver", "worker"} == set(victims)
