"""The example plugin, installed by pip beside a broken one, and used by its names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

EXAMPLE = Path(__file__).parents[1] / "examples" / "adit-example-plugin"
BROKEN = "[adit.relaxers]\nshattered = shattered:make\ncolonless = no colon here\n"


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that pip has filled, and another package that raises when imported."""
    source = tmp_path_factory.mktemp("source") / "plugin"  # a build writes into its folder
    shutil.copytree(EXAMPLE, source)
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", site, source],
        check=True,
        capture_output=True,
    )
    info = site / "shattered-2.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(BROKEN)
    (site / "shattered.py").write_text("raise RuntimeError('in pieces')\n")
    return site


def adit(strangers: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "adit_plugins.cli", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(strangers)},
        capture_output=True,
        text=True,
    )


def test_the_exporter_serves_its_suffix(
    strangers: Path, tiny_checkpoint: str, tmp_path: Path
) -> None:
    command = ("generate", "--checkpoint", tiny_checkpoint, "--num", "3", "--num-steps", "2")
    done = adit(strangers, *command, "--out", "samples.traj", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frames = ase.io.read(tmp_path / "samples.traj", ":")
    assert [atoms.info["adit"]["index"] for atoms in frames] == [0, 1, 2]


def test_the_relaxer_has_its_name(strangers: Path, tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    ase.io.write(tmp_path / "copper.extxyz", atoms)
    done = adit(
        strangers, "relax", "copper.extxyz", "--relaxer", "emt", "--out", "relaxed.extxyz",
        "--workers", "1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    relaxed = ase.io.read(tmp_path / "relaxed.extxyz")
    assert abs(relaxed.get_forces()).max() < 0.05
    assert relaxed.get_potential_energy() == pytest.approx(-0.028, abs=0.005)  # fcc copper of EMT


def test_a_broken_plugin_is_named_and_breaks_nothing_else(strangers: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "copper.extxyz", bulk("Cu"))
    command = ("relax", "copper.extxyz", "--out", "relaxed.extxyz", "--relaxer")
    done = adit(strangers, *command, "shattered", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "Plugin 'shattered' of adit.relaxers, from shattered 2.0, is broken" in line
    assert "RuntimeError: in pieces" in line


def test_doctor_says_what_is_registered_by_whom(strangers: Path, tmp_path: Path) -> None:
    done = adit(strangers, "doctor", cwd=tmp_path)
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if len(line.split()) > 1}
    assert lines["emt"].endswith("adit.relaxers, from adit_example_plugin 1.0")
    assert lines["traj"].endswith("adit.exporters, from adit_example_plugin 1.0")
    assert "adit.relaxers, from adit_plugins 0.1.0" in lines["chgnet"]
    assert "from shattered 2.0, is broken: RuntimeError: in pieces" in lines["shattered"]
    assert "not of the form module:attribute" in lines["colonless"]
    assert done.returncode == 0
