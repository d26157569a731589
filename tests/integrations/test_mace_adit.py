"""The small MACE: network, weights on disk, and the shipped relaxer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from adit_integrations.mace import contained
from adit_integrations.mace_adit import network as mace_network
from adit_integrations.mace_adit import relaxer as mace_adit
from adit_plugins.hull.energies import place
from adit_plugins.hull.table import Hull
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.run import find_relaxer, relax


def test_sums_over_neighbours_are_those_of_e3nn() -> None:
    """In any order of the bonds, for atoms of many and of no neighbours, with gradients."""
    from mace.modules.irreps_tools import tp_out_irreps_with_instructions
    from mace.tools.scatter import scatter_sum

    with contained():
        from e3nn import o3
    scalars, harmonics = o3.Irreps("4x0e"), o3.Irreps.spherical_harmonics(2)
    middle, paths = tp_out_irreps_with_instructions(scalars, harmonics, harmonics)
    product = o3.TensorProduct(
        scalars, harmonics, middle, paths, shared_weights=False, internal_weights=False
    )
    torch.manual_seed(0)
    sizes = torch.tensor([0, 3, 40, 16, 0, 1])
    receiver = torch.repeat_interleave(torch.arange(6), sizes)[torch.randperm(60)]
    sender = torch.randint(6, (60,))
    inputs = [torch.randn(*shape) / 4 for shape in ((6, 4), (60, 9), (60, 12))]
    found = []
    for ours in (True, False):
        feats, attrs, weights = (each.clone().requires_grad_() for each in inputs)
        if ours:
            sums = mace_network.NeighbourSum(4, 2)(
                feats, attrs, weights, torch.stack([sender, receiver])
            )
        else:
            sums = scatter_sum(product(feats[sender], attrs, weights), receiver, 0, dim_size=6)
        first = torch.autograd.grad(sums.square().sum(), attrs, create_graph=True)[0]
        second = torch.autograd.grad(first.sin().sum(), [feats, weights])
        found.append([sums, first, *second])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    config = mace_network.NetworkConfig(elements=(11, 17), channels=4)
    mace_network.save(tmp_path, config, mace_network.tensors_of(mace_network.build(config)))
    [weights] = tmp_path.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"model-\w+\.safetensors is damaged"):
        mace_network.load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="is missing"):
        mace_network.load(tmp_path)
    with pytest.raises(ValueError, match="adit train prefilter"):
        mace_network.load(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def shipped() -> mace_adit.SmallMace:
    return mace_adit.SmallMace(device="cpu")


def rattled(seed: int = 0) -> list[Atoms]:
    oxide = bulk("ZnO", "wurtzite", a=3.3, c=5.3)
    crystals = [bulk("NaCl", "rocksalt", a=5.5), bulk("Si"), bulk("Fe"), oxide]
    for i, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=seed + i)
    return crystals


def test_the_shipped_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in mace_adit.WEIGHTS.iterdir()) < 4_000_000


def test_forces_and_stress_are_the_energys_derivatives(shipped: mace_adit.SmallMace) -> None:
    step = 5e-3
    for atoms, found in zip(rattled(), shipped.evaluate(rattled()), strict=True):
        moved = [atoms.copy(), atoms.copy()]
        for sign, copy in zip((1, -1), moved, strict=True):
            copy.positions[0, 1] += sign * step
        energies = _energies(shipped, moved)
        assert -found.forces[0, 1] == pytest.approx(
            np.diff(energies[::-1])[0] / (2 * step), abs=0.02
        )
        strained = [atoms.copy(), atoms.copy()]
        for sign, copy in zip((1, -1), strained, strict=True):
            copy.set_cell(copy.cell.array * (1 + sign * step), scale_atoms=True)
        slope = np.diff(_energies(shipped, strained)[::-1])[0] / (2 * step)
        assert np.trace(found.stress) == pytest.approx(slope / atoms.cell.volume, abs=2e-3)


def _energies(model: mace_adit.SmallMace, crystals: Sequence[Atoms]) -> np.ndarray:
    return np.array([each.energy for each in model.evaluate(crystals)])


def test_atoms_out_of_reach_of_each_other_have_energies(shipped: mace_adit.SmallMace) -> None:
    lonely = Atoms("Na", cell=[6, 6, 6], pbc=True)
    (alone,) = shipped.evaluate([lonely])
    assert np.isfinite(alone.energy) and not alone.forces.any()
    beside, _ = shipped.evaluate([lonely, bulk("Si")])
    assert beside.energy == pytest.approx(alone.energy, abs=1e-5)


def test_batches_equal_single_crystals(shipped: mace_adit.SmallMace) -> None:
    together = shipped.evaluate(rattled())
    for atoms, found in zip(rattled(), together, strict=True):
        (alone,) = shipped.evaluate([atoms])
        assert found.energy == pytest.approx(alone.energy, abs=1e-4)
        np.testing.assert_allclose(found.forces, alone.forces, atol=1e-4)


def test_near_the_teacher_on_simple_crystals(shipped: mace_adit.SmallMace) -> None:
    from adit_integrations.chgnet import load_calculator

    teacher = load_calculator("cpu")
    differences = []
    for atoms, found in zip(rattled(), shipped.evaluate(rattled()), strict=True):
        atoms.calc = teacher
        differences.append(abs(atoms.get_potential_energy() - found.energy) / len(atoms))
    assert np.mean(differences) < 0.25  # eV/atom; the energies themselves are -3 to -9


PAIRS = ("NaCl", "Si2", "FeO", "CsF", "UO", "Cu2")


def dimers(symbols: str, *distances: float) -> list[Atoms]:
    return [Atoms(symbols, [[0, 0, 0], [0, 0, d]], cell=[7, 7, 7], pbc=True) for d in distances]


def test_a_wall_keeps_atoms_apart(shipped: mace_adit.SmallMace) -> None:
    for symbols in PAIRS:
        *near, far = _energies(shipped, dimers(symbols, 0.8, 0.9, 1.0, 1.2, 1.5))
        assert max(near) > far + 5.0, symbols  # eV; what lies behind it is the next test's


def test_behind_the_wall_nothing_is_judged() -> None:
    """Closer than any label the network says anything; no such energy may come out."""
    relaxer = mace_adit.MaceAditRelaxer(device="cpu")
    for symbols in PAIRS:
        crystals = dimers(symbols, 0.2, 0.3, 0.4, 0.45)
        for atoms in crystals:
            atoms.set_cell([4, 4, 4])
        results = relaxer.relax(crystals, 0.05, 20)
        assert all(result.failed for result in results), symbols


def test_the_relaxer_relaxes() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.2) * (1, 1, 2)
    salt.rattle(0.1, seed=1)
    salt.info["mine"] = 3
    molecule = Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])
    (relaxed, refused) = relax([salt, molecule], "mace-adit", max_steps=200, workers=0)
    assert relaxed.convention == "mp2020" and relaxed.potential == "mace-adit"
    assert relaxed.max_force is not None and relaxed.max_force < 0.06
    assert relaxed.atoms.cell.volume / 2 == pytest.approx(5.69**3 / 4, rel=0.12)
    assert relaxed.atoms.info["mine"] == 3
    assert refused.failed and "crystals only" in refused.reason


def test_a_batch_ends_where_ase_ends(shipped: mace_adit.SmallMace) -> None:
    from adit_integrations.mace_adit.batched_fire import relax_together

    together = relax_together(
        rattled(),
        shipped.evaluate,
        name="batch",
        fmax=0.02,
        max_steps=300,
        max_seconds=60,
        energy_bounds=mace_adit.ENERGY_BOUNDS,
        elements=frozenset(shipped.config.elements),
    )
    alone = AseRelaxer("alone", mace_adit.MaceAditCalculator(device="cpu"))
    for atoms, batched in zip(rattled(), together, strict=True):
        (single,) = alone.relax([atoms], 0.02, 300)
        assert batched.converged and single.converged
        assert batched.energy_per_atom == pytest.approx(single.energy_per_atom, abs=3e-3)
        assert batched.atoms.cell.volume == pytest.approx(single.atoms.cell.volume, rel=0.02)


def test_broken_structures_stay_alone(shipped: mace_adit.SmallMace) -> None:
    sound = rattled()[0]
    torn, crowded = sound.copy(), sound.copy()
    torn.positions[0] = np.nan
    crowded.set_cell(crowded.cell * 0.2, scale_atoms=True)
    unknown, unlearned = bulk("Po", "sc", a=3.3), bulk("Ar", "fcc", a=5.3)
    results = mace_adit.MaceAditRelaxer(device="cpu").relax(
        [torn, sound, crowded, unknown, unlearned], 0.05, 3
    )
    assert [result.failed for result in results] == [True, False, True, True, True]
    assert "does not know Po" in results[3].reason and "does not know Ar" in results[4].reason


def test_what_the_readouts_disagree_on_goes_on_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mace_adit, "MAX_DISAGREEMENT", 0.0)
    (crystal,) = rattled()[:1]
    (result,) = relax([crystal], "mace-adit", max_steps=5, workers=0)
    assert result.failed and result.reason.startswith("uncertain: the readouts")
    np.testing.assert_array_equal(result.atoms.positions, crystal.positions)


def test_torch_sim_says_the_same(shipped: mace_adit.SmallMace) -> None:
    from adit_integrations.torchsim import TorchSimRelaxer

    results = TorchSimRelaxer("mace-adit", device="cpu").relax(rattled(), 0.05, 0)
    for result, energy in zip(results, _energies(shipped, rattled()), strict=True):
        assert result.convention == "mp2020"
        if not result.failed:
            assert result.energy == pytest.approx(energy, abs=1e-4)
    assert any(not result.failed for result in results)


def test_the_weights_of_another_teacher_have_their_own_scale_and_know_molecules() -> None:
    """Raw energies, to which the hull adds the corrections; a molecule's have no place there."""
    relaxer = find_relaxer("mace-adit:sevennet")()
    assert sum(path.stat().st_size for path in mace_adit.OTHERS["sevennet"].iterdir()) < 2_000_000
    oxide, ethanol = bulk("MgO", "rocksalt", a=4.3), molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=0)
    found, wet, strange = relaxer.relax([oxide, ethanol, molecule("SiH4")], 0.1, 200)
    assert found.potential == "mace-adit-sevennet" and found.convention == "mp-raw"
    assert abs(place(found, Hull.load())[1].energy_above_hull) < 0.1
    assert wet.converged and wet.convention == "" and wet.rmsd < 0.2
    assert strange.failed and "does not know Si" in strange.reason
    with pytest.raises(ValueError, match="mace-adit:sevennet"):
        find_relaxer("mace-adit:nowhere")()
    (other,) = relax([oxide], "mace-adit", max_steps=0, workers=0)
    assert abs(other.energy - found.energy) / 2 > 0.2  # the corrections of oxides
