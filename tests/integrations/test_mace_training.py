"""The small MACE: labels and training."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write

from adit_integrations.mace_adit import labels as mace_labels
from adit_integrations.mace_adit import network as mace_network
from adit_integrations.mace_adit import training as mace_training
from adit_integrations.mace_adit.label_set import ARRAYS, Labels, Taught, taught
from adit_plugins.relax.run import find_relaxer

CATIONS = ["Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Ti", "Ni"]
ANIONS = ["O", "S", "F", "Cl", "N"]


def rocksalts() -> list[Atoms]:
    pairs = itertools.product(CATIONS, ANIONS)
    return [bulk(a + b, "rocksalt", a=4.0 + 0.05 * i) for i, (a, b) in enumerate(pairs)]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write(folder / "salts.extxyz", rocksalts())
    command = [str(folder / "salts.extxyz"), "--out", str(folder / "out"), "--copies", "1"]
    assert mace_labels.main(command) == 0
    return folder


def train(labels: Path, out: Path, *more: str) -> int:
    return mace_training.main(
        ["--labels", str(labels / "out"), "--out", str(out), "--channels", "8", *more]
    )


def test_labels_are_the_teachers(labels: Path) -> None:
    from adit_integrations.chgnet import load_calculator

    found = Labels.load([labels / "out"])
    assert len(found) > 40 and {way.split(": ")[1] for way in found.way} == set(mace_labels.WAYS)
    teacher = load_calculator("cpu")
    for i in (0, len(found) - 1):
        part = slice(*np.cumsum([0, *found.num_atoms])[i : i + 2])
        atoms = Atoms(found.numbers[part], found.positions[part], cell=found.cells[i], pbc=True)
        atoms.calc = teacher
        assert found.energy[i] == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
        np.testing.assert_allclose(found.forces[part], atoms.get_forces(), atol=1e-3)
        np.testing.assert_allclose(found.stress[i], atoms.get_stress(voigt=False), atol=1e-4)


def test_labelling_goes_on_and_does_not_mix(
    labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = labels / "out" / "shard-00000.npz"
    content, command = shard.read_bytes(), [str(labels / "salts.extxyz"), "--copies", "1"]
    shard.unlink()
    assert mace_labels.main([*command, "--out", str(labels / "out")]) == 0
    with np.load(shard) as again, np.load(_file(labels / "before.npz", content)) as before:
        for name in ARRAYS:
            np.testing.assert_array_equal(again[name], before[name])
    assert mace_labels.main([*command, "--seed", "1", "--out", str(labels / "out")]) == 2
    assert "another run (seed differ)" in capsys.readouterr().err


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_student_goes_down_before_the_teacher_speaks(labels: Path) -> None:
    out = labels / "descended"
    command = [str(labels / "salts.extxyz"), "--copies", "1", "--student", "mace-adit"]
    assert mace_labels.main([*command, "--out", str(out)]) == 0
    found, plain = (Labels.load([each]) for each in (out, labels / "out"))
    ways = [way.split(": ")[1] for way in found.way]
    assert 0.4 < ways.count("descended") / len(ways) < 0.9
    low = found.energy[[way == "descended" for way in ways]] / 2
    assert np.median(low) < np.median(plain.energy / 2)  # eV/atom; they went down


def test_a_missing_student_is_named(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(labels / "salts.extxyz"), "--student", str(labels / "nobody")]
    assert mace_labels.main([*command, "--out", str(labels / "unmade")]) == 2
    assert "nobody" in capsys.readouterr().err
    assert not (labels / "unmade").exists()  # the corrected command may have the folder


def test_copies_of_a_formula_share_a_split(labels: Path) -> None:
    found = Labels.load([labels / "out"])
    splits = {name: set(found.group[found.split(name)]) for name in ("train", "val", "test")}
    assert splits["train"] and splits["val"]
    assert not splits["train"] & (splits["val"] | splits["test"])


def test_training_learns_and_resumes(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mace_training, "FIRST_HEAD", 1.0)  # the same loss in each step
    steps = ["--minutes", "1000", "--log-steps", "1", "--batch-size", "64", "--steps", "12"]
    assert train(labels, tmp_path / "whole", *steps) == 0
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert len(losses) == 12 and losses[-1] < losses[5] < losses[0]

    calls = 0

    def interrupt(trainer: mace_training.Trainer, rows: list[int]) -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return update(trainer, rows)

    update = mace_training.Trainer.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mace_training.Trainer, "update", interrupt)
        assert train(labels, tmp_path / "parts", *steps) == 130
    assert train(labels, tmp_path / "parts", "--resume", *steps) == 0
    _, whole = mace_network.load(tmp_path / "whole" / "model")
    _, parts = mace_network.load(tmp_path / "parts" / "model")
    for name, tensor in mace_network.tensors_of(whole).items():
        torch.testing.assert_close(
            mace_network.tensors_of(parts)[name], tensor, rtol=1e-2, atol=1e-3
        )


def test_two_processes_do_the_work_of_one(labels: Path, tmp_path: Path) -> None:
    steps = ["--minutes", "1000", "--steps", "4", "--threads", "1"]
    assert train(labels, tmp_path / "one", *steps, "--batch-size", "16") == 0
    assert train(labels, tmp_path / "two", *steps, "--batch-size", "8", "--processes", "2") == 0
    _, one = mace_network.load(tmp_path / "one" / "model")
    _, two = mace_network.load(tmp_path / "two" / "model")
    for name, tensor in mace_network.tensors_of(one).items():
        torch.testing.assert_close(mace_network.tensors_of(two)[name], tensor, rtol=1e-2, atol=1e-3)


def test_a_lost_process_leaves_a_checkpoint(
    labels: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    update = mace_training.Trainer.update

    def lose(trainer: mace_training.Trainer, rows: list[int]) -> float:
        if trainer.step == 2:
            (process,) = trainer.processes.processes
            process.kill()
            process.join()
        return update(trainer, rows)

    steps = ["--minutes", "1000", "--steps", "4", "--processes", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(mace_training.Trainer, "update", lose)
        assert train(labels, tmp_path, *steps) == 2
    assert "continue with --resume" in capsys.readouterr().err
    assert train(labels, tmp_path, *steps, "--resume") == 0
    assert mace_network.read_config(tmp_path / "model")[0].provenance["steps"] == 4


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--processes", "0"], "--processes must be at least 1; got 0"),
        (["--processes", "999"], "--processes 999 is more than the"),
        (["--processes", "2", "--threads", "2"], "leave out --threads"),
    ],
)
def test_processes_that_cannot_be(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], error: str
) -> None:
    assert train(labels, tmp_path / "none", *options) == 2
    assert error in capsys.readouterr().err


def test_a_run_is_not_overwritten(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / mace_training.STATE).write_bytes(b"half a file")
    assert train(labels, tmp_path) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert train(labels, tmp_path, "--resume") == 2
    assert "damaged" in capsys.readouterr().err
    assert train(labels / "nothing", tmp_path / "new") == 2
    assert "adit train labels" in capsys.readouterr().err


def test_weights_of_ones_own(labels: Path, tmp_path: Path) -> None:
    assert train(labels, tmp_path, "--steps", "1") == 0
    relaxer = find_relaxer(f"mace-adit:{tmp_path / 'model'}")()
    (result,) = relaxer.relax([bulk("NaCl", "rocksalt", a=5.5)], 0.05, 0)
    assert result.failed and "does not know Na, Cl" in result.reason  # from so few labels


EMT_THERE = f"env:{sys.executable}:ase.calculators.emt:EMT"


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of molecules by EMT, made by two runs that share a folder."""
    folder = tmp_path_factory.mktemp("molecules")
    found = [molecule(name) for name in ("H2O", "CH4", "NH3", "C2H6", "CH3OH", "HCN") * 100]
    write(folder / "molecules.extxyz", found)
    command = [str(folder / "molecules.extxyz"), "--copies", "1", "--teacher", EMT_THERE]
    for part in ("2/2", "1/2"):
        assert mace_labels.main([*command, "--part", part, "--out", str(folder / "out")]) == 0
        assert len([*(folder / "out").glob("shard-*.npz")]) == (1 if part == "2/2" else 3)
    return folder / "out"


def test_any_calculator_is_a_teacher(molecules: Path) -> None:
    found = Labels.load([molecules])
    assert found.molecules.all() and len(found) > 500
    assert {way.split(": ")[1] for way in found.way} == {"as given", "rattled"}
    assert not found.stress.any()
    for i in (0, len(found) - 1):
        atoms = found.atoms(i, slice(*np.cumsum([0, *found.num_atoms])[i : i + 2]))
        assert not atoms.pbc.any()
        atoms.calc = EMT()
        assert found.energy[i] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(found.forces[found_atoms(found, i)], atoms.get_forces())


def found_atoms(labels: Labels, place: int) -> slice:
    return slice(*np.cumsum([0, *labels.num_atoms])[place : place + 2])


def test_one_network_for_crystals_and_molecules(
    labels: Path, molecules: Path, tmp_path: Path
) -> None:
    folders = [labels / "out", molecules]
    assert taught(folders) == Taught("chgnet-0.3.0", "mp2020", EMT_THERE)
    command = ["--labels", *map(str, folders), "--out", str(tmp_path), "--channels", "8"]
    assert mace_training.main([*command, "--steps", "300", "--batch-size", "64"]) == 0
    config, _ = mace_network.load(tmp_path / "model")
    assert config.molecules and config.num_heads == 4 and config.convention == "mp2020"
    assert set(config.known_in_molecules) <= {1, 6, 7, 8} and 8 in config.known_in_molecules
    relaxer = find_relaxer(f"mace-adit:{tmp_path / 'model'}")()
    water, salt = molecule("H2O"), bulk("NaCl", "rocksalt", a=5.5)
    water.rattle(0.05, seed=0)
    wet, dry, lithium = relaxer.relax([water, salt, molecule("LiH")], 0.05, 20)
    assert wet.convention == "" and wet.max_stress is None and wet.num_steps > 0
    reference = molecule("H2O")
    reference.calc = EMT()
    assert wet.energy == pytest.approx(reference.get_potential_energy(), abs=1.0)
    assert dry.failed  # its elements are in few labels
    assert lithium.failed and "does not know Li" in lithium.reason


def test_teachers_are_not_mixed(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    command = [str(labels / "salts.extxyz"), "--copies", "1", "--limit", "1", "--out", str(other)]
    write(labels / "metals.extxyz", [bulk("Cu", cubic=True), bulk("Au", cubic=True)])
    command[0] = str(labels / "metals.extxyz")
    assert mace_labels.main([*command, "--teacher", EMT_THERE]) == 0
    folders = ["--labels", str(labels / "out"), str(other)]
    assert mace_training.main([*folders, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "labelled by env:" in error and "chgnet-0.3.0 mp2020" in error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--part", "3/2"], "--part must be K/N with K from 1 to N, such as 2/4; got 3/2"),
        (["--part", "half"], "got half"),
        (["--teacher", "nobody"], "No plugin 'nobody'"),
        (["--teacher", "mace-adit"], "take a potential with an ASE calculator"),
        (["--teacher", "sevennet:l9"], "sevennet knows no 'l9'"),
    ],
)
def test_labels_that_cannot_be_made(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], error: str
) -> None:
    command = [str(labels / "salts.extxyz"), "--out", str(tmp_path / "none"), *options]
    assert mace_labels.main(command) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
