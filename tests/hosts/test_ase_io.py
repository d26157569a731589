"""A saved generator through ASE's own door: `ase.io.read`, `iread` and `ase convert`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io.trajectory import Trajectory

import adit_plugins
from adit_plugins import ADiTGenerator
from adit_plugins.hosts.ase_io import NUM, sample_numbers

STEPS = 4


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: str) -> ADiTGenerator:
    return ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=STEPS, batch_size=4)


@pytest.fixture(scope="module")
def file(generator: ADiTGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generator.save(tmp_path_factory.mktemp("saved") / "joint.adit")


def indices(frames: list[Atoms] | Iterator[Atoms]) -> list[int]:
    return [atoms.info["adit"]["index"] for atoms in frames]


def same(first: Atoms, second: Atoms) -> bool:
    # Other batches pad the atoms to other lengths, which changes the order of additions.
    return bool(
        (first.numbers == second.numbers).all()
        and np.allclose(first.positions, second.positions, atol=1e-3)
    )


def test_a_slice_of_a_file_is_a_slice_of_its_samples(generator: ADiTGenerator, file: Path) -> None:
    expected = list(generator.stream(6, as_="ase"))
    frames = list(ase.io.iread(file, index=slice(0, 6)))
    assert indices(frames) == [*range(6)]
    assert all(map(same, frames, expected))
    assert frames[0].pbc.all()
    assert frames[2].info["adit"] == expected[2].info["adit"]
    assert indices(ase.io.read(f"{file}@2:9:3")) == [2, 5, 8]
    assert same(ase.io.read(f"{file}@5"), expected[5])
    assert same(ase.io.read(file, 5), expected[5])
    assert ase.io.read(f"{file}@40").info["adit"]["index"] == 40


def test_an_index_without_an_end_is_finite(file: Path) -> None:
    assert indices(ase.io.read(file, ":", num=3)) == [0, 1, 2]
    assert indices(ase.io.iread(f"{file}@30:", num=2)) == [30, 31]
    assert indices(ase.io.read(file, "-2:", num=5)) == [3, 4]
    assert ase.io.read(file).info["adit"]["index"] == NUM - 1
    assert list(sample_numbers(slice(None), 16)) == [*range(16)]
    assert list(sample_numbers(slice(None, None, -1), 3)) == [2, 1, 0]
    assert list(sample_numbers(slice(20, 17, -1), 3)) == [20, 19, 18]


def test_a_long_slice_begins_at_once(file: Path) -> None:
    frames = ase.io.iread(file, index=slice(0, 10**9))
    assert indices(islice(frames, 2)) == [0, 1]


def test_settings_can_be_changed_on_the_way(file: Path) -> None:
    (atoms,) = ase.io.read(f"{file}@0:1", kind="molecule", seed=3, num_steps=2)
    provenance = atoms.info["adit"]
    assert not atoms.pbc.any()
    assert [provenance[name] for name in ("kind", "seed", "num_steps")] == ["molecule", 3, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "glass"}, "Unknown kind 'glass'. Known: crystal, molecule"),
        ({"colour": "red"}, "no setting 'colour'. Known: kind, checkpoint"),
        ({"num": 0}, "num is 0"),
    ],
)
def test_wrong_settings_are_named(file: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ase.io.read(file, ":", **settings)


def test_a_file_runs_nothing_and_says_what_it_is(generator: ADiTGenerator, tmp_path: Path) -> None:
    path = tmp_path / "other.adit"
    path.write_text('{"@class": "Structure"}')
    with pytest.raises(ValueError, match=r"no saved generator.*\.save"):
        ase.io.read(path)
    path.write_text("not JSON")
    with pytest.raises(ValueError, match="not JSON"):
        ase.io.read(path)
    trap = {"@module": "pathlib", "@class": "Path", "value": "/"}
    path.write_text(json.dumps(generator.as_dict() | {"formula": trap}))
    with pytest.raises(ValueError, match="formula must be a plain value"):
        ase.io.read(path)


def test_saved_and_loaded_is_the_same(
    generator: ADiTGenerator, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ADiTGenerator.load(file) == generator
    assert list(file.parent.iterdir()) == [file]
    requested = ADiTGenerator(elements=["Li", "O"], num_steps=3)
    assert ADiTGenerator.load(requested.save(tmp_path / "li.adit")) == requested
    # A relative checkpoint is the same one from any folder.
    folder = Path(generator.checkpoint or "")
    monkeypatch.chdir(folder.parent)
    saved = ADiTGenerator(checkpoint=folder.name).save(tmp_path / "relative.adit")
    monkeypatch.chdir(tmp_path)
    assert ADiTGenerator.load(saved).checkpoint == str(folder)


def test_stream_goes_into_every_writer(file: Path, tmp_path: Path) -> None:
    for atoms in adit_plugins.stream(file, 3):
        ase.io.write(tmp_path / "grown.extxyz", atoms, append=True)
    assert indices(ase.io.read(tmp_path / "grown.extxyz", ":")) == [0, 1, 2]
    with Trajectory(tmp_path / "samples.traj", "w") as trajectory:
        for atoms in adit_plugins.stream(file, 2, start=7):
            trajectory.write(atoms)
    assert indices(ase.io.read(tmp_path / "samples.traj", ":")) == [7, 8]
    with ase.db.connect(tmp_path / "samples.db") as database:
        for atoms in adit_plugins.stream(file, 2, kind="molecule"):
            database.write(atoms, kind=atoms.info["adit"]["kind"])
    assert database.count(kind="molecule") == 2


def test_ase_convert(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.extxyz"
    ase_main(["convert", "-n", "1:3", str(file), str(out)])
    assert indices(ase.io.read(out, ":")) == [1, 2]
    ase_main(["convert", "--force", "--read-args", "num=2", "seed=5", "--", str(file), str(out)])
    assert [atoms.info["adit"]["seed"] for atoms in ase.io.read(out, ":")] == [5, 5]


def test_ase_gui_opens_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    ase_main(["gui", "--terminal", "--graph", "i, A.volume", f"{file}@0:3"])
    lines = capsys.readouterr().out.splitlines()
    assert [float(line.split()[0]) for line in lines] == [0, 1, 2]
    assert all(float(line.split()[1]) > 0 for line in lines)


def test_ases_experimental_list_of_plugins_has_our_calculator() -> None:
    plugins = pytest.importorskip("ase._4.plugins").plugins
    (plugin,) = [each for each in plugins.calculators if each.name == "adit-chgnet"]
    assert "adit_plugins" in plugin.display()
    calculator = plugin()()
    copper = bulk("Cu")
    copper.calc = calculator
    assert -6 < copper.get_potential_energy() < -2  # eV; -4.1 in the Materials Project


def ase_main(arguments: list[str]) -> None:
    from ase.cli.main import main

    main(args=arguments)


def test_ase_itself_imports_none_of_our_heavy_parts() -> None:
    code = (
        "import sys, ase.io; from ase.io.formats import ioformats; assert 'adit' in ioformats\n"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('torch', 'pymatgen', 'rdkit', 'monty', 'adit_model', 'adit_plugins')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    moved = [".filters", ".hull_energies", ".transformations"]  # names without a content yet
    light = ["", "._version", ".hosts", ".hosts.ase_io", ".lazy", *moved]
    assert sorted(ast.literal_eval(done.stdout)) == sorted(f"adit_plugins{name}" for name in light)
