"""The small MACE: damaged labels, options that cannot be, and teachers that answer oddly."""

import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write

from adit_integrations.mace_adit import labels as mace_labels
from adit_integrations.mace_adit import training as mace_training
from adit_integrations.mace_adit.teachers import Calculators
from adit_plugins.relax.elsewhere import RemoteCalculator

EMT_THERE = f"env:{sys.executable}:ase.calculators.emt:EMT"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of alloys by EMT."""
    folder = tmp_path_factory.mktemp("labels")
    alloys = []
    for one, other in itertools.permutations(("Cu", "Au", "Ag", "Ni"), 2):
        alloys.append(bulk(one, "fcc", a=4.0, cubic=True))
        alloys[-1].symbols[0] = other
    write(folder / "alloys.extxyz", alloys)
    command = [str(folder / "alloys.extxyz"), "--teacher", EMT_THERE, "--copies", "2"]
    assert mace_labels.main([*command, "--out", str(folder / "out")]) == 0
    return folder


def train(labels: Path, out: Path, *more: str) -> int:
    return mace_training.main(["--labels", str(labels / "out"), "--out", str(out), *more])


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "flipped", "not finite", "an atom less", "a convention"]
)
def test_damaged_labels_are_named(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(labels / "out", folder)
    shard = folder / "shard-00000.npz"
    data, arrays = bytearray(shard.read_bytes()), dict(np.load(shard))
    if damage == "a convention":
        shard = folder / "labels.json"
        shard.write_text(json.dumps({"teacher": "chgnet-0.3.0", "convention": "own"}))
    elif damage in ("cut", "empty"):
        shard.write_bytes(data[: len(data) // 2 if damage == "cut" else 0])
    elif damage == "flipped":
        data[len(data) // 3] ^= 255
        shard.write_bytes(data)
    else:
        forces = arrays["forces"]
        arrays["forces"] = forces[1:] if damage == "an atom less" else forces + np.inf
        np.savez_compressed(shard, **arrays)
    command = ["--labels", str(folder), "--out", str(tmp_path / "run"), "--steps", "1"]
    assert mace_training.main(command) == 2
    assert f"{shard} is damaged" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option",
    ["--batch-size 0", "--minutes 0", "--steps -1", "--seed -1", "--learning-rate inf",
     "--threads -1", "--log-steps 0", "--device nowhere"],
)  # fmt: skip
def test_options_of_the_training_are_checked(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert train(labels, tmp_path / "run", *option.split()) == 2
    assert option.split()[1] in capsys.readouterr().err and not (tmp_path / "run").exists()


ODD_BATCHES = """
import os
from ase.calculators.emt import EMT
class Odd(EMT):
    fault = ""
    def evaluate_many(self, structures):
        if self.fault == "fails in batches" and len(structures) > 1:
            raise RuntimeError("out of memory")
        if self.fault == "dies":
            os._exit(3)
        found = []
        for atoms in structures:
            atoms.calc = EMT()
            found.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(),
                          "stress": atoms.get_stress()})
        if self.fault in ("stress", "forces"):
            for each in found:
                del each[self.fault]
        if self.fault == "an atom less":
            for each in found:
                each["forces"] = each["forces"][1:]
        return found[1:] if self.fault == "an answer less" else found
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("fails in batches", ""),
        ("dies", "worker process died: exit status 3"),
        ("stress", "no stress in the answer"),
        ("forces", "no forces in the answer"),
        ("an atom less", "forces of the shape (3, 3), not (4, 3)"),
        ("an answer less", "ValueError: evaluate_many gave 0 answers for 1 geometries"),
    ],
)
def test_what_a_teacher_of_batches_may_do(tmp_path: Path, fault: str, reason: str) -> None:
    file = tmp_path / "odd batches.py"
    file.write_text(ODD_BATCHES.replace('fault = ""', f'fault = "{fault}"'))
    remote = RemoteCalculator(sys.executable, f"{file}:Odd")
    teacher = Calculators("odd", "", remote, crystals_only=False, batch=2)
    found = teacher.say([bulk("Cu", cubic=True), bulk("Au", cubic=True)])
    assert teacher.problem == reason
    assert [each is None for each in found] == [bool(reason)] * 2


def test_sources_of_one_name_and_a_teacher_that_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more").mkdir()
    files = [str(tmp_path / "water.extxyz"), str(tmp_path / "more" / "water.extxyz")]
    for file in files:
        write(file, [molecule("H2O")])
    assert mace_labels.main([*files, "--out", str(tmp_path / "out")]) == 2
    assert "Two sources are named 'water'" in capsys.readouterr().err
    command = [files[0], "--teacher", "chgnet:", "--out", str(tmp_path / "out")]
    assert mace_labels.main(command) == 2
    assert "describes crystals only" in capsys.readouterr().err
