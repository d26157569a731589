"""One network shared out among the processes: FSDP2, and checkpoints of which each writes its part.

Each process keeps a part of every weight, gradient, optimizer state and average, and puts the
weights of a layer together while it is used (`torch.distributed.fsdp.fully_shard`). Checkpoints
are torch.distributed.checkpoint's, in safetensors: `shards/step-N/` of the run folder, which any
number of processes reads.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed, nn

from adit_model.training.settings import TrainingError

if TYPE_CHECKING:
    from adit_model.training.distributed import World

SHARDS = "shards"  # in the run folder
STACKS = ("layers", "blocks")  # whose members are put together one after the other


def check_shardable(stage: str, optimizer: str, compiled: bool) -> None:
    """Refuse what does not go together with shared weights.

    Raises:
        TrainingError: an option does not, or this torch is too old.
    """
    if stage == "prior":
        raise TrainingError("--shard-weights is of the autoencoder and the denoiser")
    if optimizer != "adamw":
        raise TrainingError(
            f"--shard-weights leaves each process a part of a matrix, and --optimizer {optimizer} "
            "needs the whole; take --optimizer adamw, or leave out --shard-weights"
        )
    if compiled:
        raise TrainingError("--compile has not been tried with --shard-weights; leave out one")
    try:
        from torch.distributed.checkpoint import HuggingFaceStorageReader  # noqa: F401
        from torch.distributed.fsdp import fully_shard  # noqa: F401
    except ImportError as error:
        raise TrainingError(
            f"torch {torch.__version__} cannot share weights out in safetensors; take torch 2.9 "
            "or newer, or leave out --shard-weights"
        ) from error


def shard(module: nn.Module, device: torch.device) -> None:
    """Leave this process its part of a module, layer by layer on the device.

    The module may be on the CPU, so that no device has to hold the whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    stacks = [part for name, part in module.named_modules() if name.split(".")[-1] in STACKS]
    layers = [layer for stack in stacks for layer in stack.children()]
    for part in [*layers, module]:
        # The outermost part, too: else it would stay together, with weights that are changed below.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
        part.set_force_sum_reduction_for_comms(device.type == "cpu")  # gloo knows no mean
    if hasattr(module, "loss"):
        register_fsdp_forward_method(module, "loss")


def local(tensor: Tensor) -> Tensor:
    """This process's part, or a tensor that each has whole."""
    part: Any = tensor
    found: Tensor = part.to_local() if is_part(tensor) else tensor
    return found


def is_part(tensor: Tensor) -> bool:
    """Whether the processes have a part of this each."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All parts together; all processes have to ask."""
    part: Any = tensor
    found: Tensor = part.full_tensor() if is_part(tensor) else tensor
    return found


def parted(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that each process has whole, in parts as another is."""
    if not is_part(like) or is_part(tensor) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    told: Any = like
    found: Tensor = distribute_tensor(tensor, told.device_mesh, told.placements, src_data_rank=None)
    return found


class ShardFolder:
    """Writes the parts of all processes, who have to call it together."""

    def __init__(self, world: World) -> None:
        """Let the processes speak about files apart from what they say in training."""
        self.world = world
        self.group = distributed.new_group(backend="gloo") if world.size > 1 else None
        self.step: int | None = None  # that is on the disk

    def save(self, out: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Write `shards/step-N`.

        Raises:
            OSError: a process could not write its part.
        """
        if step == self.step:
            return
        from torch.distributed import checkpoint

        folder = out / SHARDS / name_of(step)
        if self.world.is_first:  # what an earlier run was killed in, with other processes
            shutil.rmtree(folder, ignore_errors=True)
        distributed.barrier(group=self.group)
        writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        try:
            checkpoint.save(dict(tensors), storage_writer=writer, process_group=self.group)
        except checkpoint.CheckpointException as error:
            reason = next(iter(error.failures.values()))[0]
            raise OSError(f"Cannot write {folder}: {reason}") from error
        self.step = step


def remove_others(folder: Path, kept: str | None) -> None:
    """Remove the parts of all steps but one."""
    for each in folder.iterdir() if folder.is_dir() else ():
        if each.name != kept:
            shutil.rmtree(each, ignore_errors=True)


def name_of(step: int) -> str:
    """The folder of a step's parts."""
    return f"step-{step:08d}"


def read_shards(folder: Path, parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    """The tensors of a run, `weight.0`, `ema.0`, ...; each in parts as its parameter is.

    Raises:
        TrainingError: the folder is missing or incomplete.
    """
    from torch.distributed import checkpoint

    reader = checkpoint.HuggingFaceStorageReader(str(folder))
    try:
        known: dict[str, Any] = reader.read_metadata().state_dict_metadata
        found = {}
        for name, about in known.items():
            place = int(name.split(".")[1])
            alike = place < len(parameters) and parameters[place].shape == about.size
            found[name] = (
                torch.zeros_like(parameters[place].detach()) if alike else torch.zeros(about.size)
            )
        alone = not distributed.is_initialized()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that one process is alone
            checkpoint.load(found, storage_reader=reader, no_dist=alone)
    except (OSError, RuntimeError, SafetensorError, checkpoint.CheckpointException) as error:
        raise TrainingError(f"{folder} cannot be read: {error}") from error
    return found
