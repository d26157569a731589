"""What a training run is told: `TrainingConfig`, of which each field is an option."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from adit_model.autoencoder import LossWeights
from adit_model.checked import problem
from adit_model.training.options import option


class TrainingError(ValueError):
    """A training run cannot start, or its loss is no longer finite."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; recorded in the run folder and, with the hardware, in the checkpoint."""

    stage: Literal["autoencoder", "denoiser", "prior"]
    data: tuple[str, ...] = option(
        MISSING, "prepared files, or folders of them; see `adit data prepare`", metavar="FILE"
    )
    out: str = option(MISSING, "run folder", metavar="DIR")
    shares: tuple[float, ...] = option(
        (), "share of each step's atoms by data set; equal by default", metavar="SHARE"
    )
    tokens: int = option(2048, "atoms a step, in each process and for each of --accumulate")
    draws: int = option(
        1, "batches a step and data set, each of one size; on a GPU several mix the sizes"
    )
    accumulate: int = option(
        1, "times that gradients are summed before a step, where memory holds fewer --tokens"
    )
    optimizer: Literal["adamw", "muon"] = option("adamw", "muon needs torch 2.9")
    learning_rate: float = option(1e-3, "at its highest")
    weight_decay: float = option(0.01, "of AdamW, and of Muon")
    warmup_steps: int = option(200, "in which the learning rate rises")
    decay: float = option(1.0, "last share of the budget, in which the learning rate falls")
    steps: int | None = option(None, "budget; whichever ends first")
    minutes: float | None = option(None, "budget; whichever ends first")
    ema_decay: float = option(0.999, "of the averaged weights, which are those that are kept")
    clip_norm: float = 1.0
    seed: int = option(0, "of weights, batches and noise")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "auto: whichever is faster here"
    )
    save_minutes: float = option(3.0, "between checkpoints")
    keep: int = option(1, "checkpoints; earlier ones than the last are in the run's kept/")
    validate_minutes: float = option(
        10.0, "between losses of the val split, with the same noise each time; 0: never"
    )
    log_steps: int = option(50, "between lines of the log")
    shard_weights: bool = option(
        False,
        "of a network too large for one device, let each process hold a part (FSDP2)",
    )
    threads: int | None = option(None, "of torch, which chooses by default")
    compile: bool = option(False, "torch.compile the network")
    distance_loss: float = option(
        0.0, "weight of distances between atoms in the denoiser's loss (`adit_model.distances`)"
    )
    augmentation: Literal["moved", "none"] = option(
        "moved",
        "what the autoencoder learns from: structures turned at random and half of the crystals "
        "shifted, or none: molecules on their principal axes and crystals as stored",
    )
    decoder_only: bool = option(
        False,
        "train the autoencoder's decoder alone (with --init): latents, and with them a denoiser "
        "and a prior, stay as they are",
    )
    loss_weights: LossWeights = dataclasses.field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        choices = {n: h for n, h in get_type_hints(type(self)).items() if get_origin(h) is Literal}
        for name, hint in choices.items():
            if wanted := problem(getattr(self, name), hint):
                raise TrainingError(f"{name} must be {wanted}; got {getattr(self, name)!r}")
        if self.steps is None and self.minutes is None:
            raise TrainingError("A run needs a budget: pass --steps or --minutes.")
        for name in (
            "tokens", "draws", "accumulate", "learning_rate", "steps", "minutes", "log_steps",
            "keep",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} must be positive; got {value}")
        if not self.validate_minutes >= 0:
            raise TrainingError(f"validate_minutes must be 0 or more; got {self.validate_minutes}")
        others = {"decoder_only": self.decoder_only, "augmentation": self.augmentation != "moved"}
        for name in (name for name, given in others.items() if given):
            if self.stage != "autoencoder":
                raise TrainingError(f"{name} is of the autoencoder; the stage is {self.stage!r}")
        if not 0 < self.decay <= 1:
            raise TrainingError(f"decay must be above 0 and at most 1; got {self.decay}")


STAGES: tuple[str, ...] = get_args(get_type_hints(TrainingConfig)["stage"])


# Options of the autoencoder that one architecture alone has.
ARCHITECTURES = {
    "transformer": {"lattice_input", "input_frame"},
    "equivariant": {"latent_vectors", "vector_width", "cutoff"},
}


def check_architecture(chosen: str, given: Sequence[str]) -> None:
    """Refuse what would change nothing.

    Raises:
        TrainingError: one of the given fields is of another architecture than the chosen one.
    """
    for other, names in ARCHITECTURES.items():
        alone = ["--" + name.replace("_", "-") for name in given if name in names]
        if alone and other != chosen:
            raise TrainingError(
                f"{', '.join(alone)}: of the {other} architecture, and this is {chosen}; "
                f"add --architecture {other}, or leave them out"
            )
