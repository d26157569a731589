"""What is watched while a network learns: losses on unseen structures, and signs of divergence."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from adit_model.training.trainer import Trainer

BATCHES = 16  # of each data set, for a loss on unseen structures
FIRST = 10  # lines of the log before a loss can be called high
HIGH = 4.0  # times the running mean; batches of small and large structures differ by less than 2
MEMORY = 0.9  # of the running mean, a line of the log
LOSS, UNSEEN = "_loss", "_validation_loss"


def validation_losses(trainer: Trainer) -> dict[str, float]:
    """Losses of the val split by kind, of the averaged weights.

    Batches, times and noise are the same at each call, so that numbers of different steps can be
    compared; they do not depend on the number of processes either, which share the batches.
    """
    world, held = trainer.world, trainer.held
    kinds = list(dict.fromkeys(groups.kind for groups in held))
    sums = dict.fromkeys(kinds, 0.0)
    autocast = torch.autocast(
        trainer.device.type, torch.bfloat16, enabled=trainer.precision == "bfloat16"
    )
    # Graphs of another mode would be compiled for a few batches.
    eager = torch.compiler.set_stance("force_eager") if trainer.config.compile else nullcontext()
    trainer.swap_ema()
    trainer.module.eval()
    try:
        with torch.no_grad(), eager, world.together(wholly=False):
            # All call the network equally often, which those with a part of the weights have to.
            for place in range(world.rank, BATCHES + -BATCHES % world.size, world.size):
                for groups in held:
                    mixed = random.Random(f"validation/{place}")  # noqa: S311
                    trainer.generator.manual_seed(mixed.getrandbits(60))
                    loss, _ = trainer.loss(groups, trainer.held_tokens, mixed, autocast)
                    sums[groups.kind] += float(loss) if place < BATCHES else 0.0
    finally:
        trainer.module.train()
        trainer.swap_ema()
    number = {kind: BATCHES * sum(groups.kind == kind for groups in held) for kind in kinds}
    total = world.sum(list(sums.values()))
    return {f"{k}{UNSEEN}": round(s / number[k], 6) for k, s in zip(kinds, total, strict=True)}


class LossWatch:
    """Says once when a loss rises far above its running mean."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.means: dict[str, float] = {}
        self.high: set[str] = set()

    def warning(self, step: int, row: Mapping[str, float]) -> str:
        """A line about the losses of this step, empty if they are as before."""
        found = []
        for name, value in row.items():
            if not name.endswith(LOSS) or name.endswith(UNSEEN):
                continue
            mean = self.means.setdefault(name, value)
            self.seen[name] = self.seen.get(name, 0) + 1
            if self.seen[name] > FIRST and value > HIGH * mean:
                if name not in self.high:
                    found.append(
                        f"{name} {value:.4g} at step {step} is {value / mean:.1f} times its "
                        f"running mean {mean:.4g}"
                    )
                self.high.add(name)
                continue  # the mean stays what it was before
            self.high.discard(name)
            self.means[name] = MEMORY * mean + (1 - MEMORY) * value
        return "; ".join(found)
