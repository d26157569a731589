"""The published checkpoint: parity with its description, and files that mean harm."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import published_reference as reference
import pytest
import torch
from click.testing import CliRunner

from adit_model import ADiT, AtomBatch
from adit_model.checkpoints import published
from adit_model.checkpoints.folder import CheckpointError
from adit_model.checkpoints.lightning_file import LightningFile
from adit_model.checkpoints.pretrained import _announced
from adit_model.config import ADiTConfig, AutoencoderConfig, Condition, DenoiserConfig
from adit_model.samplers import Request, SamplingSettings, sample_latents
from adit_plugins import ADiTGenerator, Sample
from adit_plugins.cli import main

SIZES = [5, 2, 7]
MASK = np.arange(7)[None] < np.array(SIZES)[:, None]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
pytestmark = pytest.mark.filterwarnings(
    "ignore::adit_model.checkpoints.pretrained.CheckpointNotice"
)


@pytest.fixture(scope="module")
def model(toy_file: Path) -> ADiT:
    return ADiT.from_pretrained(toy_file, device="cpu")


@pytest.fixture(scope="module")
def truth(toy_weights: dict[str, np.ndarray]) -> reference.Reference:
    return reference.Reference(toy_weights, heads=2, dit_heads=3)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def padded_structures(seed: int) -> tuple[AtomBatch, dict[str, np.ndarray]]:
    """A mixed batch: two crystals around a molecule, padded to seven atoms."""
    random = np.random.default_rng(seed)
    numbers = random.integers(1, 100, (3, 7)) * MASK
    frac = random.random((3, 7, 3)) * MASK[..., None]
    lattice = np.eye(3) * 4 + random.random((3, 3, 3))
    positions = np.einsum("bni,bij->bnj", frac, lattice)
    frac[1], lattice[1] = 0, 0
    arrays = {"numbers": numbers, "positions": positions, "frac": frac}
    batch = AtomBatch(
        torch.from_numpy(numbers),
        torch.from_numpy(frac).float(),
        torch.from_numpy(positions).float(),
        torch.from_numpy(lattice).float(),
        torch.tensor([True, False, True]),
        torch.from_numpy(MASK),
    )
    return batch, arrays


def assert_close(ours: torch.Tensor, theirs: np.ndarray, mask: np.ndarray | None = None) -> None:
    values = ours.detach().double().numpy()
    if mask is not None:
        values, theirs = values[mask], theirs[mask]
    np.testing.assert_allclose(values, theirs, **CLOSE)


def test_encoder_and_decoder_are_the_described_ones(
    model: ADiT, truth: reference.Reference
) -> None:
    batch, arrays = padded_structures(1)
    for ours, theirs in zip(model.encode(batch), truth.encode(**arrays, mask=MASK), strict=True):
        assert_close(ours, theirs, MASK)
    latent = np.random.default_rng(2).standard_normal((3, 7, 8))
    decoded = model.autoencoder.decode(torch.from_numpy(latent).float(), batch.mask)
    expected = truth.decode(latent, MASK)
    for name in ("type_logits", "positions", "frac_coords"):
        assert_close(getattr(decoded, name), expected[name], MASK)
    assert_close(decoded.lengths, expected["lengths"])
    assert_close(decoded.angles, expected["angles"])


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("t", [0.01, 0.5, 1.0])
def test_one_evaluation_of_the_denoiser(
    model: ADiT, truth: reference.Reference, label: int, t: float
) -> None:
    x, previous = np.random.default_rng(3).standard_normal((2, 3, 7, 8))
    assert model.denoiser is not None
    ours = model.denoiser(
        torch.from_numpy(x).float(),
        torch.full((3,), t),
        {"kind": torch.full((3,), label)},
        torch.from_numpy(previous).float(),
        torch.from_numpy(MASK),
    )
    assert_close(ours, truth.denoise(x, t, label, previous, MASK))


@pytest.mark.parametrize(("kind", "label"), [("crystal", 1), ("molecule", 2)])
def test_a_guided_sample_of_ten_steps(
    model: ADiT, truth: reference.Reference, kind: str, label: int
) -> None:
    noise = reference.padded_noise(np.random.default_rng(4), 3, 7)
    latent = truth.sample(noise, label, steps=10, scale=2.0, mask=MASK)
    given = torch.from_numpy(noise)
    settings = SamplingSettings(10, 2.0, "published")
    request = Request.checked(model.config, 3, kind, settings, num_atoms=SIZES, noise=given)
    assert model.denoiser is not None
    for rows, found, _ in sample_latents(model.denoiser, request, model.device):
        for row, z in zip(rows, found, strict=True):
            assert_close(z, latent[row, : SIZES[row]])
    expected = truth.decode(latent, MASK)
    made = model.sample(3, kind, 10, 2.0, num_atoms=SIZES, noise=given, sampler="published")
    numbers = np.maximum(expected["type_logits"].argmax(-1), 1)
    assert (made.atomic_numbers.numpy()[MASK] == numbers[MASK]).all()
    if kind == "crystal":
        shift = made.frac_coords.double().numpy() - expected["frac_coords"]
        np.testing.assert_allclose((shift - np.round(shift))[MASK], 0, atol=1e-5)
    else:
        for row, size in enumerate(SIZES):
            place = expected["positions"][row, :size]
            assert_close(made.positions[row, :size], place - place.mean(axis=0))


def test_noise_of_equal_size_batches_is_centred_per_structure(model: ADiT) -> None:
    alone = model.sample(1, num_steps=3, seed=5, indices=[2], sampler="published")
    among = model.sample(4, num_steps=3, seed=5, sampler="published")
    size = int(alone.num_atoms[0])
    torch.testing.assert_close(among.positions[2, :size], alone.positions[0], **CLOSE)


def test_our_samplers_run_on_the_same_weights(model: ADiT) -> None:
    made = {
        name: model.sample(2, "molecule", 4, seed=1, num_atoms=4, sampler=name).positions
        for name in ("published", "euler", "heun")
    }
    assert all(positions.isfinite().all() for positions in made.values())
    assert not torch.allclose(made["published"], made["euler"], atol=1e-3)
    with pytest.raises(ValueError, match="at least 2; got 1"):
        model.sample(1, num_steps=1, sampler="published")


def test_sizes_come_from_shapes(model: ADiT, tmp_path: Path) -> None:
    assert (model.config.autoencoder.width, model.config.autoencoder.num_heads) == (128, 2)
    assert (model.config.denoiser.width, model.config.denoiser.num_heads) == (192, 3)
    assert model.config.max_num_atoms == 29
    odd = tmp_path / "odd.ckpt"
    weights = reference.random_weights(1, d=40, layers=1, dit=200, blocks=1, ff=48)
    torch.save({"state_dict": {k: torch.from_numpy(v) for k, v in weights.items()}}, odd)
    with pytest.raises(CheckpointError, match=r"width 200 does not divide into 3 .*num_heads"):
        ADiT.from_pretrained(odd)
    loaded = ADiT.from_pretrained(odd, num_heads=(2, 4))
    assert (loaded.config.autoencoder.num_heads, loaded.config.denoiser.num_heads) == (2, 4)
    with pytest.raises(CheckpointError, match="num_heads is for published"):
        ADiT.from_pretrained(num_heads=2)


@pytest.mark.parametrize("size", ["S", "B", "L"])
def test_the_published_sizes_have_these_names(size: str) -> None:
    ours = published.expected_shapes(published.published(size))
    width, depth = {"S": (384, 12), "B": (768, 12), "L": (1024, 24)}[size]
    assert ours == reference.shapes(d=512, layers=8, dit=width, blocks=depth, ff=2048)


@pytest.mark.parametrize("place", ["optimizer", "callback", "named"])
def test_averaged_weights_are_preferred(lightning_files: Path, place: str, model: ADiT) -> None:
    averaged = ADiT.from_pretrained(lightning_files / f"{place}.ckpt", device="cpu").state_dict()
    for name, tensor in model.state_dict().items():
        factor = 2 if name.startswith("denoiser.") else 1
        torch.testing.assert_close(averaged[name], factor * tensor)


def test_the_autoencoder_alone_loads(toy_file: Path, model: ADiT, tmp_path: Path) -> None:
    state = {
        name.removeprefix("autoencoder."): value
        for name, value in model.state_dict().items()
        if name.startswith("autoencoder.")
    }
    torch.save({"state_dict": state}, tmp_path / "vae.ckpt")
    alone = ADiT.from_pretrained(tmp_path / "vae.ckpt", device="cpu")
    batch, _ = padded_structures(6)
    torch.testing.assert_close(alone.encode(batch)[0], model.encode(batch)[0])
    with pytest.raises(ValueError, match="only an autoencoder"):
        alone.sample(1)


def test_licence_and_unknown_names_are_said_once(toy_file: Path) -> None:
    _announced.clear()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            ADiT.from_pretrained(toy_file)
    texts = [str(each.message) for each in seen]
    assert len(texts) == 2
    assert "autoencoder.loss_weights_mp20" in texts[0]
    assert "CC BY-NC 4.0" in texts[1]


def test_every_sample_carries_the_licence(toy_file: Path) -> None:
    generator = ADiTGenerator(
        checkpoint=str(toy_file), num_steps=2, sampler="published", num_atoms=3
    )
    (sample,) = generator.samples(1)
    assert sample.provenance["licence"].startswith("CC BY-NC 4.0")
    assert "CC BY-NC 4.0" in sample.to_ase().info["adit"]["licence"]


def sampled(checkpoint: Path | str) -> list[Sample]:
    recipe = {"num_steps": 3, "sampler": "published", "num_atoms": 4, "device": "cpu"}
    return ADiTGenerator(kind="molecule", checkpoint=str(checkpoint), **recipe).samples(3)


def test_convert_and_back_gives_identical_samples(toy_file: Path, tmp_path: Path) -> None:
    run = CliRunner()
    first = run.invoke(main, ["convert", str(toy_file), str(tmp_path / "ours")])
    assert first.exit_code == 0, first.output
    assert "CC BY-NC 4.0" in first.output
    back = run.invoke(main, ["convert", str(tmp_path / "ours"), str(tmp_path / "back.ckpt")])
    assert back.exit_code == 0, back.output
    expected = sampled(toy_file)
    for place in (tmp_path / "ours", tmp_path / "back.ckpt"):
        for ours, theirs in zip(sampled(place), expected, strict=True):
            assert (ours.atomic_numbers == theirs.atomic_numbers).all()
            assert (ours.positions == theirs.positions).all()
            assert "CC BY-NC 4.0" in ours.provenance["licence"]
    again = run.invoke(main, ["convert", str(toy_file), str(tmp_path / "ours")])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    for overwrite in ([], ["--overwrite"]):
        refused = run.invoke(main, ["convert", str(toy_file), str(tmp_path / "mine"), *overwrite])
        assert refused.exit_code == 2
        assert "no checkpoint" in refused.stderr
    assert names_in(tmp_path / "mine") == ["thesis.tex"]


def test_a_network_of_ours_exports_if_its_options_are_the_published_ones(tmp_path: Path) -> None:
    target = published.published()
    own = ADiT(
        ADiTConfig(
            autoencoder=AutoencoderConfig(
                width=64, num_heads=1, encoder_depth=1, decoder_depth=1, mlp_width=64
            ),
            denoiser=DenoiserConfig(
                width=64, depth=1, num_heads=1, conditions=(Condition("kind", 2),)
            ),
            flow=target.flow,
            size_histogram=published.SIZE_HISTOGRAM,
        )
    )
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.normal_(std=0.1)
    published.export(own.config, own.state_dict(), tmp_path / "own.ckpt")
    with LightningFile(tmp_path / "own.ckpt") as file:
        names = {k: v.shape for k, v in file.content["state_dict"].items()}
    assert names == reference.shapes(d=64, layers=1, dit=64, blocks=1, ff=64)
    loaded = ADiT.from_pretrained(tmp_path / "own.ckpt", device="cpu")
    expected = own.eval().sample(2, num_steps=3, num_atoms=4)
    assert torch.equal(loaded.sample(2, num_steps=3, num_atoms=4).positions, expected.positions)
    release = ADiT.from_pretrained()
    with pytest.raises(ValueError, match=r"input_frame='standard'.*does not know"):
        published.export(release.config, release.state_dict(), tmp_path / "no.ckpt")
    assert names_in(tmp_path) == ["own.ckpt"]
