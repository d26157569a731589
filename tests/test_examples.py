"""The example plugin, installed by pip beside the wheel and a broken one, and used by its names."""

from __future__ import annotations

import shutil
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from fresh_environment import ROOT, install, run

EXAMPLE = ROOT / "examples" / "adit-example-plugin"
BROKEN = "[adit.relaxers]\nshattered = shattered:make\ncolonless = no colon here\n"


@pytest.fixture(scope="module")
def adit(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, where pip has installed the example and another package raises at import."""
    source = tmp_path_factory.mktemp("source") / "plugin"  # a build writes into its folder
    shutil.copytree(EXAMPLE, source)
    install(installed, source)
    site = Path(next(iter((installed.parent / "lib").glob("python*")))) / "site-packages"
    info = site / "shattered-2.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(BROKEN)
    (site / "shattered.py").write_text("raise RuntimeError('in pieces')\n")
    return installed / "adit"


def test_the_exporter_serves_its_suffix(adit: Path, tiny_checkpoint: str, tmp_path: Path) -> None:
    command = ("generate", "--checkpoint", tiny_checkpoint, "--num", "3", "--num-steps", "2")
    run(adit, *command, "--out", "samples.traj", cwd=tmp_path)
    frames = ase.io.read(tmp_path / "samples.traj", ":")
    assert [atoms.info["adit"]["index"] for atoms in frames] == [0, 1, 2]


def test_the_relaxer_has_its_name(adit: Path, tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    ase.io.write(tmp_path / "copper.extxyz", atoms)
    run(adit, "relax", "copper.extxyz", "--relaxer", "emt", "--out", "relaxed.extxyz",
        "--workers", "1", cwd=tmp_path)  # fmt: skip
    relaxed = ase.io.read(tmp_path / "relaxed.extxyz")
    assert abs(relaxed.get_forces()).max() < 0.05
    assert relaxed.get_potential_energy() == pytest.approx(-0.028, abs=0.005)  # fcc copper of EMT


def test_a_broken_plugin_is_named_and_breaks_nothing_else(adit: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "copper.extxyz", bulk("Cu"))
    command = ("relax", "copper.extxyz", "--out", "relaxed.extxyz", "--relaxer")
    (line,) = run(adit, *command, "shattered", cwd=tmp_path, ok=False, both=True).splitlines()
    assert "Plugin 'shattered' of adit.relaxers, from shattered 2.0, is broken" in line
    assert "RuntimeError: in pieces" in line


def test_doctor_says_what_is_registered_by_whom(adit: Path, tmp_path: Path) -> None:
    report = run(adit, "doctor", cwd=tmp_path).splitlines()
    lines = {line.split()[1]: line for line in report if len(line.split()) > 1}
    assert lines["emt"].endswith("adit.relaxers, from adit_example_plugin 1.0")
    assert lines["traj"].endswith("adit.exporters, from adit_example_plugin 1.0")
    assert "adit.relaxers, from adit_plugins 0.1.0" in lines["chgnet"]
    assert "from shattered 2.0, is broken: RuntimeError: in pieces" in lines["shattered"]
    assert "not of the form module:attribute" in lines["colonless"]
