"""Trainer: one training run's data, model, update step, and the state that resumes it."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adit_model.batch import AtomBatch
from adit_model.config import KINDS
from adit_model.data import (
    SPLITS,
    CompositionTable,
    PreparedData,
    SizeGroups,
    augment_for_autoencoder,
    frame_for_denoiser,
    tokens_by_kind,
)
from adit_model.distances import distance_errors
from adit_model.flow import drop_labels, flow_loss
from adit_model.model import ADiT
from adit_model.precision import faster_precision
from adit_model.sharded_data import ShardedData, groups_of, load_data
from adit_model.training.compiled import compile_parts, complete_labels, eager_if_single
from adit_model.training.distributed import World
from adit_model.training.latents import clean_latents, draw_latent, fixed_latents
from adit_model.training.optimizers import make_optimizers
from adit_model.training.saving import Checkpoint, CheckpointWriter
from adit_model.training.settings import STAGES, TrainingConfig, TrainingError
from adit_model.training.sharded import ShardFolder, check_shardable, is_part, local, shard, whole
from adit_model.training.state import restore, state_of, whole_weights

__all__ = ["STAGES", "Trainer", "TrainingConfig", "TrainingError", "draw_latent"]

DISTANCES_FROM = 0.3  # time; earlier predictions are an average of many structures


class Trainer:
    """One run: data and model on the device, a step, and everything needed to resume it."""

    def __init__(
        self,
        config: TrainingConfig,
        model: ADiT,
        device: torch.device,
        world: World | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.world = world or World()
        self.sharded = config.shard_weights and self.world.size > 1
        if config.shard_weights:
            check_shardable(config.stage, config.optimizer, config.compile)
        shards = ShardFolder(self.world) if self.sharded else None
        self.writer = CheckpointWriter(Path(config.out), config.keep, shards)
        self.data = [load_data(Path(path)) for path in config.data]
        self.groups: list[Any] = [self._table(data, "train") for data in self.data]
        shares = list(config.shares) or [1.0] * len(self.groups)
        self.tokens = tokens_by_kind(self.groups, config.tokens, shares)
        self.tokens_per_step = sum(self.tokens) * self.world.size * config.accumulate
        unseen = [data for data in self.data if (data.split == SPLITS.index("val")).any()]
        self.held: list[Any] = []  # what the losses during the run are asked of
        if config.validate_minutes:
            self.held = [self._table(data, "val") for data in unseen]
        self.held_tokens = max(self.tokens)
        self.model = model
        if config.stage == "denoiser":
            model.autoencoder.requires_grad_(False)
        if config.decoder_only:
            model.autoencoder.encoder.requires_grad_(False)
            model.autoencoder.quant_conv.requires_grad_(False)
        trained: nn.Module | None = getattr(model, config.stage)
        if trained is None:
            raise TrainingError(f"This model has no {config.stage}")
        if self.sharded:
            self.world.share(list(trained.state_dict().values()))
            shard(trained, device)
        model.to(device)
        self.module: nn.Module = trained.train()
        self.parameters = list(self.module.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.precision: str = config.precision
        if self.precision == "auto":
            # One decision for all: processes that time it each for itself might disagree.
            faster = self.world.is_first and faster_precision(device) == "bfloat16"
            (chosen,) = self.world.sum([float(faster)])
            self.precision = "bfloat16" if chosen else "float32"
        lower = self.precision == "bfloat16" or device.type == "cuda"
        self.optimizers = make_optimizers(
            self.module,
            config.optimizer,
            config.learning_rate,
            config.weight_decay,
            torch.bfloat16 if lower else torch.float32,
        )
        self.clean: dict[SizeGroups, dict[int, Tensor]] = {}
        if config.stage == "denoiser" and fixed_latents(model.config.flow):
            here = [groups for groups in self.groups if not groups.streamed]
            self.clean = {groups: clean_latents(model, groups) for groups in here}
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

    def _table(self, data: PreparedData | ShardedData, split: str) -> Any:
        if self.config.stage == "prior":
            return CompositionTable(data.compositions(), split, self.device)
        return groups_of(data, split, self.device)

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
        """One update from equal-size batches of each data set, in all processes together.

        All random numbers come from (seed, step, place of the batch among those of the step), so
        that a resumed run is the same run, with any number of processes.
        """
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
        found: defaultdict[str, list[Tensor]] = defaultdict(list)
        with self.world.together(wholly=False):
            for part in self.world.parts(self.config.accumulate):
                self._add_gradients(part, found)
            if not self.sharded:
                self.world.sum_gradients(self.parameters)
            norm = whole(nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm))
        values = {k: torch.stack(each).mean() if each[1:] else each[0] for k, each in found.items()}
        values["grad_norm"] = norm
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.config.ema_decay, self.step / (10 + self.step))
        with torch.no_grad():
            weights = [local(p.detach()) for p in self.parameters]
            torch._foreach_lerp_([local(t) for t in self.ema], weights, 1 - decay)
        return values

    def rehearse(self, ahead: int) -> None:
        """Make the gradients of a step to come, and forget them."""
        step, self.step = self.step, self.step + ahead
        with self.world.together(wholly=False):
            for part in self.world.parts(self.config.accumulate):
                self._add_gradients(part, defaultdict(list))
        self.step = step
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _add_gradients(self, part: int, found: dict[str, list[Tensor]]) -> None:
        """Add the gradients of one of the batches of a step, and its losses to what was found."""
        stream = f"{self.config.seed}/{self.step}" + (f"/{part}" if part else "")
        mixed = random.Random(stream)  # noqa: S311
        self.generator.manual_seed(mixed.getrandbits(60))
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        draws = list(zip(self.groups, self.tokens, strict=True)) * self.config.draws
        for groups, tokens in draws:
            each = max(1, tokens // self.config.draws)
            loss, parts = self.loss(groups, each, mixed, autocast)
            share = tokens / self.config.draws / self.tokens_per_step
            if self.sharded:  # whose backward takes the mean over the processes
                share *= self.world.size
            (loss * share).backward()
            for name, value in {"loss": loss, **parts}.items():
                found[f"{groups.kind}_{name}"].append(value.detach())

    def _autoencoder_loss(
        self, groups: SizeGroups, tokens: int, mixed: random.Random, autocast: torch.autocast
    ) -> tuple[Tensor, dict[str, Tensor]]:
        batch = groups.draw(tokens, self.generator, mixed.random())
        # Outside of autocast: bf16 would round cells and positions by hundredths of an angstrom.
        if self.config.augmentation == "moved":
            batch = augment_for_autoencoder(batch, self.generator)
        else:
            frame = self.model.config.flow.molecule_frame
            batch = frame_for_denoiser(batch, frame, self.generator, groups.kind == KINDS[0])
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
            return flow_loss(
                model.denoiser, latent, labels, flow, self.generator, coin, further, self.sharded
            )

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
                kept = local(parameter.detach()).clone()
                local(parameter.detach()).copy_(local(average))
                local(average).copy_(kept)

    def save(self, wait: bool = False) -> None:
        """Write the EMA model and the full state, in a thread beside the training.

        Each file replaces its older self at once.

        Args:
            wait: until they are on the disk.

        Raises:
            TrainingError: the weights are not finite, or another process that has a part of them
                has ended; the checkpoint before stays.
            OSError: this one, or the one before, cannot be written.
        """
        if self.world.is_first or self.sharded:
            with self.world.together(wholly=False):
                self._save(wait)

    def _save(self, wait: bool) -> None:
        norm = torch.stack(torch._foreach_norm([local(t) for t in self.ema])).sum()
        if not math.isfinite(sum(self.world.sum([float(norm)]) if self.sharded else [norm])):
            raise TrainingError(
                f"the weights are not finite at step {self.step}; the checkpoint before is kept: "
                "go on from it with --resume and a lower --learning-rate"
            )
        self.swap_ema()
        try:
            weights = whole_weights(self.model, self.world)
        finally:
            self.swap_ema()
        state = state_of(self)
        parts = {name: state.pop(name) for name, tensor in list(state.items()) if is_part(tensor)}
        progress = {
            "step": self.step,
            "seconds": self.seconds,
            "precision": self.precision,
            "stage": self.config.stage,
            "optimizer": self.config.optimizer,
        }
        self.writer.write(Checkpoint(self.model.config, weights, state, progress, parts))
        if wait:
            self.writer.wait()

    def replicated(self) -> list[Tensor]:
        """What every process has whole."""
        return [t for t in [*self.model.state_dict().values(), *self.ema] if not is_part(t)]

    def resume(self) -> None:
        """Continue from the state in the run folder.

        Raises:
            TrainingError: the state is of another stage or architecture.
        """
        restore(self)
