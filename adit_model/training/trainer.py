"""Trainer: one training run's data, model, update step, and the state that resumes it."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adit_model.autoencoder import LossWeights
from adit_model.batch import AtomBatch
from adit_model.checked import problem
from adit_model.config import KINDS
from adit_model.data import (
    CompositionTable,
    PreparedData,
    SizeGroups,
    augment_for_autoencoder,
    tokens_by_kind,
)
from adit_model.distances import distance_errors
from adit_model.flow import drop_labels, flow_loss
from adit_model.model import ADiT
from adit_model.outputs import replacing
from adit_model.precision import faster_precision
from adit_model.training.compiled import compile_parts, complete_labels, eager_if_single
from adit_model.training.latents import clean_latents, draw_latent, fixed_latents
from adit_model.training.optimizers import make_optimizers
from adit_model.training.options import option

DISTANCES_FROM = 0.3  # time; earlier predictions are an average of many structures


class TrainingError(ValueError):
    """A training run cannot start, or its loss is no longer finite."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; recorded in the run folder and, with the hardware, in the checkpoint."""

    stage: Literal["autoencoder", "denoiser", "prior"]
    data: tuple[str, ...] = option(
        MISSING, "prepared files, see `adit data prepare`", metavar="FILE"
    )
    out: str = option(MISSING, "run folder", metavar="DIR")
    shares: tuple[float, ...] = option(
        (), "share of each step's atoms by data set; equal by default", metavar="SHARE"
    )
    tokens: int = option(2048, "atoms a step")
    draws: int = option(
        1, "batches a step and data set, each of one size; on a GPU several mix the sizes"
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
    log_steps: int = option(50, "between lines of the log")
    threads: int | None = option(None, "of torch, which chooses by default")
    compile: bool = option(False, "torch.compile the network")
    distance_loss: float = option(
        0.0, "weight of distances between atoms in the denoiser's loss (`adit_model.distances`)"
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
        for name in ("tokens", "draws", "learning_rate", "steps", "minutes", "log_steps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} must be positive; got {value}")
        if self.decoder_only and self.stage != "autoencoder":
            raise TrainingError(f"decoder_only is of the autoencoder; the stage is {self.stage!r}")
        if not 0 < self.decay <= 1:
            raise TrainingError(f"decay must be above 0 and at most 1; got {self.decay}")


STAGES: tuple[str, ...] = get_args(get_type_hints(TrainingConfig)["stage"])


class Trainer:
    """One run: data and model on the device, a step, and everything needed to resume it."""

    def __init__(self, config: TrainingConfig, model: ADiT, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.data = [PreparedData.load(Path(path)) for path in config.data]
        table = CompositionTable if config.stage == "prior" else SizeGroups
        self.groups: list[Any] = [table(data, "train", device) for data in self.data]
        shares = list(config.shares) or [1.0] * len(self.groups)
        self.tokens = tokens_by_kind(self.groups, config.tokens, shares)
        self.model = model.to(device)
        if config.stage == "denoiser":
            model.autoencoder.requires_grad_(False)
        if config.decoder_only:
            model.autoencoder.encoder.requires_grad_(False)
            model.autoencoder.quant_conv.requires_grad_(False)
        trained: nn.Module | None = getattr(model, config.stage)
        if trained is None:
            raise TrainingError(f"This model has no {config.stage}")
        self.module: nn.Module = trained.train()
        self.parameters = list(self.module.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizers = make_optimizers(
            self.module, config.optimizer, config.learning_rate, config.weight_decay
        )
        self.clean: dict[SizeGroups, dict[int, Tensor]] = {}
        if config.stage == "denoiser" and fixed_latents(model.config.flow):
            self.clean = {groups: clean_latents(model, groups) for groups in self.groups}
        self.precision: str = config.precision
        if self.precision == "auto":
            self.precision = faster_precision(device)
        self.generator = torch.Generator(device)
        self.step = 0
        self.seconds = 0.0
        losses: dict[str, Callable[..., tuple[Tensor, dict[str, Tensor]]]] = {
            "autoencoder": self._autoencoder_loss,
            "denoiser": self._flow_loss,
            "prior": self._prior_loss,
        }
        self.loss = losses[config.stage]
        if config.compile:
            compile_parts(model, config.stage)

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        config = self.config
        by_steps = self.step / config.steps if config.steps else 0.0
        by_time = self.seconds / 60 / config.minutes if config.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def learning_rate(self) -> float:
        """Linear warm-up, constant, then linear decay to a hundredth (arXiv 2404.06395)."""
        warm = min(1.0, (self.step + 1) / self.config.warmup_steps)
        left = (1.0 - self.progress()) / self.config.decay
        return self.config.learning_rate * warm * min(1.0, max(0.01, left))

    def train_step(self) -> dict[str, Tensor]:
        """One update from one equal-size batch of each data set.

        All random numbers come from (seed, step), so that a resumed run is the same run.
        """
        mixed = random.Random(f"{self.config.seed}/{self.step}")  # noqa: S311
        self.generator.manual_seed(mixed.getrandbits(60))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
        values: dict[str, Tensor] = {}
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        draws = list(zip(self.groups, self.tokens, strict=True)) * self.config.draws
        for groups, tokens in draws:
            each = max(1, tokens // self.config.draws)
            loss, parts = self.loss(groups, each, mixed, autocast)
            (loss * (tokens / sum(self.tokens) / self.config.draws)).backward()
            values |= {f"{groups.kind}_{k}": v.detach() for k, v in parts.items()}
            values[f"{groups.kind}_loss"] = loss.detach()
        values["grad_norm"] = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.config.ema_decay, self.step / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 1 - decay)
        return values

    def _autoencoder_loss(
        self, groups: SizeGroups, tokens: int, mixed: random.Random, autocast: torch.autocast
    ) -> tuple[Tensor, dict[str, Tensor]]:
        batch = groups.draw(tokens, self.generator, mixed.random())
        # Outside of autocast: bf16 would round cells and positions by hundredths of an angstrom.
        batch = augment_for_autoencoder(batch, self.generator)
        with autocast, eager_if_single(batch.mask.shape[1]):
            return self.model.autoencoder.loss(
                batch, self.config.loss_weights, self.generator, padded=False
            )

    def _flow_loss(
        self, groups: SizeGroups, tokens: int, mixed: random.Random, autocast: torch.autocast
    ) -> tuple[Tensor, dict[str, Tensor]]:
        model, flow = self.model, self.model.config.flow
        assert model.denoiser is not None
        size, rows = groups.choose(tokens, self.generator, mixed.random())
        coin = mixed.random() < 0.5  # not on the device, which would have to be waited for
        if groups in self.clean:
            latent = self.clean[groups][size][rows]
        else:
            with torch.no_grad():
                latent = draw_latent(
                    model, groups.batch(size, rows), self.generator, groups.kind == KINDS[0]
                )
        labels = groups.labels(size, rows, model.denoiser.config.conditions)
        if self.config.compile:
            labels = complete_labels(labels, model.denoiser.config.conditions, latent)
        further = None
        if self.config.distance_loss:
            further = partial(
                self._distance_loss, groups.batch(size, rows), groups.kind == KINDS[0]
            )
        with autocast, eager_if_single(size):
            return flow_loss(model.denoiser, latent, labels, flow, self.generator, coin, further)

    def _prior_loss(
        self, table: CompositionTable, tokens: int, mixed: random.Random, autocast: torch.autocast
    ) -> tuple[Tensor, dict[str, Tensor]]:
        prior = self.model.prior
        assert prior is not None
        numbers, labels = table.draw(tokens, self.generator, prior.config.conditions)
        labels = drop_labels(prior.config.conditions, labels, self.generator)
        torch.manual_seed(mixed.getrandbits(60))  # dropout has no generator of its own
        with autocast:
            return prior.loss(table.kind, numbers, labels), {}

    def _distance_loss(
        self, batch: AtomBatch, periodic: bool, predicted: Tensor, t: Tensor
    ) -> Tensor:
        """Distances in the decoded prediction, once it shows a structure; see `distances`."""
        model = self.model
        # bf16 would blur the decoded positions by as much as the errors that are sought.
        with torch.autocast(predicted.device.type, enabled=False):
            latent = predicted * model.latent_std + model.latent_mean
            decoded = model.autoencoder.decode(latent, mask=None)
            errors = distance_errors(decoded, batch, periodic)
        return self.config.distance_loss * (errors * (t > DISTANCES_FROM)).mean()

    def swap_ema(self) -> None:
        """Exchange the weights and their moving average."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.ema, strict=True):
                kept = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(kept)

    def save(self) -> None:
        """Write the EMA model and the full state; each file replaces its older self at once."""
        out = Path(self.config.out)
        self.swap_ema()
        try:
            self.model.save_pretrained(out / "model")
        finally:
            self.swap_ema()
        tensors = {f"ema.{i}": t for i, t in enumerate(self.ema)}
        tensors |= {f"weight.{i}": p.detach() for i, p in enumerate(self.parameters)}
        for i, parameter in enumerate(self.parameters):
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer.{i}.{key}"] = value
        progress = {
            "step": self.step,
            "seconds": self.seconds,
            "precision": self.precision,
            "stage": self.config.stage,
            "optimizer": self.config.optimizer,
        }
        # The counters ride inside the same file: one rename is atomic, two are not.
        with replacing(out / "state.safetensors") as temporary:
            save_file(
                {k: v.contiguous() for k, v in tensors.items()},
                temporary,
                {"progress": json.dumps(progress)},
            )

    def resume(self) -> None:
        """Continue from the state in the run folder.

        Raises:
            TrainingError: the state is of another stage or architecture.
        """
        path = Path(self.config.out) / "state.safetensors"
        with safe_open(path, framework="pt", device=str(self.device)) as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        shapes = [tuple(p.shape) for p in self.parameters]
        stored = [
            tuple(tensors[f"weight.{i}"].shape)
            for i in range(len(shapes))
            if f"weight.{i}" in tensors
        ]
        if progress["stage"] != self.config.stage or stored != shapes:
            raise TrainingError(
                f"{path} is of stage {progress['stage']!r} or of another architecture; "
                "use another --out, or the options that the run began with"
            )
        began_with = progress.get("optimizer", "adamw")
        if began_with != self.config.optimizer:
            raise TrainingError(f"{path} was trained with --optimizer {began_with}; pass the same")
        owners = {p: o for o in self.optimizers for g in o.param_groups for p in g["params"]}
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"weight.{i}"])
                self.ema[i].copy_(tensors[f"ema.{i}"])
                state = {
                    k.rsplit(".", 1)[1]: v
                    for k, v in tensors.items()
                    if k.startswith(f"optimizer.{i}.")
                }
                if state:
                    owners[parameter].state[parameter] = state
        self.step, self.seconds = progress["step"], progress["seconds"]
        self.precision = progress["precision"]
