"""Relaxers by name and file, with a real MACE of random weights made here, and their faults."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from small_mace import save_small_mace

from adit_plugins.registry import UnknownPluginError
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import RelaxResult, outcomes
from adit_plugins.relax.run import RelaxerError, find_relaxer, relax


@pytest.fixture(scope="module")
def mace_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_small_mace(tmp_path_factory.mktemp("mace") / "tiny.model"))


def structures() -> list[Atoms]:
    """Strained coppers, a molecule, and three that cannot be relaxed."""
    found = []
    for i, a in enumerate((3.2, 3.6)):
        copper = bulk("Cu", a=a) * (2, 1, 1)
        copper.rattle(0.1, seed=i)
        copper.info["adit"] = {"id": f"x/0/{i}"}
        found.append(copper)
    oxygen = molecule("O2")
    oxygen.positions[0] += 0.1
    broken = bulk("Cu")
    broken.positions[:] = np.nan
    return [*found, oxygen, bulk("Fe"), broken, bulk("Cu", a=0.8)]


def test_mace_from_a_file_relaxes_and_leaves_torch_as_it_was(mace_file: str) -> None:
    results = relax(structures(), f"mace:{mace_file}", fmax=0.002, max_steps=200, workers=0)
    assert [r.reason.partition(":")[0].partition(" (")[0] for r in results] == [
        "converged", "converged", "converged", "unknown element", "coordinates are not finite",
        "volume outside",
    ]  # fmt: skip
    assert results[0].convention == "mp-raw"
    assert results[0].potential == "mace-tiny"
    assert results[0].volume_change is not None
    assert abs(results[0].volume_change) > 0.01
    assert results[0].rmsd is not None
    assert results[0].rmsd > 0.01
    assert results[2].volume_change is results[2].space_group_after is None
    assert "Fe" in results[3].reason
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ


def test_torch_sim_gives_what_ase_gives(mace_file: str) -> None:
    pytest.importorskip("torch_sim")
    settings = {"fmax": 0.002, "max_steps": 200, "workers": 0}
    alone = relax(structures(), f"mace:{mace_file}", **settings)  # type: ignore[arg-type]
    batched = relax(structures(), f"torch-sim:{mace_file}", **settings)  # type: ignore[arg-type]
    for one, other in zip(alone, batched, strict=True):
        assert other.reason == one.reason
        assert other.atoms.info == one.atoms.info
        if one.energy is not None:
            assert other.energy == pytest.approx(one.energy, abs=1e-4)
            assert other.rmsd == pytest.approx(one.rmsd, abs=1e-3)
            assert other.max_force is not None
            assert other.max_force < 0.002
            assert other.atoms.get_forces().shape == one.atoms.positions.shape


def test_each_structure_of_a_batch_has_its_own_steps(mace_file: str) -> None:
    pytest.importorskip("torch_sim")
    easy, hard = bulk("Cu", a=5.0), structures()[0]
    found = relax([easy, hard], f"torch-sim:{mace_file}", fmax=0.002, max_steps=5, workers=0)
    assert (found[0].converged, found[0].num_steps) == (True, 1)
    assert (found[1].reason, found[1].num_steps) == ("step limit", 5)
    (still,) = relax([hard], f"torch-sim:{mace_file}", max_steps=0, workers=0)
    assert np.allclose(still.atoms.positions, hard.positions)


def test_unknown_models_and_no_network_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RelaxerError, match=r"'nonsense'.*medium-mpa-0"):
        relax([bulk("Cu")], "mace:nonsense", workers=0)
    file = tmp_path / "text.model"
    file.write_text("no model")
    with pytest.raises(RelaxerError, match="no MACE model"):
        relax([bulk("Cu")], f"mace:{file}", workers=0)


def test_a_name_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is cached here
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # and nobody answers there
    with pytest.raises(RelaxerError, match=r"medium-mpa-0.*mace:PATH"):
        relax([bulk("Cu")], "mace-mpa-0", workers=0)


def test_a_calculator_of_ones_own() -> None:
    (result,) = relax([bulk("Cu", a=3.7)], "ase.calculators.emt:EMT", workers=0)
    assert result.converged
    assert result.convention == ""  # its scale is unknown
    for spec, part in (
        ("no.such.module:f", "no module 'no'"),
        ("math:nothing", "nothing"),
        ("math:pi", "not callable"),
        ("magic", "chgnet"),
    ):
        with pytest.raises(UnknownPluginError, match=part):
            find_relaxer(spec)
    with pytest.raises(RelaxerError, match="no ASE calculator"):
        relax([bulk("Cu")], "collections:Counter", workers=0)


class SleepyRelaxer:
    """Never answers for structures marked so, as compiled code in an endless loop."""

    name = "sleepy"
    chunk_atoms = 2

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        if any("sleep" in atoms.info for atoms in batch):
            time.sleep(600)
        return AseRelaxer("emt", EMT()).relax(batch, fmax, max_steps)


def test_a_hanging_structure_is_ended_and_its_batch_saved() -> None:
    atoms = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]
    atoms[0].info["sleep"] = True
    results = relax(atoms, SleepyRelaxer, workers=1, time_limit=3)
    assert [result.failed for result in results] == [True, False, False]
    assert results[0].reason.startswith("time limit")
    assert outcomes(results) == {"converged": 2, "time limit": 1}


def test_chgnet_in_batches_equals_chgnet() -> None:
    pytest.importorskip("torch_sim")
    from adit_integrations.chgnet import make_relaxer
    from adit_integrations.torchsim import TorchSimRelaxer

    salts = [bulk("NaCl", "rocksalt", a=5.5) * (2, 1, 1), bulk("MgO", "rocksalt", a=4.3)]
    for i, salt in enumerate(salts):
        salt.rattle(0.1, seed=i)
    alone = make_relaxer().relax(salts, 0.05, 0)
    batched = TorchSimRelaxer("chgnet").relax(salts, 0.05, 0)
    for one, other in zip(alone, batched, strict=True):
        assert np.allclose(one.atoms.get_forces(), other.atoms.get_forces(), atol=1e-4)
        assert np.allclose(one.atoms.get_stress(), other.atoms.get_stress(), atol=1e-5)
