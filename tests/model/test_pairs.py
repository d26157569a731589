"""Pair features: distances that attention sees, added to a trained network without changing it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from test_training import TINY, make_data

from adit_model import ADiT
from adit_model.config import KINDS, DenoiserConfig
from adit_model.denoiser import Denoiser
from adit_model.pairs import PairBias, aim_points
from adit_model.samplers import Guided
from adit_model.sampling import BEFORE_SAMPLING_WAS_RECORDED, KindSampling
from adit_model.training.cli import main


def denoisers() -> tuple[Denoiser, Denoiser]:
    """The same weights without and with pair features."""
    torch.manual_seed(0)
    plain = Denoiser(DenoiserConfig(width=32, depth=2, num_heads=2))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    paired = Denoiser(DenoiserConfig(width=32, depth=2, num_heads=2, pair_bias=True))
    paired.load_state_dict(plain.state_dict(), strict=False)
    return plain, paired


def shaken(denoiser: Denoiser) -> Denoiser:
    """Pair features that say something."""
    with torch.no_grad():
        for parameter in denoiser.pairs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return denoiser


def test_new_pair_features_change_nothing_until_trained() -> None:
    plain, paired = denoisers()
    x, t, previous = torch.randn(3, 5, 8), torch.rand(3), torch.randn(3, 5, 8)
    expected = plain(x, t, {}, previous)
    torch.testing.assert_close(paired(x, t, {}, previous), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(shaken(paired)(x, t, {}, previous), expected, atol=1e-3)


def test_padding_does_not_change_what_the_pairs_say() -> None:
    paired = shaken(denoisers()[1])
    x, t = torch.randn(2, 4, 8), torch.rand(2)
    padded = torch.cat([x, 9 * torch.randn(2, 3, 8)], dim=1)
    mask = torch.arange(7).expand(2, 7) < 4
    answer = paired(padded, t, {}, mask=mask)
    torch.testing.assert_close(answer[:, :4], paired(x, t, {}), atol=1e-5, rtol=1e-4)
    assert (answer[:, 4:] == 0).all()


def test_points_begin_at_the_atoms() -> None:
    torch.manual_seed(1)
    pairs = PairBias(16, 32, 2, 2)
    latents = torch.randn(500, 8)
    coordinates = latents @ torch.randn(8, 3) + 2.0
    aim_points(pairs, latents, coordinates, periodic=False)
    for source in range(2):  # the noisy latents, then the predicted ones
        both = torch.zeros(500, 16)
        both[:, 8 * source : 8 * source + 8] = latents
        points = pairs.points(both).view(500, -1, 3)[:, 2 * source]
        torch.testing.assert_close(
            torch.cdist(points, points), torch.cdist(coordinates, coordinates), atol=2e-2, rtol=1e-3
        )
    aim_points(pairs, latents, coordinates, periodic=True)
    cells = pairs.cells(torch.cat([latents, 0 * latents], dim=1))[:, :3]
    shift = (coordinates - cells).mean(dim=0)
    torch.testing.assert_close(cells + shift, coordinates, atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A tiny two-stage run with pair features."""
    folder = tmp_path_factory.mktemp("pairs")
    data = make_data(folder)
    common = ["--data", *data, "--steps", "30", *TINY]
    assert main(["autoencoder", "--out", str(folder / "one"), *common]) == 0
    extra = ["--autoencoder", str(folder / "one" / "model")]
    assert (
        main(["denoiser", "--out", str(folder / "plain"), *common, *extra, "--no-pair-bias"]) == 0
    )
    assert main(["denoiser", "--out", str(folder / "pairs"), *common, *extra]) == 0
    return folder, data


def test_training_moves_the_pairs_and_the_checkpoint_keeps_them(
    run: tuple[Path, list[str]],
) -> None:
    folder, _ = run
    model = ADiT.from_pretrained(folder / "pairs" / "model", device="cpu")
    assert model.denoiser is not None and model.denoiser.config.pair_bias
    assert model.config.flow.latents == "mean"
    assert bool(model.denoiser.pairs.bias.weight.any())
    assert model.sample(2, kind="molecule", num_steps=2).num_atoms.tolist() == [3, 3]


@pytest.mark.parametrize(("kind", "time", "other"), [(1, 0.5, 0.7), (2, 0.7, 0.3)])
def test_guidance_leads_away_from_the_network_without_a_part(
    kind: int, time: float, other: float
) -> None:
    paired = shaken(denoisers()[1])
    weak = deepcopy(paired)
    with torch.no_grad():
        if kind == 1:  # crystals: a block whose gates are closed changes nothing
            gates = weak.blocks[1].adaLN_modulation[1]
            for i in (2, 5):
                gates.weight[32 * i : 32 * i + 32] = 0
                gates.bias[32 * i : 32 * i + 32] = 0
        else:  # molecules: attention sees no distances
            weak.pairs.bias.weight.zero_()
            weak.pairs.bias.bias.zero_()
    x, labels = torch.randn(3, 5, 8), {"kind": torch.full((3,), kind)}
    good, poor = (net(x, torch.full((3,), time), labels) for net in (paired, weak))
    assert not torch.allclose(good, poor, atol=1e-3)
    settings = BEFORE_SAMPLING_WAS_RECORDED[KINDS[kind - 1]]
    guided = Guided(paired, labels, 1.5, settings)
    torch.testing.assert_close(guided(x, time), poor + 1.5 * (good - poor), atol=1e-5, rtol=1e-5)
    guided.previous = None
    unguided = paired(x, torch.full((3,), other), labels)
    torch.testing.assert_close(guided(x, other), unguided)
    torch.testing.assert_close(Guided(paired, labels, 1.0, settings)(x, time), good)


def test_a_network_without_pairs_is_guided_by_its_label() -> None:
    plain = denoisers()[0]
    with torch.no_grad():
        plain.condition_embedders["kind"].embedding_table.weight.mul_(50)
    x, times = torch.randn(3, 5, 8), torch.full((3,), 0.7)
    told = {"kind": torch.full((3,), 2)}
    good, null = (plain(x, times, labels) for labels in (told, {}))
    assert not torch.allclose(good, null, atol=1e-3)
    guided = Guided(plain, told, 1.5, KindSampling())(x, 0.7)
    torch.testing.assert_close(guided, null + 1.5 * (good - null), atol=1e-5, rtol=1e-5)


def test_a_plain_checkpoint_goes_on_with_pairs(
    run: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = run
    init = str(folder / "plain" / "model")
    options = ["--data", *data, "--init", init, "--steps", "1", "--learning-rate", "1e-9"]
    quiet = ["--threads", "1", "--device", "cpu", "--pair-bias", "--latents", "mean"]
    assert main(["denoiser", "--out", str(tmp_path / "run"), *options, *quiet]) == 0
    old = ADiT.from_pretrained(init, device="cpu")
    new = ADiT.from_pretrained(tmp_path / "run" / "model", device="cpu")
    a, b = (m.sample(2, kind="crystal", num_steps=3, seed=1).positions for m in (old, new))
    torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    options[options.index(init)] = str(folder / "pairs" / "model")
    quiet[quiet.index("--pair-bias")] = "--no-pair-bias"
    assert main(["denoiser", "--out", str(tmp_path / "no"), *options, *quiet]) == 2
    assert "--no-pair-bias" in capsys.readouterr().err
