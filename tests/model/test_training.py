"""Training on tiny made-up data: progress, resuming, interruption, damaged input."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from adit_model import ADiT
from adit_model.config import ADiTConfig, AutoencoderConfig, DenoiserConfig
from adit_model.data import PreparedData, SizeGroups
from adit_model.training.cli import main
from adit_model.training.optimizers import OPTIMIZERS
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
    assert {"autoencoder", "denoiser"} <= new.config.provenance.keys()
    for name, tensor in old.state_dict().items():
        torch.testing.assert_close(new.state_dict()[name], tensor, atol=1e-6, rtol=0)
    for wrong, words in ((["--width", "64"], "--width"), (["--init", "none"], "No checkpoint")):
        assert main(["denoiser", "--out", str(tmp_path / "no"), *options, *wrong]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_an_autoencoder_that_goes_on_alone_says_nothing_of_the_rest(
    stages: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, data = stages
    init, run = str(folder / "two" / "model"), tmp_path / "run"
    quiet = ["--threads", "1", "--device", "cpu", "--precision", "float32"]
    more = ["--data", *data, "--init", init, "--steps", "1", *quiet]
    assert main(["autoencoder", "--out", str(run), *more]) == 0
    config = ADiT.from_pretrained(run / "model").config
    assert config.denoiser is None
    assert not config.sampling
    assert {"autoencoder", "continued_from"} <= config.provenance.keys()
    assert "denoiser" not in config.provenance
