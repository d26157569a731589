"""Gradients of the parts of a batch in processes of their own: small networks leave cores idle.

Operations of a small network are short for sharing among threads: on two cores two processes did
1.6 times the work of one with a thread, two threads 1.4 times (150 steps of `adit train
prefilter`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor

from adit_plugins.processes import launch

PATIENCE = 10.0  # seconds for a process to end by itself


class LostProcessError(ValueError):
    """A process that computes gradients is gone."""


class GradientProcesses:
    """Copies of this process, forked with its data, that share the parameters of a network.

    The parameters lie in shared memory: what the optimiser writes, the copies read at the next
    step. Only loss and gradient come back.
    """

    def __init__(
        self, network: torch.nn.Module, loss: Callable[[Any], Tensor], num_processes: int
    ) -> None:
        """Fork.

        Args:
            network: on the CPU; its parameters move into shared memory.
            loss: of a part of a batch, as a mean over it; called in each process.
            num_processes: this one among them; 1 forks nothing.

        Raises:
            ValueError: the network is on another device, or this system cannot fork.
        """
        self.network, self.loss = network, loss
        self.helpers: list[tuple[Connection, Tensor]] = []
        self.processes: list[BaseProcess] = []
        if num_processes == 1:
            return
        device = next(network.parameters()).device
        if device.type != "cpu" or "fork" not in multiprocessing.get_all_start_methods():
            raise ValueError(
                f"{num_processes} processes need the CPU of a system that forks; on {device}, "
                "train in one process"
            )
        network.share_memory()
        size = sum(parameter.numel() for parameter in network.parameters())
        for _ in range(num_processes - 1):
            gradient = torch.zeros(size).share_memory_()
            process, ours = launch(self._serve, (gradient,), method="fork")
            self.helpers.append((ours, gradient))
            self.processes.append(process)

    def backward(self, parts: list[Any]) -> float:
        """Leave the mean gradient of the parts in the parameters; returns the mean loss.

        Args:
            parts: one for each process.

        Raises:
            LostProcessError: another process has ended; no parameter has changed.
        """
        try:
            for (pipe, _), part in zip(self.helpers, parts[1:], strict=True):
                pipe.send(part)
            loss = self.loss(parts[0])
            loss.backward()
            losses = [float(loss.detach()), *(pipe.recv() for pipe, _ in self.helpers)]
        except (EOFError, ConnectionError) as error:
            raise LostProcessError(
                "a process of the training has ended (out of memory?); continue with --resume"
            ) from error
        parameters = list(self.network.parameters())
        total = _flat(parameters) + sum(gradient for _, gradient in self.helpers)
        pieces = (total / len(losses)).split([parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)
        return sum(losses) / len(losses)

    def close(self) -> None:
        """Let the other processes end."""
        for pipe, _ in self.helpers:
            pipe.close()
        for process in self.processes:
            process.join(PATIENCE)
            process.kill()
        self.helpers, self.processes = [], []

    def _serve(self, pipe: Connection, gradient: Tensor) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the first process decides, and closes the pipe
        torch.set_num_threads(1)  # the threads of the first one were not forked
        for ours, _ in self.helpers:  # forked with the rest; open here, they would hide its end
            ours.close()
        with contextlib.suppress(EOFError, ConnectionError):  # the first process has ended
            while True:
                part = pipe.recv()
                self.network.zero_grad(set_to_none=True)
                loss = self.loss(part)
                loss.backward()
                gradient.copy_(_flat(list(self.network.parameters())))
                pipe.send(float(loss.detach()))


def _flat(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Return the gradients in one row, zero where there is none."""
    empty = (p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters)
    return torch.cat(list(empty))
