"""What a run says of itself and keeps: unseen losses, divergence, several checkpoints."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import make_data

from adit_model import ADiT
from adit_model.checkpoints import folder as checkpoint
from adit_model.config import ADiTConfig, AutoencoderConfig
from adit_model.data import PreparedData
from adit_model.training.monitoring import FIRST, HIGH, LossWatch, validation_losses
from adit_model.training.running import run
from adit_model.training.settings import TrainingConfig, TrainingError
from adit_model.training.stages import initial_model
from adit_model.training.trainer import Trainer

SMALL = AutoencoderConfig(32, 2, 1, 1, 64)


def make_trainer(folder: Path, **changes: Any) -> Trainer:
    torch.set_num_threads(1)
    paths = make_data(folder)
    for path in map(Path, paths):
        data = PreparedData.load(path)
        split = data.split.clone()
        split[5::10] = 1
        dataclasses.replace(data, split=split).save(path)
    out = folder / "run"
    out.mkdir(exist_ok=True)
    told: dict[str, Any] = {"tokens": 64, "steps": 12, "log_steps": 1, "warmup_steps": 2}
    told |= {"precision": "float32", "learning_rate": 3e-3}
    config = TrainingConfig("autoencoder", tuple(paths), str(out), **(told | changes))
    model = initial_model(config, ADiTConfig(autoencoder=SMALL), None)
    return Trainer(config, model, torch.device("cpu"))


def silent(_: dict[str, float]) -> None:
    pass


def test_unseen_losses_have_the_same_noise_each_time_and_fall(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=120, log_steps=40, ema_decay=0.9)
    weights = [p.detach().clone() for p in trainer.parameters]
    before = validation_losses(trainer)
    assert validation_losses(trainer) == before
    assert set(before) == {"crystal_validation_loss", "molecule_validation_loss"}
    assert all(torch.equal(a, b) for a, b in zip(weights, trainer.parameters, strict=True))
    assert trainer.module.training
    assert run(trainer, silent)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    # By default every ten minutes, and at the end.
    assert ["crystal_validation_loss" in row for row in rows] == [False, False, True]
    assert all(rows[-1][name] < 0.8 * value for name, value in before.items())
    again = make_trainer(tmp_path, validate_minutes=0.0)
    assert not again.held


def test_a_rise_is_told_once_and_again_after_the_loss_was_down() -> None:
    watch = LossWatch()

    def told(value: float) -> bool:
        return bool(watch.warning(7, {"crystal_loss": value, "crystal_validation_loss": 1e9}))

    assert not any(told(1.0) for _ in range(FIRST))
    assert [told(value) for value in (HIGH - 0.5, HIGH + 2, 50.0, 1.2, 60.0)] == [
        False, True, False, False, True,
    ]  # fmt: skip
    assert not LossWatch().warning(1, {"crystal_loss": 1e9})  # nothing to compare with


def test_weights_that_go_astray_are_told_and_the_checkpoint_before_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(tmp_path, steps=FIRST + 6, save_minutes=0.0, decay=0.1)

    def disturb(row: dict[str, float]) -> None:
        if row["step"] == FIRST + 2:
            with torch.no_grad():
                trainer.model.autoencoder.decoder.atom_types_head.weight *= -300

    assert run(trainer, disturb)
    (line,) = capsys.readouterr().err.splitlines()
    assert "crystal_loss" in line and f"step {FIRST + 3} is" in line and "running mean" in line
    kept = tmp_path / "run" / "kept" / f"step-{FIRST + 2:08d}-good"
    assert str(kept) in line
    good = ADiT.from_pretrained(kept / "model", device="cpu")
    last = ADiT.from_pretrained(tmp_path / "run" / "model", device="cpu")
    head = "autoencoder.decoder.atom_types_head.weight"
    assert good.state_dict()[head].abs().max() < 2 < last.state_dict()[head].abs().max()


def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train_step()
    trainer.save(wait=True)
    before = checkpoint.load(tmp_path / "run" / "model")[2]
    trainer.ema[0][...] = torch.nan
    with pytest.raises(TrainingError, match="not finite at step 1"):
        trainer.save(wait=True)
    assert checkpoint.load(tmp_path / "run" / "model")[2] == before


def test_several_checkpoints_are_kept_and_each_goes_on(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_minutes=0.0, keep=3)
    assert run(trainer, silent)
    kept = tmp_path / "run" / "kept"
    # The last is that of step 12, written twice: after the step and at the end.
    assert sorted(path.name for path in kept.iterdir()) == ["step-00000010", "step-00000011"]
    hashes = {
        ADiT.from_pretrained(path / "model").hash for path in (*kept.iterdir(), tmp_path / "run")
    }
    assert len(hashes) == 3
    again = make_trainer(tmp_path)
    again.config = dataclasses.replace(again.config, out=str(kept / "step-00000010"))
    again.resume()
    assert again.step == 10
    again.train_step()
    again.train_step()
    torch.testing.assert_close(again.ema, trainer.ema)


def held_up(monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> threading.Event:
    """Let checkpoints wait on the way to the disk until the event is set."""
    event, save = threading.Event(), checkpoint.save

    def slow(*arguments: Any) -> None:
        assert event.wait(60)
        if error is not None:
            raise error
        save(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    return event


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train_step()
    written = [t.clone() for t in trainer.ema]
    event = held_up(monkeypatch)
    trainer.save()
    trainer.train_step()
    trainer.train_step()
    assert not (tmp_path / "run" / "state.safetensors").exists()
    event.set()
    trainer.writer.wait()
    again = make_trainer(tmp_path)
    again.resume()
    assert again.step == 1
    assert all(torch.equal(a, b) for a, b in zip(again.ema, written, strict=True))


def test_a_full_disk_is_told_at_the_next_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path)
    held_up(monkeypatch, OSError("no space")).set()
    trainer.save()
    with pytest.raises(OSError, match="no space"):
        trainer.save()


def test_checkpoints_are_copied_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("os.link", refuse)
    trainer = make_trainer(tmp_path)
    steps: list[Callable[[], object]] = [trainer.train_step, lambda: trainer.save(wait=True)]
    for step in steps * 2:
        step()
    assert trainer.writer.keep_last() == tmp_path / "run" / "kept" / "step-00000002-good"
    assert ADiT.from_pretrained(tmp_path / "run" / "kept" / "step-00000002-good" / "model")
