"""Training on tiny made-up data: progress, resuming, interruption, damaged input."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from adit_model import ADiT
from adit_model.config import ADiTConfig, AutoencoderConfig, Condition, DenoiserConfig
from adit_model.data import PreparedData, SizeGroups, augment_for_autoencoder
from adit_model.layers import Transformer
from adit_model.training.cli import main
from adit_model.training.optimizers import OPTIMIZERS, StackedMuon, make_optimizers
from adit_model.training.trainer import Trainer, TrainingConfig, TrainingError

TINY = [
    "--width",
    "32",
    "--depth",
    "1",
    "--num-heads",
    "2",
    "--tokens",
    "64",
    "--threads",
    "1",
    "--precision",
    "float32",
    "--log-steps",
    "1",
    "--device",
    "cpu",
]


SMALL = DenoiserConfig(width=16, depth=1, num_heads=2)


def make_data(folder: Path) -> list[str]:
    """Thirty rock-salt-like cells and thirty bent triatomics; every tenth is for testing."""
    generator = torch.Generator().manual_seed(0)
    split = torch.tensor([2 if i % 10 == 0 else 0 for i in range(30)], dtype=torch.uint8)
    lengths = 4 + torch.rand(30, 1, generator=generator).expand(30, 3)
    sites = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    crystals = PreparedData(
        "crystals",
        "crystal",
        torch.tensor([11, 17] * 30, dtype=torch.uint8),
        sites.repeat(30, 1),
        torch.full((30,), 2, dtype=torch.int32),
        split,
        torch.cat([lengths, torch.full((30, 3), 90.0)], dim=1),
    )
    water = torch.tensor([[0.0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]])
    molecules = PreparedData(
        "molecules",
        "molecule",
        torch.tensor([8, 1, 1] * 30, dtype=torch.uint8),
        water.repeat(30, 1),
        torch.full((30,), 3, dtype=torch.int32),
        split,
        None,
    )
    paths = []
    for data in (crystals, molecules):
        paths.append(str(folder / f"{data.name}.safetensors"))
        data.save(Path(paths[-1]))
    return paths


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["crystal_loss"] for row in rows]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Both stages trained for a moment."""
    folder = tmp_path_factory.mktemp("training")
    data = make_data(folder)
    assert (
        main(
            [
                "autoencoder",
                "--data",
                *data,
                "--out",
                str(folder / "one"),
                "--steps",
                "150",
                "--learning-rate",
                "3e-3",
                "--warmup-steps",
                "10",
                *TINY,
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "denoiser",
                "--data",
                *data,
                "--out",
                str(folder / "two"),
                "--steps",
                "100",
                "--autoencoder",
                str(folder / "one" / "model"),
                "--warmup-steps",
                "10",
                "--learning-rate",
                "3e-3",
                "--name",
                "tiny",
                *TINY,
            ]
        )
        == 0
    )
    return folder, data


def test_both_stages_learn_and_leave_a_model_that_samples(
    stages: tuple[Path, list[str]],
) -> None:
    folder, _ = stages
    for run in ("one", "two"):
        values = losses(folder / run)
        assert sum(values[-10:]) < 0.7 * sum(values[:10])
        assert (folder / run / "loss.png").stat().st_size > 1000
    model = ADiT.from_pretrained(folder / "two" / "model", device="cpu")
    assert model.name == "tiny"
    assert model.config.size_histogram["crystal"] == [0, 0, 27]
    assert model.config.provenance["denoiser"]["steps"] == 100
    batch = model.sample(4, kind="molecule", num_steps=4)
    assert batch.num_atoms.tolist() == [3, 3, 3, 3]
    with pytest.raises(ValueError, match="only an autoencoder"):
        ADiT.from_pretrained(folder / "one" / "model").sample(1)


def test_latents_for_the_denoiser_have_unit_variance(stages: tuple[Path, list[str]]) -> None:
    from adit_model.training.trainer import draw_latent

    folder, data = stages
    model = ADiT.from_pretrained(folder / "two" / "model", device="cpu")
    generator = torch.Generator().manual_seed(0)
    latents = []
    for path in data:
        groups = SizeGroups(PreparedData.load(Path(path)), "train", "cpu")
        batch = groups.draw(2048, generator, 0.5)
        latents.append(
            draw_latent(model, batch, generator, groups.kind == "crystal").flatten(0, 1)[:1500]
        )
    mixed = torch.cat(latents)
    torch.testing.assert_close(mixed.mean(0), torch.zeros(8), atol=0.1, rtol=0)
    torch.testing.assert_close(mixed.std(0), torch.ones(8), atol=0.1, rtol=0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path: Path, optimizer: str) -> None:
    from adit_model.config import ADiTConfig, AutoencoderConfig
    from adit_model.training.running import run
    from adit_model.training.stages import initial_model
    from adit_model.training.trainer import Trainer, TrainingConfig

    data = make_data(tmp_path)
    small = AutoencoderConfig(32, 2, 1, 1, 64, lattice_input=True, input_frame="standard")

    def trainer(out: str, optimizer: str = optimizer) -> Trainer:
        (tmp_path / out).mkdir(exist_ok=True)
        config = TrainingConfig(
            "autoencoder",
            tuple(data),
            str(tmp_path / out),
            tokens=64,
            optimizer=optimizer,
            steps=12,
            log_steps=1,
            warmup_steps=4,
            precision="float32",
        )
        model = initial_model(config, ADiTConfig(autoencoder=small), None)
        return Trainer(config, model, torch.device("cpu"))

    def interrupt(row: dict[str, float]) -> None:
        if row["step"] == 5:
            raise KeyboardInterrupt

    whole = trainer("whole")
    assert run(whole, lambda row: None)
    first = trainer("parts")
    assert not run(first, interrupt)
    second = trainer("parts")
    second.resume()
    assert second.step == 5
    assert run(second, lambda row: None)
    for a, b in zip(whole.ema, second.ema, strict=True):
        assert torch.equal(a, b)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    other = next(name for name in OPTIMIZERS if name != optimizer)
    with pytest.raises(TrainingError, match=f"--optimizer {optimizer}"):
        trainer("parts", other).resume()


def test_a_decoder_is_refined_without_touching_latents_denoiser_or_prior(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    small = ["--width", "16", "--num-heads", "2", "--decoder-depth", "1", "--encoder-depth", "1"]
    rest = ["--tokens", "64", "--threads", "1", "--precision", "float32", "--device", "cpu"]
    whole = ADiT(ADiTConfig(autoencoder=AutoencoderConfig(16, 2, 1, 1, 32), denoiser=SMALL))
    whole.save_pretrained(tmp_path / "whole")
    before = whole.state_dict()
    refine = ["autoencoder", "--data", *data, "--steps", "3", "--decoder-only", *rest]
    assert main([*refine, *small, "--out", str(tmp_path / "none")]) == 2  # nothing to refine
    assert main([*refine, "--init", str(tmp_path / "whole"), "--out", str(tmp_path / "run")]) == 0
    after = ADiT.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(
        name.startswith(("autoencoder.decoder.", "autoencoder.post_quant_conv."))
        for name in changed
    )
    with pytest.raises(TrainingError, match="denoiser"):
        TrainingConfig("denoiser", tuple(data), "out", steps=1, decoder_only=True)


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


def test_muon_makes_the_updates_of_hidden_matrices_orthogonal() -> None:
    torch.manual_seed(0)
    module = Transformer(width=32, depth=1, num_heads=2, mlp_width=64)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizers = make_optimizers(module, "muon", learning_rate=0.1, weight_decay=0.0)
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


def test_ctrl_c_keeps_a_valid_checkpoint_and_resume_ends_the_run(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    command = [
        sys.executable,
        "-m",
        "adit_model.training",
        "autoencoder",
        "--data",
        *data,
        "--out",
        str(tmp_path / "run"),
        "--minutes",
        "5",
        *TINY,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors
    ADiT.from_pretrained(tmp_path / "run" / "model")
    rows = log.read_text().count("\n")
    assert main([*command[3:], "--steps", str(rows + 3), "--resume"]) == 0
    steps = [json.loads(row)["step"] for row in log.read_text().splitlines()]
    # Ctrl-C may fall between a step and its line in the log.
    assert steps[-1] == rows + 3
    assert sorted(set(steps)) == steps
    assert len(steps) >= rows + 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--data", "nowhere.safetensors"], ["nowhere.safetensors", "adit data prepare"]),
        (["--tokens", "0"], ["tokens", "0"]),
        (["--precision", "int4"], ["int4", "bfloat16"]),
        (["--optimizer", "sgd"], ["sgd", "muon"]),
        (["--width", "33"], ["33"]),
        (["--size", "S"], ["--size S", "--width"]),
        (["--resume"], ["no run to resume"]),
        (["--shares", "1"], ["shares"]),
    ],
)
def test_bad_options_are_one_clear_line(
    tmp_path: Path, change: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path)
    out = tmp_path / "run"
    arguments = ["autoencoder", "--data", *data, "--out", str(out), "--steps", "1", *TINY, *change]
    try:
        status: Any = main(arguments)
    except SystemExit as left:  # what argparse sees itself
        status = left.code
    assert status == 2
    message = capsys.readouterr().err
    assert message.startswith("Error: ")
    assert message.count("\n") == 1
    for word in words:
        assert word in message
    assert not out.exists()


def test_a_budget_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["autoencoder", "--data", *make_data(tmp_path), "--out", str(tmp_path / "r")]) == 2
    assert "--minutes" in capsys.readouterr().err


def test_damaged_prepared_data_is_refused(tmp_path: Path) -> None:
    path = Path(make_data(tmp_path)[0])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"crystals.safetensors.*adit data prepare"):
        PreparedData.load(path)


def test_a_diverged_run_stops_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PreparedData.load(Path(make_data(tmp_path)[0]))
    cell = data.cell.clone()
    cell[:, 0] = float("nan")
    dataclasses.replace(data, cell=cell).save(tmp_path / "bad.safetensors")
    assert (
        main(
            [
                "autoencoder",
                "--data",
                str(tmp_path / "bad.safetensors"),
                "--steps",
                "3",
                "--out",
                str(tmp_path / "run"),
                *TINY,
            ]
        )
        == 2
    )
    assert "not finite" in capsys.readouterr().err


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


def test_resume_needs_nothing_but_data_and_out(
    stages: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = stages
    out = tmp_path / "run"
    base = ["denoiser", "--data", *data, "--out", str(out), "--threads", "1", "--device", "cpu"]
    begin = [*base, "--steps", "1", "--autoencoder", str(folder / "one" / "model"), *TINY]
    assert main(begin) == 0
    before = ADiT.from_pretrained(out / "model")
    assert main([*base, "--steps", "2", "--tokens", "99", "--resume"]) == 0
    after = ADiT.from_pretrained(out / "model")
    assert after.config.denoiser == before.config.denoiser
    assert "--tokens: " in capsys.readouterr().out
    rows = [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]  # the last step of a run is always logged


def test_training_goes_on_from_a_checkpoint(
    stages: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = stages
    init = str(folder / "two" / "model")
    options = ["--data", *data, "--init", init, "--steps", "1", "--learning-rate", "1e-9"]
    quiet = ["--threads", "1", "--device", "cpu", "--precision", "float32", "--time-mean", "0.2"]
    assert main(["denoiser", "--out", str(tmp_path / "run"), *options, *quiet]) == 0
    old, new = ADiT.from_pretrained(init), ADiT.from_pretrained(tmp_path / "run" / "model")
    assert new.config.flow == dataclasses.replace(old.config.flow, time_mean=0.2)
    assert new.name == "adit"  # ids of new weights must not look like those of a release
    assert new.config.provenance["continued_from"] == f"{old.name} {old.hash}"
    for name, tensor in old.state_dict().items():
        torch.testing.assert_close(new.state_dict()[name], tensor, atol=1e-6, rtol=0)
    for wrong, words in ((["--width", "64"], "--width"), (["--init", "none"], "No checkpoint")):
        assert main(["denoiser", "--out", str(tmp_path / "no"), *options, *wrong]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
