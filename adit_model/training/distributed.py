"""One run in many processes: `torchrun --nproc-per-node N -m adit_model.training ...`.

Each process has the whole network and draws batches of its own. Their gradients are summed once a
step, so that all processes make the same update; the first one keeps the clock, the log and the
checkpoints. Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
import re
import signal
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from adit_model.training.settings import TrainingError

_BETWEEN_PROCESSES = re.compile(r"gloo|nccl|connection (closed|reset)", re.IGNORECASE)
PATIENCE = timedelta(minutes=10)  # with a process that is silent, its machine cut off


class LostProcessError(TrainingError):
    """Another process of the run has ended."""


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: of this process; 0 writes.
        size: number of processes.
        numbers: group for numbers of the CPU, which no GPU has to be waited for.
    """

    rank: int = 0
    size: int = 1
    numbers: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the log and the checkpoints."""
        return self.rank == 0

    def parts(self, accumulate: int) -> range:
        """Which of the `size * accumulate` batches of a step this process draws.

        A batch's random numbers come from its place among them, so that N processes make the step
        that one makes with N times the `accumulate`.
        """
        return range(self.rank * accumulate, (self.rank + 1) * accumulate)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values of the first; also the place where all meet."""
        if self.size == 1:
            return
        with self.together():
            for tensor in tensors:
                distributed.broadcast(tensor, 0, self.numbers if tensor.is_cpu else None)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum the gradients of all processes, in one go.

        A parameter that no process has a gradient for keeps none: the optimizers leave it alone
        then, as they would in one process.
        """
        if self.size == 1:
            return
        there = self.sum([float(p.grad is not None) for p in parameters])
        owned = [p for p, number in zip(parameters, there, strict=True) if number]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in owned]
        flat = torch.cat([grad.flatten() for grad in grads])
        with self.together():
            distributed.all_reduce(flat)
        parts = flat.split([p.numel() for p in owned])
        for parameter, part in zip(owned, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum numbers over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        with self.together():
            distributed.all_reduce(total, group=self.numbers)
        return list(total.tolist())

    def agree(self, seconds: float, asked_to_end: bool) -> tuple[float, bool]:
        """The first process's clock, and whether any process was asked to end."""
        clock, asked = self.sum([seconds if self.is_first else 0.0, float(asked_to_end)])
        return clock, asked > 0

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over the processes that have it."""
        if self.size == 1:
            return values
        said: list[Any] = [None] * self.size
        with self.together():
            distributed.all_gather_object(said, values, group=self.numbers)
        names = dict.fromkeys(name for each in said for name in each)
        having = {name: [each[name] for each in said if name in each] for name in names}
        return {name: sum(found) / len(found) for name, found in having.items()}

    @contextmanager
    def together(self, wholly: bool = True) -> Iterator[None]:
        """Say in one line what torch says of a lost peer in many.

        Args:
            wholly: nothing else is done in the block, so that every error is of that kind; else
                those that name a means of communication are.

        Raises:
            LostProcessError: another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if not wholly and (self.size == 1 or not _BETWEEN_PROCESSES.search(str(error))):
                raise
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            reason = re.sub(r"^\[\S+\] ", "", line).split(". ")[0]  # without torch's own place
            raise LostProcessError(
                f"process {self.rank + 1} of {self.size} has lost another one, whose own messages "
                f"say why ({reason})"
            ) from error


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun has started, and leave them at the end.

    Args:
        device: what to train on; on a machine with several GPUs each process gets its own.

    Raises:
        TrainingError: there are fewer GPUs than processes, or the others do not answer.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(), device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        number = torch.cuda.device_count()
        if local >= number:
            raise TrainingError(
                f"this machine has {number} GPUs: torchrun --nproc-per-node {number}, or "
                "--device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group(backend_of(device), timeout=PATIENCE)
        # NCCL moves tensors of GPUs alone.
        numbers = None if device.type == "cpu" else distributed.new_group(backend="gloo")
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"the processes of torchrun do not meet: {reason}") from error
    try:
        yield World(distributed.get_rank(), size, numbers), device
        with suppress(RuntimeError):  # who is gone has ended with an error of its own
            distributed.barrier(group=numbers)
    finally:
        with suppress(RuntimeError):
            distributed.destroy_process_group()


def starts_first() -> bool:
    """Whether this process will be the first of a run, before they have met."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def backend_of(device: torch.device) -> str:
    """What moves tensors of a device between processes."""
    return "nccl" if device.type == "cuda" else "gloo"


@contextmanager
def requests_to_end(world: World) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C or SIGTERM has come to one of many processes.

    They have to end after the same step; an exception would leave the others waiting. A single
    process ends at once, by `KeyboardInterrupt`.
    """
    asked: list[int] = []
    if world.size == 1:
        yield lambda: False
        return

    def note(number: int, _: types.FrameType | None) -> None:
        asked.append(number)

    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
