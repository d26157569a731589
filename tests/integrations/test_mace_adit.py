"""The small MACE: labels, training, weights on disk, and the shipped relaxer."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write

from adit_integrations.mace import contained
from adit_integrations.mace_adit import labels as mace_labels
from adit_integrations.mace_adit import network as mace_network
from adit_integrations.mace_adit import relaxer as mace_adit
from adit_integrations.mace_adit import training as mace_training
from adit_integrations.mace_adit.label_set import ARRAYS, Labels
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.run import find_relaxer, relax

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


def test_weights_of_ones_own(labels: Path, tmp_path: Path) -> None:
    assert train(labels, tmp_path, "--steps", "1") == 0
    relaxer = find_relaxer(f"mace-adit:{tmp_path / 'model'}")()
    (result,) = relaxer.relax(rattled()[:1], 0.05, 0)
    assert result.failed and "does not know Na, Cl" in result.reason  # from so few labels


def test_torch_sim_says_the_same(shipped: mace_adit.SmallMace) -> None:
    from adit_integrations.torchsim import TorchSimRelaxer

    results = TorchSimRelaxer("mace-adit", device="cpu").relax(rattled(), 0.05, 0)
    for result, energy in zip(results, _energies(shipped, rattled()), strict=True):
        assert result.convention == "mp2020"
        if not result.failed:
            assert result.energy == pytest.approx(energy, abs=1e-4)
    assert any(not result.failed for result in results)
