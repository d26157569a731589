"""The loop of a run: steps, the log, checkpoints, and every way to end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from adit_model.training.distributed import LostProcessError, requests_to_end
from adit_model.training.monitoring import LossWatch, validation_losses
from adit_model.training.settings import TrainingError
from adit_model.training.trainer import Trainer
from adit_model.training.utilisation import COUNTED, FlopMeter

Row = dict[str, float]


def run(trainer: Trainer, report: Callable[[Row], None]) -> bool:
    """Train until the budget ends or Ctrl-C; either way a complete checkpoint is left.

    Returns:
        True if the budget ended, False if the user interrupted.

    Raises:
        TrainingError: the loss is no longer finite, or another process has ended; the last
            checkpoint is kept.
        OSError: a checkpoint or the log cannot be written.
    """
    saved = trainer.seconds
    try:
        journal = _Journal(trainer, report)
        began = time.monotonic() - trainer.seconds
        with requests_to_end(trainer.world) as asked_to_end:
            while trainer.progress() < 1.0:
                values = trainer.train_step()
                trainer.seconds, asked = trainer.world.agree(
                    time.monotonic() - began, asked_to_end()
                )
                over = trainer.progress() >= 1.0
                if trainer.step % trainer.config.log_steps == 0 or over or asked:
                    journal.write(values, over)
                if asked:
                    raise KeyboardInterrupt
                if trainer.seconds - saved > 60 * trainer.config.save_minutes:
                    trainer.save()
                    saved = trainer.seconds
    except KeyboardInterrupt:
        trainer.save(wait=True)
        return False
    except LostProcessError as error:
        if trainer.sharded:  # whose parts are gone with it
            raise LostProcessError(
                f"{error}. The last checkpoint stands: start all processes again with --resume"
            ) from error
        trainer.save(wait=True)
        raise LostProcessError(
            f"{error}. The checkpoint is that of step {trainer.step}: start all processes again "
            "with --resume"
        ) from error
    trainer.save(wait=True)
    return True


class _Journal:
    """Lines of the log, with what they are made of."""

    def __init__(self, trainer: Trainer, report: Callable[[Row], None]) -> None:
        self.trainer, self.report = trainer, report
        self.watch = LossWatch()
        bfloat16 = trainer.precision == "bfloat16"
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        self.flops = FlopMeter(trainer.device, dtype, trainer.config.compile)
        for ahead in range(COUNTED):
            with self.flops.counting():
                trainer.rehearse(ahead)
        self.time, self.step, self.validated = time.monotonic(), trainer.step, trainer.seconds

    def write(self, values: dict[str, Tensor], over: bool) -> None:
        """Log a step, the mean of all processes.

        Raises:
            TrainingError: a value is not finite.
        """
        trainer, world = self.trainer, self.trainer.world
        row = world.mean({k: round(float(v), 6) for k, v in values.items()})
        if not all(map(_finite, row.values())):
            raise TrainingError(
                f"loss is not finite at step {trainer.step}: {row}; the checkpoint before is "
                "kept: go on from it with --resume and a lower --learning-rate"
            )
        now = time.monotonic()
        steps, seconds = trainer.step - self.step, max(now - self.time, 1e-9)
        warning = self.watch.warning(trainer.step, row)
        row |= self._unseen(over) | {
            "step": trainer.step,
            "minutes": round(trainer.seconds / 60, 3),
            "learning_rate": trainer.learning_rate(),
            "tokens_per_second": round(steps * trainer.tokens_per_step / seconds),
            **self.flops.row(steps, seconds),
            "progress": trainer.progress(),
        }
        self.time, self.step = time.monotonic(), trainer.step
        if not world.is_first:
            return
        with (Path(trainer.config.out) / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.report(row)
        if warning:
            kept = trainer.writer.keep_last()
            where = f"the last checkpoint before is kept in {kept}" if kept else "none is saved yet"
            print(f"Warning: {warning}; {where}.", file=sys.stderr, flush=True)

    def _unseen(self, over: bool) -> Row:
        """Losses of the val split where they are due."""
        trainer, minutes = self.trainer, self.trainer.config.validate_minutes
        if not trainer.held or not (over or trainer.seconds - self.validated > 60 * minutes):
            return {}
        self.validated = trainer.seconds
        return validation_losses(trainer)


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
