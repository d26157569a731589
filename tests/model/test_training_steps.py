"""What a training step is made of: batches, optimizers, precision, compiled layers."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from test_training import TINY, losses, make_data, stages

from adit_model import ADiT
from adit_model.config import ADiTConfig, AutoencoderConfig, Condition, DenoiserConfig
from adit_model.data import PreparedData, SizeGroups, augment_for_autoencoder
from adit_model.layers import Transformer
from adit_model.training.cli import main
from adit_model.training.optimizers import StackedMuon, make_optimizers
from adit_model.training.trainer import Trainer, TrainingConfig

_ = stages  # a fixture


def test_muon_in_stacks_gives_the_numbers_of_torch() -> None:
    torch.manual_seed(0)
    shapes = [(24, 8), (24, 8), (8, 24), (8, 8)]
    first = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    idle = torch.nn.Parameter(torch.ones(8, 8))  # has no gradient
    options = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    theirs = torch.optim.Muon(first, **options)
    ours = StackedMuon([*second, idle], **options)
    for _ in range(4):
        for a, b in zip(first, second, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        theirs.step()
        ours.step()
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-6)
    assert (idle == 1).all()


def test_draws_in_compiled_layers_give_the_losses_of_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs are those of `--compile`, run without a C++ compiler."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compile_(self, backend="eager")
    )
    paths = tuple(make_data(tmp_path))
    autoencoder = AutoencoderConfig(width=16, num_heads=2, encoder_depth=1, decoder_depth=1)
    conditions = (Condition("kind", 2), Condition("gap", 1, "number"), Condition("group", 3))
    denoiser = DenoiserConfig(width=16, depth=2, num_heads=2, conditions=conditions, pair_bias=True)
    losses = []
    for compiled in (False, True):
        config = TrainingConfig(
            "denoiser",
            paths,
            str(tmp_path / "run"),
            steps=9,
            tokens=64,
            draws=2,
            precision="float32",
            compile=compiled,
            distance_loss=0.1,
        )
        torch.manual_seed(0)
        model = ADiT(ADiTConfig(autoencoder=autoencoder, denoiser=denoiser))
        trainer = Trainer(config, model, torch.device("cpu"))
        # The first batch: what is withheld from later ones depends on the labels that there are.
        trainer.generator.manual_seed(0)
        groups = trainer.groups[0]
        loss, _ = trainer.loss(groups, 64, random.Random(0), torch.autocast("cpu", enabled=False))
        losses.append(float(loss.detach()))
        values = trainer.train_step()
        assert all(map(math.isfinite, map(float, values.values())))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_muon_makes_the_updates_of_hidden_matrices_orthogonal(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = Transformer(width=32, depth=1, num_heads=2, mlp_width=64)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizers = make_optimizers(module, "muon", learning_rate=0.1, weight_decay=0.0, dtype=dtype)
    owned = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(map(id, owned)) == sorted(map(id, module.parameters()))
    (module(torch.randn(64, 9, 32), None) - torch.randn(64, 9, 32)).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
    for name, parameter in module.named_parameters():
        if parameter.dim() == 2:
            update = (parameter.detach() - before[name]) / (0.1 * 0.2 * max(parameter.shape) ** 0.5)
            values, raw = map(torch.linalg.svdvals, (update, parameter.grad))
            assert values.max() < 1.4, name
            assert values.median() > 0.5, name
            assert raw.median() < 0.5 * raw.max(), name


def test_batches_reach_every_structure_and_keep_its_geometry(tmp_path: Path) -> None:
    groups = SizeGroups(PreparedData.load(Path(make_data(tmp_path)[0])), "train", "cpu")
    assert len(groups) == 27
    assert sum(rows.stop - rows.start for _, rows in groups.batches(16)) == 27
    generator = torch.Generator().manual_seed(0)
    batch = groups.draw(64, generator, 0.3)
    moved = augment_for_autoencoder(batch, generator)
    torch.testing.assert_close(moved.positions, moved.frac_coords @ moved.lattice)
    apart = (moved.frac_coords[:, 0] - moved.frac_coords[:, 1] + 0.5) % 1.0 - 0.5
    torch.testing.assert_close(apart.abs(), torch.full_like(apart, 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.lattice.det().abs(), batch.lattice.det().abs())


def test_bfloat16_trains_as_float32_does(stages: tuple[Path, list[str]], tmp_path: Path) -> None:
    """What a GPU runs: autocast through both stages, weights and losses in float32."""
    folder, data = stages
    for stage, extra in (
        ("autoencoder", []),
        ("denoiser", ["--autoencoder", str(folder / "one" / "model")]),
    ):
        runs = {}
        for precision in ("float32", "bfloat16"):
            out = tmp_path / f"{stage}-{precision}"
            arguments = [stage, "--data", *data, "--out", str(out), "--steps", "12", *extra, *TINY]
            assert main([*arguments, "--precision", precision]) == 0
            runs[precision] = losses(out)
        assert runs["bfloat16"] == pytest.approx(runs["float32"], rel=0.05)
        assert runs["bfloat16"] != runs["float32"]
