"""Training of EDM for some minutes, and samples of it; `equivariant_diffusion.py` says what for."""

from __future__ import annotations

import argparse
import platform
import random
import time
from typing import Any

import numpy as np
import torch
from edm_diffusion import ELEMENTS, EquivariantDiffusion, number_of_weights
from peer_networks import EGNN
from torch import Tensor, nn

from adit_model.data import PreparedData, SizeGroups

LOG_STEPS = 20
FALLS = 0.35  # of the minutes, the last, in which learning rates fall
Molecules = list[tuple[Tensor, Tensor]]  # atomic numbers and positions, by size


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Training:
    """EDM's network with its optimizer and the mean of its weights."""

    def __init__(self, data: PreparedData, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args, self.device = args, torch.device(args.device)
        self.model = EquivariantDiffusion(EGNN(len(ELEMENTS) + 1, args.width, args.depth))
        self.model.to(self.device)
        self.weights = list(self.model.parameters())
        self.mean = [p.detach().clone() for p in self.weights]
        # As EDM's: amsgrad, next to no decay.
        self.optimizer = torch.optim.AdamW(
            self.weights, args.learning_rate, amsgrad=True, weight_decay=1e-12
        )
        self.groups = SizeGroups(data, "train", self.device)
        self.generator = torch.Generator(self.device).manual_seed(args.seed)
        self.picks = random.Random(args.seed)  # noqa: S311
        self.step = self.atoms = 0

    def add_gradients(self) -> Tensor:
        """The loss of as many batches as `--draws`, each of molecules of one size."""
        draws, losses = self.args.draws, []
        for _ in range(draws):
            tokens = max(1, self.args.tokens // draws)
            size, rows = self.groups.choose(tokens, self.generator, self.picks.random())
            numbers, positions, _ = self.groups.groups[size]
            loss = self.model.loss(numbers[rows], positions[rows], self.generator) / draws
            loss.backward()
            losses.append(loss.detach())
            self.atoms += size * len(rows)
        return torch.stack(losses).sum()

    def take_step(self, progress: float) -> Tensor:
        """One update at a share of the minutes; the loss."""
        rise = min(1.0, (self.step + 1) / self.args.warmup_steps)
        fall = min(1.0, max(0.01, (1 - progress) / FALLS))
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.learning_rate * rise * fall
        loss = self.add_gradients()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.args.ema_decay, self.step / (10 + self.step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.weights], 1 - decay)
        return loss

    def run(self) -> dict[str, Any]:
        """Train for the minutes, leave the mean weights in the model; what it cost.

        Raises:
            ValueError: the loss is no longer finite.
        """
        self.add_gradients()  # sets everything up
        self.optimizer.zero_grad(set_to_none=True)
        wait(self.device)
        self.atoms, losses, some = 0, [], []
        start, budget, seconds = time.perf_counter(), 60 * self.args.minutes, 0.0
        while seconds < budget:
            some.append(self.take_step(seconds / budget))
            seconds = time.perf_counter() - start
            if self.step % LOG_STEPS == 0 or seconds >= budget:
                losses.append([self.step, round(float(torch.stack(some).mean()), 5)])
                some = []
                print(f"edm {seconds:.0f} s, step {self.step}, loss {losses[-1][1]}", flush=True)
                if not np.isfinite(losses[-1][1]):
                    raise ValueError("EDM's loss is not finite: lower --learning-rate")
        wait(self.device)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.mean)
        names = ("learning_rate", "tokens", "draws", "warmup_steps", "ema_decay", "width", "depth")
        return made(self.model, self.step, self.atoms, seconds, losses, self.device) | {
            "precision": "float32, TF32 products" if self.device.type == "cuda" else "float32",
            "settings": {name: getattr(self.args, name) for name in names},
        }


def made(
    model: nn.Module,
    steps: int,
    atoms: int,
    seconds: float,
    losses: list[list[float]],
    device: torch.device,
) -> dict[str, Any]:
    """What a result says of a training, at most 100 of its (step, loss), the last among them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "parameters_million": round(number_of_weights(model) / 1e6, 2),
        "steps": steps,
        "atoms_seen": atoms,
        "seconds": round(seconds, 1),
        "ms_a_step": round(1000 * seconds / max(1, steps), 2),
        "losses": losses[:: -max(1, -(-len(losses) // 100))][::-1],
        "device": name,
        "torch": torch.__version__,
    }


def sample_edm(
    model: EquivariantDiffusion, histogram: list[int], args: argparse.Namespace
) -> Molecules:
    """Samples of sizes as often as in the training data, size by size."""
    chances = np.array(histogram) / sum(histogram)
    sizes = np.random.default_rng(args.seed).choice(len(chances), args.num, p=chances)
    generator = torch.Generator(model.gamma.device).manual_seed(args.seed)
    found = []
    for size, num in zip(*np.unique(sizes, return_counts=True), strict=True):
        drawn = model.sample(int(num), int(size), args.num_steps, generator, args.eager)
        found += [(numbers, positions) for numbers, positions in zip(*drawn, strict=True)]
    return found
