"""Relaxation by ASE, in this process and in others; real faults are in test_relax_faults.py."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from adit_plugins.hull.table import Hull, formation_energy_per_atom
from adit_plugins.registry import UnknownPluginError
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import RelaxResult
from adit_plugins.relax.run import RelaxerError, relax


def emt() -> AseRelaxer:
    return AseRelaxer("emt", EMT())


def lennard_jones() -> AseRelaxer:
    return AseRelaxer("lj", LennardJones(sigma=2.5, rc=7), energy_bounds=(-50, 50))


class ThreadReporter:
    """Tells in its reason what the numerical libraries of its process were started with."""

    name = "reporter"

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        # Not os.environ, which could have changed too late for numpy: the process's first values.
        started = Path("/proc/self/environ").read_bytes().split(b"\0")
        count = sum(entry.endswith(b"_NUM_THREADS=1") for entry in started)
        return [RelaxResult.failure(atoms, f"{count} variables", self.name) for atoms in batch]


class NanCalculator(Calculator):
    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        forces = np.full((len(self.atoms), 3), np.nan)
        self.results = {"energy": -1.0, "forces": forces, "stress": np.zeros(6)}


def unloadable() -> AseRelaxer:
    raise OSError("weights are truncated")


def strained_copper(a: float = 3.75) -> Atoms:
    atoms = bulk("Cu", a=a)
    atoms.info["adit"] = {"id": f"x/0/{a}"}
    return atoms


def test_cell_and_positions_relax_and_the_input_stays() -> None:
    atoms = strained_copper() * (1, 1, 2)
    atoms.rattle(0.1, seed=0)
    before = atoms.positions.copy()
    (result,) = relax([atoms], emt, fmax=0.01, workers=0)
    assert (result.converged, result.reason, result.potential) == (True, "converged", "emt")
    assert result.atoms.cell.volume / 2 == pytest.approx(3.59**3 / 4, rel=0.01)
    assert result.energy_per_atom == pytest.approx(result.energy / 2)
    assert result.energy == pytest.approx(result.atoms.get_potential_energy())
    assert result.max_force < 0.01
    assert result.num_steps > 3
    assert result.atoms.info["adit"] == {"id": "x/0/3.75"}
    assert np.array_equal(atoms.positions, before)
    assert atoms.calc is None


def test_molecule_relaxes_without_a_cell() -> None:
    atoms = molecule("H2O")
    atoms.positions[0] += 0.15
    (result,) = relax([atoms], emt, workers=0)
    assert result.converged
    assert not result.atoms.cell.array.any()


def test_step_limit_keeps_the_energy() -> None:
    (result,) = relax([strained_copper()], emt, fmax=1e-6, max_steps=2, workers=0)
    assert (result.converged, result.reason, result.num_steps) == (False, "step limit", 2)
    assert not result.failed
    assert result.energy is not None


def test_time_limit_is_looked_at_between_steps() -> None:
    relaxer = AseRelaxer("emt", EMT(), max_seconds=0)
    (result,) = relaxer.relax([strained_copper()], fmax=1e-9, max_steps=10_000)
    assert result.reason == "time limit"
    assert result.num_steps <= 1
    assert not result.failed


def test_each_failure_has_its_reason_and_stops_nobody() -> None:
    on_top = Atoms("Ar2", [[0, 0, 0], [0, 0, 1e-4]])
    broken = strained_copper()
    broken.positions[:] = np.nan
    structures = {
        "outside": on_top,
        "not finite": broken,
        "no atoms": Atoms(),
        "volume": bulk("Cu", a=0.5),
        "converged": Atoms("Ar2", [[0, 0, 0], [0, 0, 2.9]]),
    }
    seen: list[int] = []
    results = relax(
        list(structures.values()), lennard_jones, workers=0, on_result=lambda i, _: seen.append(i)
    )
    assert seen == list(range(5))
    for (reason, atoms), result in zip(structures.items(), results, strict=True):
        assert reason in result.reason
        assert result.failed is (reason != "converged")
        if result.failed:
            assert (result.energy_per_atom, result.max_force) == (None, None)
            assert np.array_equal(result.atoms.positions, atoms.positions, equal_nan=True)


def test_exception_and_nan_of_the_potential_are_reasons() -> None:
    (result,) = relax([bulk("Fe")], emt, workers=0)  # EMT has no iron
    assert result.failed
    assert result.reason.startswith("NotImplementedError")
    relaxer = AseRelaxer("nan", NanCalculator())
    (result,) = relaxer.relax([bulk("Cu")], 0.05, 10)
    assert result.failed
    assert "not finite" in result.reason


def test_processes_give_the_same_results_in_order() -> None:
    structures = [strained_copper(a) for a in (3.4, 3.7, 3.9)]
    structures.insert(1, bulk("Fe"))
    alone = relax(structures, emt, workers=0)
    seen: set[int] = set()
    together = relax(structures, emt, workers=2, on_result=lambda i, _: seen.add(i))
    assert seen == {0, 1, 2, 3}
    assert [r.reason for r in together] == [r.reason for r in alone]
    for first, second in zip(alone, together, strict=True):
        assert np.allclose(first.atoms.cell, second.atoms.cell, atol=1e-8)
        assert second.atoms.info == first.atoms.info


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's /proc")
def test_workers_are_born_with_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    (result,) = relax([strained_copper()], ThreadReporter, workers=1)
    assert result.reason == "3 variables"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_potential_that_does_not_load_is_an_error_not_64_failures() -> None:
    with pytest.raises(RelaxerError, match="weights are truncated"):
        relax([bulk("Cu")], unloadable, workers=0)
    with pytest.raises(RelaxerError, match="weights are truncated"):
        relax([bulk("Cu")] * 3, unloadable, workers=1)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="fmax=0"):
        relax([bulk("Cu")], emt, fmax=0)
    with pytest.raises(ValueError, match="fmax=nan"):
        relax([bulk("Cu")], emt, fmax=float("nan"))
    with pytest.raises(TypeError, match="list of structures"):
        relax(bulk("Cu"), emt)  # type: ignore[arg-type]
    with pytest.raises(UnknownPluginError, match="'chgnut'"):
        relax([bulk("Cu")], "chgnut")
    assert relax([], emt) == []


def test_chgnet_relaxes_real_crystals_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    from adit_integrations.chgnet import make_relaxer

    salt = bulk("NaCl", "rocksalt", a=5.9)
    salt.rattle(0.05, seed=1)
    lonely = Atoms("Na", cell=[9.5, 9.5, 9.5], pbc=True)
    results = relax([salt, molecule("H2O"), lonely], make_relaxer, fmax=0.05, workers=0)
    assert results[0].converged
    assert results[0].potential.startswith("chgnet-0.3")
    assert results[0].atoms.cell.volume == pytest.approx(45.5, rel=0.05)  # MP: 46.1
    formation = formation_energy_per_atom("NaCl", results[0].energy_per_atom)
    assert abs(Hull.load().energy_above_hull("NaCl", formation).energy_above_hull) < 0.05
    assert "crystals only" in results[1].reason
    assert results[2].failed
    assert "isolated" in results[2].reason
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "CHGNet" not in captured.err


def test_fast_chgnet_equals_the_original() -> None:
    from chgnet.model.dynamics import CHGNetCalculator

    from adit_integrations.chgnet import make_relaxer

    fast = make_relaxer().calculator
    atoms = bulk("NaCl", "rocksalt", a=5.5) * (2, 1, 1)
    atoms.symbols[0] = "Fe"
    atoms.rattle(0.1, seed=0)
    atoms.calc = fast
    found = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())
    atoms.calc = CHGNetCalculator(use_device="cpu")
    assert found[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert np.allclose(found[1], atoms.get_forces(), atol=1e-4)
    assert np.allclose(found[2], atoms.get_stress(), atol=1e-5)
