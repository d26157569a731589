"""How a pre-filter is trained: the options of `adit train prefilter`, checked."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from pathlib import Path

from adit_integrations.mace_adit.labelled import ENERGY_WEIGHT
from adit_model.checked import option

POSITIVE = (
    "minutes", "steps", "batch_size", "learning_rate", "energy_weight", "save_minutes",
    "log_steps", "threads",
)  # fmt: skip
USUAL = {"steps": 10_000, "threads": 1}  # of those that have no default


class TrainingError(ValueError):
    """A run cannot start or go on."""


@dataclass(frozen=True)
class PrefilterTraining:
    """How a pre-filter is trained."""

    labels: tuple[Path, ...] = option(MISSING, "folders of `adit train labels`", metavar="DIR")
    out: Path = option(MISSING, "run folder", metavar="DIR")
    minutes: float = option(40.0, "budget")
    steps: int | None = option(None, "stop after so many; time decides by default")
    batch_size: int = option(16, "structures a process")
    processes: int = option(1, "on a CPU, one a core")
    learning_rate: float = option(0.015, "the highest; for large batches, or small ones after them")
    energy_weight: float = option(ENERGY_WEIGHT, "of the energies' loss; forces and stress have 1")
    seed: int = option(0, "of weights and batches")
    resume: bool = option(False, "continue the run in --out")
    save_minutes: float = option(5.0, "between checkpoints")
    log_steps: int = option(100, "between lines of the log")
    threads: int | None = option(None, "of torch, which chooses by default")
    device: str | None = option(None, "cpu, cuda, ...; by default CUDA if there is one")

    def __post_init__(self) -> None:
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                usual = USUAL.get(name, getattr(PrefilterTraining, name))
                raise TrainingError(
                    f"--{name.replace('_', '-')} must be above 0, such as {usual}; got {value}"
                )
        if self.seed < 0:
            raise TrainingError(f"--seed must be at least 0; got {self.seed}")
        if self.out.exists() and not self.out.is_dir():
            raise TrainingError(f"--out {self.out} is a file; choose a folder")
