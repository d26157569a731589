"""Every fault that a relaxation can meet, with real potentials: CHGNet, and small MACE models.

Random weights push atoms together or apart as no trained potential would, which is what is wanted.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner
from small_mace import save_small_mace

from adit_plugins.cli import main
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import RelaxResult, outcomes
from adit_plugins.relax.run import RelaxerError, relax


def unchanged(result: RelaxResult, atoms: Atoms) -> bool:
    """Whether a failed result keeps the input, and no number that could be mistaken for one."""
    kept = np.array_equal(result.atoms.positions, atoms.positions, equal_nan=True)
    numbers = (result.energy, result.energy_per_atom, result.max_force)
    return result.failed and kept and result.atoms.info == atoms.info and numbers == (None,) * 3


def salt(a: float = 5.5, **info: Any) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=a)
    atoms.info.update(info)
    return atoms


@pytest.fixture(scope="module")
def repelling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MACE under which copper flies apart and sodium falls together."""
    return save_small_mace(tmp_path_factory.mktemp("mace") / "repelling.model", scale=-1.0)


@pytest.mark.parametrize("backend", ["mace", "torch-sim"])
def test_structures_break_while_they_relax(backend: str, repelling: Path) -> None:
    if backend == "torch-sim":
        pytest.importorskip("torch_sim")
    copper = bulk("Cu", a=3.6) * (2, 1, 1)
    copper.rattle(0.1, seed=0)
    close = [[0, 0, 0], [0, 0, 0.9]]
    expected = {
        "converged": copper,
        # Collapses to under 2 cubic angstrom an atom; a wire of copper swells above 1,000.
        "volume outside (2.0, 1000.0): 1.": bulk("Na", "fcc", a=3.6) * (2, 1, 1),
        "volume outside (2.0, 1000.0): 1e+03": Atoms("Cu", cell=[2.5, 18.9, 18.9], pbc=True),
        "atoms ended closer than 0.5": Atoms("Na2", close, cell=[4, 4, 4], pbc=True),
        # Two atoms at one place have no direction between them, and so no forces.
        "energy or forces are not finite": Atoms("Cu2", np.zeros((2, 3)), cell=[4] * 3, pbc=True),
        "unknown element: mace-repelling does not know Fe": bulk("Fe"),
    }
    for i, atoms in enumerate(expected.values()):
        atoms.info["adit"] = {"id": f"x/0/{i}"}
    results = relax(
        list(expected.values()), f"{backend}:{repelling}", 0.002, max_steps=300, workers=0
    )
    for (reason, atoms), result in zip(expected.items(), results, strict=True):
        assert result.reason.startswith(reason)
        assert result.converged if reason == "converged" else unchanged(result, atoms)
    assert all(result.num_steps > 10 for result in results[:4])


@pytest.mark.parametrize("backend", ["mace", "torch-sim"])
def test_an_energy_that_runs_away_is_caught_on_its_way(backend: str, tmp_path: Path) -> None:
    if backend == "torch-sim":
        pytest.importorskip("torch_sim")
    deep = save_small_mace(tmp_path / "deep.model", scale=117.0)
    sodium = bulk("Na", "fcc", a=4.6)
    (result,) = relax([sodium], f"{backend}:{deep}", 0.002, max_steps=300, workers=0)
    assert result.reason.startswith("energy outside (-18.0, 10.0): -18")
    assert result.num_steps == 5
    assert unchanged(result, sodium)


@pytest.mark.parametrize("backend", ["mace", "torch-sim"])
def test_forces_that_are_not_finite_fail_every_structure_by_name(
    backend: str, tmp_path: Path
) -> None:
    if backend == "torch-sim":
        pytest.importorskip("torch_sim")
    spoiled = save_small_mace(tmp_path / "spoiled.model", scale=float("nan"))
    results = relax([bulk("Cu"), bulk("Cu", a=4.0)], f"{backend}:{spoiled}", workers=0)
    assert outcomes(results) == {"energy or forces are not finite": 2}


def test_chgnets_faults_are_reasons() -> None:
    americium = bulk("Cu")
    americium.numbers[:] = 95
    broken = salt()
    broken.positions[0, 0] = np.nan
    expected = {
        "step limit": salt(),
        "volume outside": Atoms(  # a wire of salt, pressed together
            "NaCl", [[0, 0, 0], [1.2, 0, 0]], cell=[2.4, 28, 28], pbc=True
        ),
        "energy or forces are not finite": Atoms("NaCl", np.zeros((2, 3)), cell=[5] * 3, pbc=True),
        "coordinates are not finite": broken,
        "unknown element: chgnet-0.3.0 does not know Am": americium,
        "not periodic": molecule("H2O"),
        "ValueError": Atoms("Na", cell=[9.5] * 3, pbc=True),  # isolated beyond CHGNet's cutoff
        "no atoms": Atoms(),
    }
    results = relax(list(expected.values()), "chgnet", fmax=1e-3, max_steps=5, workers=0)
    for (reason, atoms), result in zip(expected.items(), results, strict=True):
        assert result.reason.startswith(reason)
        assert result.failed is (reason != "step limit")
        assert not result.failed or unchanged(result, atoms)
    assert results[0].num_steps == 5
    assert results[0].energy == pytest.approx(results[0].atoms.get_potential_energy())


def test_chgnet_out_of_time_keeps_its_last_energy() -> None:
    from adit_integrations.chgnet import make_relaxer

    (result,) = make_relaxer(max_seconds=1e-3).relax([salt()], fmax=1e-9, max_steps=10_000)
    assert (result.reason, result.failed) == ("time limit", False)
    assert result.num_steps <= 1


def mortal_chgnet() -> AseRelaxer:
    """CHGNet as it ships, whose process ends or hangs at the third evaluation where so marked."""
    from adit_integrations.chgnet import make_relaxer

    relaxer = make_relaxer()
    log = Path(os.environ["MORTAL_LOG"])
    evaluate = relaxer.calculator.calculate

    def say(word: str) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {word}\n")

    def calculate(atoms: Atoms, *arguments: Any) -> None:
        evaluate(atoms, *arguments)
        fate = atoms.info.get("fate", "")
        atoms.info["evaluations"] = atoms.info.get("evaluations", 0) + 1
        if fate and atoms.info["evaluations"] == 3:
            say(fate)
            if fate == "killed":
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
            time.sleep(600)

    say("loaded")
    relaxer.calculator.calculate = calculate
    return relaxer


def test_the_workers_that_hold_chgnet_die_and_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORTAL_LOG", str(tmp_path / "log"))
    structures = [
        salt(5.5),
        salt(5.6, fate="killed", adit={"id": "x/0/1"}),
        salt(5.7),
        salt(5.8, fate="hangs"),
        salt(5.9),
    ]
    seen: list[int] = []
    results = relax(
        structures,
        mortal_chgnet,
        fmax=1e-3,
        max_steps=4,
        workers=1,
        time_limit=6,
        on_result=lambda i, _: seen.append(i),
    )
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert outcomes(results) == {"step limit": 3, "worker process died": 1, "time limit": 1}
    assert results[1].reason == "worker process died"
    assert results[3].reason == "time limit: no answer"
    assert results[1].potential == results[3].potential == "chgnet-0.3.0"
    assert unchanged(results[1], structures[1]) and unchanged(results[3], structures[3])
    said = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    # One worker after the other, each of which loaded the potential once for all that it did; a
    # death is tried again, for something else may have been the cause, the time limit is not.
    words = [word for _, word in said]
    assert (words.count("killed"), words.count("hangs")) == (3, 1)
    assert words.count("loaded") == len({process for process, _ in said}) == 5


@pytest.mark.parametrize("backend", ["mace", "torch-sim"])
def test_a_damaged_model_file_is_an_error_before_any_structure(
    backend: str, repelling: Path, tmp_path: Path
) -> None:
    if backend == "torch-sim":
        pytest.importorskip("torch_sim")
    content = repelling.read_bytes()
    file = tmp_path / "cut.model"
    for damaged in (content[: len(content) // 2], b"", b"\0" * 4096):
        file.write_bytes(damaged)
        with pytest.raises(RelaxerError, match=r"cut\.model' is no MACE model"):
            relax([bulk("Cu")], f"{backend}:{file}", workers=0)


def test_a_damaged_file_is_not_gone_on_with_and_its_sound_part_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("in.extxyz", [salt(5.5), salt(5.6)])
    command = ["relax", "in.extxyz", "--workers", "0", "--max-steps", "1"]
    assert CliRunner().invoke(main, command).exit_code == 0
    lines = Path("relaxed.extxyz").read_text().splitlines(keepends=True)
    damaged = "".join(lines[:2] + lines[3:])  # a line of the first frame is lost
    Path("relaxed.extxyz").write_text(damaged)
    result = CliRunner().invoke(main, [*command, "--resume"])
    assert result.exit_code == 2
    assert "relaxed.extxyz, structure 0" in result.stderr
    assert result.stderr.count("\n") == 1
    result = CliRunner().invoke(main, ["hull", "relaxed.extxyz"])
    assert result.exit_code == 0
    assert "1 of 2 have a place" in result.stdout
    assert "relaxed.extxyz, structure 0: unreadable: says 2 atoms" in result.stdout
    assert Path("relaxed.extxyz").read_text() == damaged
