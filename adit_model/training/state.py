"""The state of a run as tensors by name, and a run from such a state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adit_model.model import ADiT
from adit_model.training.distributed import World
from adit_model.training.saving import STATE, on_cpu, read_state
from adit_model.training.settings import TrainingError
from adit_model.training.sharded import parted, whole

if TYPE_CHECKING:
    from adit_model.training.trainer import Trainer


def whole_weights(model: ADiT, world: World) -> dict[str, Tensor]:
    """The model's weights as they are now, which the first process alone keeps."""
    weights = {}
    for name, tensor in model.state_dict().items():
        together = whole(tensor)
        if world.is_first:
            weights[name] = on_cpu(together)
    return weights


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """What resumes a run: this process's parts, or everything."""
    state = {f"ema.{i}": on_cpu(t) for i, t in enumerate(trainer.ema)}
    for i, parameter in enumerate(trainer.parameters):
        state[f"weight.{i}"] = on_cpu(parameter)
        for optimizer in trainer.optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{i}.{key}"] = on_cpu(value)
    return state


def restore(trainer: Trainer) -> None:
    """Continue from the state in the run folder, whatever number of processes wrote it.

    Raises:
        TrainingError: the state is of another stage or architecture.
    """
    config, parameters = trainer.config, trainer.parameters
    path = Path(config.out) / STATE
    at = torch.device("cpu") if trainer.sharded else trainer.device
    progress, tensors = read_state(path, at, parameters)
    shapes = [tuple(p.shape) for p in parameters]
    places = range(len(shapes))
    stored = [tuple(tensors[f"weight.{i}"].shape) for i in places if f"weight.{i}" in tensors]
    if progress["stage"] != config.stage or stored != shapes:
        raise TrainingError(
            f"{path} is of stage {progress['stage']!r} or of another architecture; "
            "use another --out, or the options that the run began with"
        )
    began_with = progress.get("optimizer", "adamw")
    if began_with != config.optimizer:
        raise TrainingError(f"{path} was trained with --optimizer {began_with}; pass the same")
    owners = {p: o for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(parted(tensors[f"weight.{i}"], parameter))
            trainer.ema[i].copy_(parted(tensors[f"ema.{i}"], parameter))
            state = {
                k.rsplit(".", 1)[1]: parted(v, parameter)
                for k, v in tensors.items()
                if k.startswith(f"optimizer.{i}.")
            }
            if state:
                owners[parameter].state[parameter] = state
    trainer.step, trainer.seconds = progress["step"], progress["seconds"]
    trainer.precision = progress["precision"]
    if trainer.writer.shards is not None and "shards" in progress:
        trainer.writer.shards.step = trainer.step
