"""The equivariant diffusion of `benchmarks/`: its schedule, its chain, its symmetry, its arrays."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_device_ready import Waits
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from edm_diffusion import ELEMENTS, EquivariantDiffusion, polynomial_schedule, without_mean
from peer_networks import EGNN

NUMBERS = torch.tensor([[8, 1, 1, 6, 7], [9, 6, 1, 1, 1]])


def positions() -> Tensor:
    drawn = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    return without_mean(1.5 * drawn)


def diffusion() -> EquivariantDiffusion:
    torch.manual_seed(0)
    network = EGNN(len(ELEMENTS) + 1, width=16, depth=2)
    for move in network.moves:  # which begin close to none
        torch.nn.init.normal_(move[-2].weight)  # type: ignore[index,union-attr,operator,arg-type]
    return EquivariantDiffusion(network)


class Knowing(EquivariantDiffusion):
    """Predicts the noise that two molecules have."""

    def predict(self, z: Tensor, time: Tensor) -> Tensor:
        gamma = self.gamma[(1000 * time).round().long()]
        alpha, sigma = gamma.neg().sigmoid().sqrt(), gamma.sigmoid().sqrt()
        return ((z - alpha * self.clean(NUMBERS, positions())) / sigma).float()


def test_the_schedule_is_that_of_the_paper() -> None:
    gamma = polynomial_schedule().numpy()
    kept = (1 - (np.arange(1000) / 1000) ** 2) ** 2 * (1 - 2e-5) + 1e-5
    assert gamma[:-1] == pytest.approx(np.log((1 - kept) / kept), abs=1e-6)
    assert (np.diff(gamma) > 0).all()
    assert gamma[0] == pytest.approx(np.log(1e-5), abs=1e-4)


@pytest.mark.parametrize("num_steps", [1000, 40])
def test_the_true_noise_leads_back_to_the_data(num_steps: int) -> None:
    knowing = Knowing(torch.nn.Identity())
    numbers, found = knowing.sample(2, 5, num_steps, torch.Generator().manual_seed(1))
    assert numbers.equal(NUMBERS)
    # What is left is the noise of time 0, 0.003 angstrom, and as much of the last step.
    assert (found - positions()).abs().max() < 0.03
    assert found.mean(dim=1).abs().max() < 1e-6


def test_predictions_turn_with_the_molecule_and_forget_where_it_is() -> None:
    model = diffusion().double()
    z = model.clean(NUMBERS, positions()).double()
    time = torch.tensor(0.3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = torch.cat([z[..., :3] @ turn + 2.0, z[..., 3:]], dim=-1)
    found, again = model.predict(z, time), model.predict(turned, time)
    assert found[..., :3].abs().max() > 0.01
    assert torch.allclose(found[..., :3] @ turn, again[..., :3], atol=1e-10)
    assert torch.allclose(found[..., 3:], again[..., 3:], atol=1e-10)


def test_who_knows_the_noise_has_no_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    knowing = Knowing(torch.nn.Identity()).loss(NUMBERS, positions(), generator)
    assert knowing < 1e-6
    assert diffusion().loss(NUMBERS, positions(), generator) > 0.1


def test_no_step_waits_for_a_gpu() -> None:
    model, generator = diffusion(), torch.Generator().manual_seed(0)
    with Waits() as waits:
        model.loss(NUMBERS, positions(), generator).backward()
        numbers, found = model.sample(3, 5, 4, generator)
    assert not waits.found
    assert found.shape == (3, 5, 3)
    assert set(numbers.flatten().tolist()) <= set(ELEMENTS)


def test_more_steps_than_times_are_refused() -> None:
    with pytest.raises(ValueError, match="--num-steps must be 1 to 1000; got 1001"):
        diffusion().sample(1, 5, 1001, torch.Generator())
