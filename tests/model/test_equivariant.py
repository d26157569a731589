"""Two ways to symmetry: what moves do to the equivariant autoencoder, and moved copies or none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from test_training import TINY, losses, make_data
from torch import Tensor

from adit_model import ADiT, ADiTConfig, AtomBatch
from adit_model.autoencoder import LossWeights
from adit_model.batch import lattice_from_parameters, principal_frame, random_rotations
from adit_model.config import AutoencoderConfig, DenoiserConfig
from adit_model.equivariant.geometry import fractional, neighbours, places_of
from adit_model.samplers import SamplingSettings
from adit_model.training.cli import main
from adit_model.training.trainer import Trainer, TrainingConfig, TrainingError

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def config(**changes: object) -> AutoencoderConfig:
    small = AutoencoderConfig(
        16, 2, 2, 2, 32, architecture="equivariant", vector_width=8, cutoff=5.0
    )
    return dataclasses.replace(small, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> ADiT:
    torch.manual_seed(0)
    made = ADiT(ADiTConfig(autoencoder=config(), denoiser=None)).eval()
    with torch.no_grad():  # as training may leave it
        made.autoencoder.quant_conv.units[1] = 0.3
    return made


def structures(kind: str, size: int, num: int = 4, seed: int = 0) -> AtomBatch:
    """Random ones: skewed cells, or clouds of atoms."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(1, 90, (num, size), generator=generator)
    coords = torch.rand(num, size, 3, generator=generator)
    crystal = kind == "crystal"
    lengths = 3.5 + 3 * torch.rand(num, 3, generator=generator)
    angles = torch.deg2rad(70 + 40 * torch.rand(num, 3, generator=generator))
    lattice = lattice_from_parameters(lengths, angles) * crystal
    return AtomBatch(
        numbers,
        coords * crystal,
        coords @ lattice if crystal else 5 * coords,
        lattice,
        torch.full((num,), crystal),
        torch.ones(num, size, dtype=torch.bool),
    )


def turned(batch: AtomBatch, rotations: Tensor) -> AtomBatch:
    return dataclasses.replace(
        batch, positions=batch.positions @ rotations, lattice=batch.lattice @ rotations
    )


def shifted(batch: AtomBatch, shift: Tensor) -> AtomBatch:
    """Shifts `[num, 1, 3]`, fractional or angstrom."""
    if not bool(batch.periodic[0]):
        return dataclasses.replace(batch, positions=batch.positions + shift)
    frac = (batch.frac_coords + shift) % 1.0
    return dataclasses.replace(batch, frac_coords=frac, positions=frac @ batch.lattice)


def permuted(batch: AtomBatch, order: Tensor) -> AtomBatch:
    names = ("atomic_numbers", "frac_coords", "positions", "mask")
    return dataclasses.replace(batch, **{name: getattr(batch, name)[:, order] for name in names})


def turned_latent(latent: Tensor, rotations: Tensor) -> Tensor:
    """The two scalars stay, both vectors turn."""
    parts = [latent[..., :2], latent[..., 2:5] @ rotations, latent[..., 5:] @ rotations]
    return torch.cat(parts, dim=-1)


KINDS_AND_SIZES = [("crystal", 1), ("crystal", 2), ("crystal", 7), ("molecule", 1), ("molecule", 9)]


@pytest.mark.parametrize(("kind", "size"), KINDS_AND_SIZES)
def test_latent_vectors_turn_with_the_structure_and_the_answer_turns_back(
    model: ADiT, kind: str, size: int
) -> None:
    batch = structures(kind, size)
    rotations = random_rotations(len(batch), torch.Generator().manual_seed(1), batch.device)
    mean, std = model.encode(batch)
    moved, moved_std = model.encode(turned(batch, rotations))
    assert (size == 1 and kind == "molecule") or float(mean[..., 2:].abs().min()) > 0
    torch.testing.assert_close(moved, turned_latent(mean, rotations), **CLOSE)
    torch.testing.assert_close(moved_std, std, **CLOSE)
    latent = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    first = model.autoencoder.decode(latent, None)
    second = model.autoencoder.decode(turned_latent(latent, rotations), None)
    torch.testing.assert_close(second.positions, first.positions @ rotations, **CLOSE)
    assert first.lattice is not None and second.lattice is not None
    torch.testing.assert_close(second.lattice, first.lattice @ rotations, **CLOSE)
    for name in ("type_logits", "lengths", "angles"):
        torch.testing.assert_close(getattr(second, name), getattr(first, name), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "size"), KINDS_AND_SIZES)
def test_translations_move_the_positions_in_the_latent_and_nothing_else(
    model: ADiT, kind: str, size: int
) -> None:
    batch = structures(kind, size)
    shift = torch.rand(len(batch), 1, 3, generator=torch.Generator().manual_seed(1))
    change = model.encode(shifted(batch, shift))[0] - model.encode(batch)[0]
    if kind == "molecule":
        torch.testing.assert_close(change, torch.zeros_like(change), **CLOSE)
        return
    torch.testing.assert_close(change[..., :2], torch.zeros_like(change[..., :2]), **CLOSE)
    first, second = model.autoencoder.quant_conv.units.tolist()
    torch.testing.assert_close(change[..., 5:] / second, change[..., 2:5] / first, **CLOSE)
    cells = change[..., 2:5] / first @ torch.linalg.inv(batch.lattice) - shift
    torch.testing.assert_close(cells, cells.round(), **CLOSE)


@pytest.mark.parametrize(("kind", "size"), KINDS_AND_SIZES)
def test_the_order_of_atoms_does_not_matter(model: ADiT, kind: str, size: int) -> None:
    batch = structures(kind, size)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(1))
    mean, _ = model.encode(batch)
    torch.testing.assert_close(model.encode(permuted(batch, order))[0], mean[:, order], **CLOSE)
    first, second = (model.autoencoder.decode(z, None) for z in (mean, mean[:, order]))
    torch.testing.assert_close(second.positions, first.positions[:, order], **CLOSE)
    torch.testing.assert_close(second.lengths, first.lengths, **CLOSE)


def test_padding_changes_nothing(model: ADiT) -> None:
    parts = [structures("crystal", 2), structures("molecule", 5), structures("crystal", 3)]
    together = AtomBatch.concatenate(parts)
    latents, _ = model.encode(together)
    decoded = model.autoencoder.decode(latents, together.mask)
    row = 0
    for part in parts:
        own, _ = model.encode(part)
        rows = slice(row, row + len(part))
        torch.testing.assert_close(latents[rows, : own.shape[1]], own, **CLOSE)
        lengths = model.autoencoder.decode(own, None).lengths
        torch.testing.assert_close(decoded.lengths[rows], lengths, **CLOSE)
        row += len(part)


def test_neighbours_are_those_of_a_search_over_many_cells() -> None:
    """Rock salt with 2.8 angstrom between ions: 6 and 12 neighbours within 4.2 of each."""
    lattice = torch.tensor([[[0.0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]])
    frac = torch.tensor([[[0.0, 0, 0], [0.5, 0.5, 0.5]]])
    batch = AtomBatch(
        torch.tensor([[11, 17]]),
        frac,
        frac @ lattice,
        lattice,
        torch.tensor([True]),
        torch.ones(1, 2, dtype=torch.bool),
    )
    pairs = neighbours(batch, 4.2)
    smooth = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * r / 4.2))) for r in (2.8, 2.8 * 2**0.5)]
    expected = torch.stack([1 + 12 * smooth[1], 6 * smooth[0]])
    torch.testing.assert_close(pairs.weight[0, 0], expected)
    torch.testing.assert_close(pairs.vectors, torch.zeros_like(pairs.vectors), **CLOSE)


def test_fractional_coordinates_are_positions_in_the_lattice() -> None:
    batch = structures("crystal", 5)
    places = places_of(batch)
    frac = fractional(places.positions, places.lattice) - batch.frac_coords
    torch.testing.assert_close(frac, frac.round(), **CLOSE)
    flat = fractional(places.positions, torch.zeros_like(places.lattice))
    assert bool(flat.isfinite().all())


def test_the_loss_is_the_same_for_turned_structures_and_zero_for_right_answers(
    model: ADiT,
) -> None:
    for kind in ("crystal", "molecule"):
        batch = structures(kind, 4)
        rotations = random_rotations(len(batch), torch.Generator().manual_seed(1), batch.device)
        mean, _ = model.encode(batch)
        decoded = model.autoencoder.decode(mean, None)
        again = turned(batch, rotations)
        other = model.autoencoder.decode(model.encode(again)[0], None)
        first = model.autoencoder.errors(decoded, batch)
        second = model.autoencoder.errors(other, again)
        assert float((first["position"] + first["frac"]).detach()) > 0
        for name, value in first.items():
            torch.testing.assert_close(second[name], value, atol=1e-4, rtol=1e-4)
        places = places_of(batch)
        right = dataclasses.replace(decoded, positions=places.positions, lattice=places.lattice)
        errors = model.autoencoder.errors(right, batch)
        assert [float(errors[name]) for name in ("position", "frac", "lattice")] == [0.0] * 3


def test_wrapped_loss_takes_the_nearest_image() -> None:
    wrapped = ADiT(ADiTConfig(autoencoder=config(frac_loss="wrapped"), denoiser=None))
    batch = structures("crystal", 3)
    places = places_of(batch)
    decoded = wrapped.autoencoder.decode(wrapped.encode(batch)[0], None)
    next_cell = places.positions + places.lattice[:, :1]
    far = dataclasses.replace(decoded, positions=next_cell, lattice=places.lattice)
    assert float(wrapped.autoencoder.errors(far, batch)["frac"]) < 1e-8


def test_a_run_learns_and_its_model_saves_loads_samples_and_varies(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    tiny = ["--data", *data, *TINY, "--learning-rate", "3e-3", "--warmup-steps", "10"]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    first = ["--architecture", "equivariant", "--vector-width", "8", "--steps", "40", "--out", one]
    assert main(["autoencoder", *tiny, *first]) == 0
    values = losses(Path(one))
    assert sum(values[-10:]) < 0.7 * sum(values[:10])
    second = ["--autoencoder", f"{one}/model", "--steps", "3", "--distance-loss", "0.1"]
    assert main(["denoiser", *tiny, *second, "--out", two]) == 0
    model = ADiT.from_pretrained(Path(two) / "model", device="cpu")
    assert model.config.autoencoder.architecture == "equivariant"
    for kind, size in (("crystal", 2), ("molecule", 3)):
        batch = model.sample(3, kind=kind, num_steps=2)
        assert batch.num_atoms.tolist() == [size] * 3
        assert bool(batch.positions.isfinite().all())
        assert len(model.vary(batch, 0.5, num_steps=4)) == 3
        edited = model.draw(2, kind, SamplingSettings(2), edit=lambda rows, atoms, t: atoms).batch
        assert bool(edited.positions.isfinite().all())
    model.save_pretrained(tmp_path / "again")
    again = ADiT.from_pretrained(tmp_path / "again", device="cpu")
    assert torch.equal(
        again.sample(2, num_steps=2).positions, model.sample(2, num_steps=2).positions
    )


def test_gradients_are_finite_at_symmetric_sites_and_single_atoms(model: ADiT) -> None:
    """Every vector of the surroundings vanishes in a cubic cell of one atom."""
    batch = dataclasses.replace(
        structures("crystal", 1),
        frac_coords=torch.zeros(4, 1, 3),
        lattice=4.0 * torch.eye(3).repeat(4, 1, 1),
    )
    fresh = ADiT(model.config)
    fresh.autoencoder.loss(batch, LossWeights())[0].backward()
    grads = [p.grad for p in fresh.parameters() if p.grad is not None]
    assert grads and all(bool(g.isfinite().all()) for g in grads)


def test_no_room_for_a_scalar_is_refused() -> None:
    with pytest.raises(
        ValueError, match="latent_dim must be at least 10, a scalar and 3 vectors; got 8"
    ):
        config(latent_vectors=3)
    with pytest.raises(ValueError, match="cutoff"):
        config(cutoff=0.0)
    with pytest.raises(ValueError, match="multiples of num_heads"):
        ADiT(ADiTConfig(autoencoder=config(vector_width=9), denoiser=None))


def test_the_denoiser_runs_on_it_as_on_any_latent() -> None:
    small = DenoiserConfig(width=16, depth=1, num_heads=2, pair_bias=True)
    made = ADiT(ADiTConfig(autoencoder=config(), denoiser=small))
    assert made.sample(2, num_atoms=3, num_steps=2).num_atoms.tolist() == [3, 3]


@pytest.mark.parametrize("augmentation", ["moved", "none"])
def test_without_augmentation_the_autoencoder_sees_what_the_denoiser_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmentation: str
) -> None:
    run = TrainingConfig(
        "autoencoder",
        tuple(make_data(tmp_path)),
        str(tmp_path / "run"),
        tokens=64,
        steps=1,
        precision="float32",
        augmentation=augmentation,  # type: ignore[arg-type]
    )
    whole = ADiT(ADiTConfig(autoencoder=config(), denoiser=None))
    trainer = Trainer(run, whole, torch.device("cpu"))
    seen: list[AtomBatch] = []
    loss = whole.autoencoder.loss

    def recorded(batch: AtomBatch, *rest: object, **more: object) -> object:
        seen.append(batch)
        return loss(batch, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(whole.autoencoder, "loss", recorded)
    trainer.train_step()
    crystals, molecules = seen
    stored = bool(torch.isin(crystals.frac_coords, torch.tensor([0.0, 0.5])).all())
    axes = torch.allclose(molecules.positions, principal_frame(molecules.positions), atol=1e-5)
    assert stored == axes == (augmentation == "none")
    with pytest.raises(TrainingError, match="augmentation is of the autoencoder"):
        dataclasses.replace(run, stage="denoiser", augmentation="none")
