"""Distil a small MACE from labelled structures: `adit train prefilter`.

Energies, forces and stresses of the teacher with absolute errors, each in units of what is asked
of the pre-filter; whole formulas are held out. A run resumes, on a CPU or with CUDA.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import signal
import sys
import time
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adit_integrations.mace_adit import network as nets
from adit_integrations.mace_adit.gradient_processes import GradientProcesses, LostProcessError
from adit_integrations.mace_adit.label_set import Labels, taught
from adit_integrations.mace_adit.labelled import (
    atomic_energies,
    errors,
    evaluate,
    known_elements,
    loss_of,
    prepare,
)
from adit_integrations.mace_adit.training_options import PrefilterTraining, TrainingError
from adit_model.outputs import replacing
from adit_model.training.cli import INTERRUPTED, Parser
from adit_model.training.options import add_options, changes_of, values_of
from adit_plugins.generation.recipe import check_device

STATE = "state.safetensors"
WARMUP_STEPS, EMA_DECAY, CLIP = 100, 0.999, 20.0
FINAL_RATE = 0.01  # of the learning rate
FIRST_HEAD = (
    0.7  # of the structures of a batch teach the readout that answers, others the committee
)


def _check_processes(num: int, device: torch.device) -> None:
    """Several processes are for CPUs.

    Raises:
        TrainingError: they cannot be had.
    """
    if num < 1:
        raise TrainingError(f"--processes must be at least 1; got {num}")
    if num > 1 and device.type != "cpu":
        raise TrainingError(f"--processes {num} is for CPUs: add --device cpu, or leave it out")


class Trainer:
    """A run: network, its average, optimiser and time."""

    def __init__(self, options: PrefilterTraining, config: nets.NetworkConfig) -> None:
        """Read the labels and build the network.

        Raises:
            ValueError: there are no labels, or a run cannot start or go on.
        """
        self.options, self.out = options, options.out
        check_device(options.device)
        self.device = torch.device(
            options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        )
        _check_processes(options.processes, self.device)
        labels, self.taught = Labels.load(options.labels), taught(options.labels)
        config = dataclasses.replace(config, convention=self.taught.convention)
        if labels.molecules.any():  # a readout more, after the one that answers for crystals
            config = dataclasses.replace(config, molecules=True, num_heads=config.num_heads + 1)
        self.train = prepare(labels, config, labels.split("train"))
        self.val = prepare(labels, config, labels.split("val"))
        if not self.train.graphs or not self.val.graphs:
            raise TrainingError(f"Too few labels ({len(labels)}) to hold formulas out.")
        if len(self.train.graphs) < options.processes:
            raise TrainingError(
                f"--processes {options.processes} is more than the {len(self.train.graphs)} "
                "structures"
            )
        bonds = sum(g.edges.shape[1] for g in self.train.graphs)
        atoms = sum(len(g.elements) for g in self.train.graphs)
        self.config = dataclasses.replace(
            config,
            avg_num_neighbors=round(bonds / atoms, 1),
            known=known_elements(self.train, config),
        )
        if config.molecules:
            own = known_elements(self.train, config, config.molecule_head)
            self.config = dataclasses.replace(self.config, known_in_molecules=own)
        torch.manual_seed(options.seed)
        self.network = nets.build(self.config).to(self.device)
        energies = torch.tensor(atomic_energies(self.train, self.config))
        self.network.get_buffer(nets.ATOMIC_ENERGIES).copy_(energies)
        self.step, self.seconds = 0, 0.0
        self.average = {k: v.clone() for k, v in nets.tensors_of(self.network).items()}
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=options.learning_rate)

    def resume(self) -> None:
        """Go on from the state in the run folder.

        Raises:
            TrainingError: it is damaged or belongs to another network.
        """
        path = self.out / STATE
        try:
            with safe_open(path, framework="pt") as file:
                progress = json.loads(file.metadata()["progress"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path} is damaged: {error}. Choose another --out.") from error
        if progress["structures"] != len(self.train.graphs):
            print(f"The labels grew: {progress['structures']} -> {len(self.train.graphs)}")

        def part(name: str) -> dict[str, Tensor]:
            start = f"{name}|"
            return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

        try:
            nets.set_tensors(self.network, part("network"), str(path))
        except nets.PrefilterError as error:
            raise TrainingError(
                f"{path} is of another network: --resume needs the run's network options and kinds "
                f"of structures (crystals, molecules). Choose another --out. ({error})"
            ) from error
        self.average = {k: v.to(self.device) for k, v in part("average").items()}
        self.step, self.seconds = progress["step"], progress["seconds"]
        first, second = part("first"), part("second")
        for name, parameter in self.network.named_parameters():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": first[name].to(self.device),
                "exp_avg_sq": second[name].to(self.device),
            }

    def save(self) -> None:
        """Write the state, and the averaged weights as a model folder."""
        tensors = {f"network|{k}": v for k, v in nets.tensors_of(self.network).items()}
        tensors |= {f"average|{k}": v for k, v in self.average.items()}
        for name, parameter in self.network.named_parameters():
            moments = self.optimizer.state.get(parameter)
            zero = torch.zeros_like(parameter)
            tensors[f"first|{name}"] = moments["exp_avg"] if moments else zero
            tensors[f"second|{name}"] = moments["exp_avg_sq"] if moments else zero.clone()
        progress = {
            "step": self.step,
            "seconds": self.seconds,
            "structures": len(self.train.graphs),
        }
        contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with replacing(self.out / STATE) as temporary:
            save_file(contiguous, temporary, {"progress": json.dumps(progress)})
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else ""
        provenance = {
            "crystals_labelled_by": self.taught.crystals,
            "molecules_labelled_by": self.taught.molecules,
            "structures": len(self.train.graphs),
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "hardware": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
            "processes": self.options.processes,
            "seed": self.options.seed,
        }
        config = dataclasses.replace(self.config, provenance=provenance)
        nets.save(self.out / "model", config, self.average)

    def averaged(self) -> torch.nn.Module:
        """Return a copy of the network with the averaged weights."""
        network = nets.build(self.config).to(self.device)
        nets.set_tensors(network, self.average, "the average")
        return network.requires_grad_(False)

    def batches(self) -> Any:
        """Yield the places of each batch from the current step on, for ever."""
        size, num = self.options.batch_size * self.options.processes, len(self.train.graphs)
        per_epoch = max(1, num // size)  # every process has its part
        while True:
            epoch, place = divmod(self.step, per_epoch)
            order = np.random.default_rng([self.options.seed, epoch]).permutation(num)
            yield order[place * size : (place + 1) * size].tolist()

    def loss(self, part: tuple[list[int], list[int]]) -> Tensor:
        """Return the loss of structures, given by their places, and of the readouts they teach."""
        rows, heads = part
        found = errors(self.network, self.train, rows, self.device, heads, training=True)
        return loss_of(found, self.options.energy_weight)

    def heads(self, rows: list[int]) -> list[int]:
        """Choose the readout that learns from each structure in this step."""
        rng = np.random.default_rng([self.options.seed, self.step, len(rows)])
        committee = rng.random(len(rows)) >= FIRST_HEAD
        answers, heads = self.train.answers, self.train.heads
        return [heads[i] if c else answers[i] for i, c in zip(rows, committee, strict=True)]

    def learning_rate(self) -> float:
        """Up in a few steps, then a cosine over the time (or steps) of the run."""
        spent = self.seconds / (60 * self.options.minutes)
        if self.options.steps:
            spent = max(spent, self.step / self.options.steps)
        decay = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * min(1.0, spent))) / 2
        return self.options.learning_rate * decay * min(1.0, (self.step + 1) / WARMUP_STEPS)

    def update(self, rows: list[int]) -> float:
        """Take one step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        heads, num = self.heads(rows), self.options.processes
        mean = self.processes.backward([(rows[i::num], heads[i::num]) for i in range(num)])
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        if torch.isfinite(norm):  # atoms on top of each other may overflow
            self.optimizer.step()
        self.step += 1
        decay = min(EMA_DECAY, self.step / (self.step + 10))
        with torch.no_grad():
            for name, tensor in nets.tensors_of(self.network).items():
                self.average[name].lerp_(tensor, 1 - decay)
        return mean

    def run(self) -> None:
        """Train until the time or the steps are spent; a checkpoint every few minutes."""
        # Before there are copies of this process, which then share them.
        self.train.batches(len(self.config.elements), self.device)
        self.processes = GradientProcesses(self.network, self.loss, self.options.processes)
        try:
            self._run()
        finally:
            self.processes.close()

    def _run(self) -> None:
        options, start, saved = self.options, time.monotonic() - self.seconds, time.monotonic()
        losses: list[float] = []
        for rows in self.batches():
            if self.seconds > 60 * options.minutes or (
                options.steps and self.step >= options.steps
            ):
                break
            losses.append(self.update(rows))
            self.seconds = time.monotonic() - start
            if len(losses) == options.log_steps:
                self.log({"loss": round(float(np.mean(losses)), 3)})
                losses = []
            if time.monotonic() - saved > 60 * options.save_minutes:
                self.save()
                self.log({"val": evaluate(self.averaged(), self.val, self.device)["all"]})
                saved = time.monotonic()
        self.save()

    def log(self, row: dict[str, Any]) -> None:
        """Print a line, and append it to the run's log."""
        row = {"step": self.step, "seconds": round(self.seconds), **row}
        print(json.dumps(row), flush=True)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def parser() -> argparse.ArgumentParser:
    """All options; defaults are those of the shipped weights."""
    p = Parser(prog="adit train prefilter", description=__doc__.splitlines()[0])
    add_options(p, PrefilterTraining)
    add_options(p.add_argument_group("the network"), nets.NetworkConfig, nets.NetworkConfig())
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = PrefilterTraining(**values_of(PrefilterTraining, args))
        return _train(options, nets.NetworkConfig(**changes_of(nets.NetworkConfig, args)))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _train(options: PrefilterTraining, network: nets.NetworkConfig) -> int:
    if options.processes > 1 and options.threads not in (None, 1):
        raise TrainingError("Several processes have a thread each: leave out --threads")
    if options.threads or options.processes > 1:
        torch.set_num_threads(options.threads or 1)
    exists = (options.out / STATE).exists()
    if exists and not options.resume:
        raise TrainingError(
            f"{options.out} holds a run: pass --resume to continue it, or another --out"
        )
    if options.resume and not exists:
        raise TrainingError(
            f"{options.out} holds no run to resume; leave out --resume to begin one"
        )
    trainer = Trainer(options, network)
    if options.resume:
        trainer.resume()
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        f"{len(trainer.train.graphs)} structures to train on, {len(trainer.val.graphs)} to check",
        flush=True,
    )
    try:
        trainer.run()
    except KeyboardInterrupt:
        trainer.save()
        print("Interrupted; continue with --resume.", file=sys.stderr)
        return INTERRUPTED
    except LostProcessError:
        trainer.save()
        raise
    found = evaluate(trainer.averaged(), trainer.val, trainer.device)
    trainer.log({"val": found})
    print(f"Weights: {options.out / 'model'} after {trainer.step} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
