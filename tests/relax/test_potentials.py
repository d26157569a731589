"""Forces and stress are derivatives of the energy by every potential, whatever the cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray
from small_mace import save_small_mace

from adit_plugins.relax.run import relax

# A lattice is spanned by many triples of vectors; these rows of whole numbers choose some.
SETTINGS = {
    "right-handed": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "left-handed": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    "inverted": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "skewed": [[1, 0, 0], [2, 1, 0], [-1, 3, 1]],
    "skewed and left-handed": [[1, 0, 0], [2, -1, 0], [-1, 3, 1]],
}
SHEAR = np.array([[1.0, 0.08, -0.05], [0.0, 1.03, 0.1], [0.0, 0.0, 0.98]])
Answer = tuple[float, NDArray[np.float64], NDArray[np.float64]]
Potential = Callable[[Atoms], Answer]
ASE, TORCH_SIM = ("chgnet", "mace-adit", "mace"), ("torch-sim:chgnet", "torch-sim:mace-adit",
                                                   "torch-sim:mace")  # fmt: skip


def salt(setting: str, sheared: bool = False) -> Atoms:
    """The same crystal, atoms at the same places, with another choice of the cell's vectors."""
    atoms = bulk("NaCl", "rocksalt", a=5.5)
    atoms.positions += [[0.05, -0.1, 0.02], [0.1, 0.08, -0.15]]
    if sheared:
        atoms.set_cell(atoms.cell.array @ SHEAR, scale_atoms=True)
    atoms.set_cell(np.array(SETTINGS[setting]) @ atoms.cell.array, scale_atoms=False)
    return atoms


@pytest.fixture(scope="module")
def mace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_mace(tmp_path_factory.mktemp("mace") / "small.model", scale=30.0)


@pytest.fixture(scope="module", params=[*ASE, *TORCH_SIM])
def potential(request: pytest.FixtureRequest, mace_file: Path) -> Potential:
    if request.param in TORCH_SIM:
        pytest.importorskip("torch_sim")
        return in_torch_sim(request.param.partition(":")[2], mace_file)
    return in_ase(request.param, mace_file)


def in_ase(name: str, mace_file: Path) -> Potential:
    calculator: Any
    if name == "chgnet":
        from adit_integrations.chgnet import load_calculator

        calculator = load_calculator("cpu")
    elif name == "mace-adit":
        from adit_integrations.mace_adit.relaxer import MaceAditCalculator

        calculator = MaceAditCalculator(device="cpu")
    else:
        from adit_integrations.mace import make_relaxer

        calculator = make_relaxer(str(mace_file), device="cpu").calculator

    def answer(atoms: Atoms) -> Answer:
        atoms = atoms.copy()
        atoms.calc = calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        return float(energy), forces, atoms.get_stress(voigt=False)

    return answer


def in_torch_sim(name: str, mace_file: Path) -> Potential:
    import torch
    import torch_sim as ts

    from adit_integrations.torchsim import TorchSimRelaxer

    model = TorchSimRelaxer(str(mace_file) if name == "mace" else name, device="cpu").model

    def answer(atoms: Atoms) -> Answer:
        output = model(ts.initialize_state([atoms], torch.device("cpu"), torch.float64))
        output = {name: value.detach().numpy() for name, value in output.items()}
        return float(output["energy"][0]), output["forces"], output["stress"][0]

    return answer


@pytest.mark.parametrize("sheared", [False, True], ids=["", "sheared"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_forces_and_stress_are_derivatives(
    potential: Potential, setting: str, sheared: bool
) -> None:
    atoms, step = salt(setting, sheared), 5e-3
    _, forces, stress = potential(atoms)
    rng = np.random.default_rng(0)
    for _ in range(2):
        direction = rng.standard_normal(atoms.positions.shape)
        ends = [atoms.copy() for _ in range(2)]
        for sign, end in zip((1, -1), ends, strict=True):
            end.positions += sign * step * direction
        slope = (potential(ends[0])[0] - potential(ends[1])[0]) / (2 * step)
        assert -(forces * direction).sum() == pytest.approx(slope, rel=0.02, abs=5e-3)
    for _ in range(2):
        strain = rng.standard_normal((3, 3))
        strain = (strain + strain.T) / 2
        ends = [atoms.copy() for _ in range(2)]
        for sign, end in zip((1, -1), ends, strict=True):
            end.set_cell(end.cell.array @ (np.eye(3) + sign * step * strain), scale_atoms=True)
        slope = (potential(ends[0])[0] - potential(ends[1])[0]) / (2 * step)
        assert (stress * strain).sum() * atoms.cell.volume == pytest.approx(
            slope, rel=0.02, abs=1e-2
        )


def test_the_choice_of_the_cell_changes_no_number(potential: Potential) -> None:
    energy, forces, stress = potential(salt("right-handed", sheared=True))
    assert np.abs(stress).max() > 1e-3  # there is something to get wrong
    for setting in SETTINGS:
        found = potential(salt(setting, sheared=True))
        assert found[0] == pytest.approx(energy, abs=1e-4)
        np.testing.assert_allclose(found[1], forces, atol=1e-4)
        np.testing.assert_allclose(found[2], stress, atol=1e-5)


@pytest.mark.parametrize("make", [in_ase, in_torch_sim])
def test_forces_on_molecules_are_derivatives(
    make: Callable[[str, Path], Potential], mace_file: Path
) -> None:
    """Of the potentials only MACE describes them."""
    if make is in_torch_sim:
        pytest.importorskip("torch_sim")
    molecule = Atoms("ONaCl", [[0.0, 0.0, 0.1], [2.1, 0.1, 0.0], [-0.3, 1.9, 0.4]])
    energy_of, step = make("mace", mace_file), 1e-3
    _, forces, _ = energy_of(molecule)
    for atom in range(3):
        ends = [molecule.copy() for _ in range(2)]
        for sign, end in zip((1, -1), ends, strict=True):
            end.positions[atom, 1] += sign * step
        slope = (energy_of(ends[0])[0] - energy_of(ends[1])[0]) / (2 * step)
        assert -forces[atom, 1] == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", [*ASE, *TORCH_SIM])
def test_relaxation_ends_alike_in_every_cell(
    name: str, mace_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name in TORCH_SIM:
        pytest.importorskip("torch_sim")
    spec = name.replace("mace", f"mace:{mace_file}") if name == "mace" else name
    spec = f"torch-sim:{mace_file}" if name == "torch-sim:mace" else spec
    settings = list(SETTINGS)[:3]
    results = relax([salt(each) for each in settings], spec, 0.01, max_steps=12, workers=0)
    right = results[0]
    assert right.energy is not None and right.rmsd is not None and right.rmsd > 0.02
    for setting, result in zip(settings, results, strict=True):
        assert result.reason == right.reason
        assert result.energy == pytest.approx(right.energy, abs=2e-3)
        assert result.volume_change == pytest.approx(right.volume_change, abs=1e-3)
        assert result.rmsd == pytest.approx(right.rmsd, abs=1e-3)
        # The cell is still the one that was chosen, relaxed.
        kept = np.array(SETTINGS[setting]) @ right.atoms.cell.array
        np.testing.assert_allclose(result.atoms.cell.array, kept, atol=5e-3)
    assert "WARNING" not in capfd.readouterr().out
