"""Distil a small MACE from labelled structures: `adit train prefilter`.

Energies, forces and stresses of the teacher with absolute errors, each in units of what is asked
of the pre-filter; whole formulas are held out. A run resumes, on a CPU or with CUDA.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import platform
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.units import GPa
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adit_integrations.mace_adit import network as nets
from adit_integrations.mace_adit.gradient_processes import GradientProcesses, LostProcessError
from adit_integrations.mace_adit.labels import INTERRUPTED, Labels
from adit_model.outputs import replacing
from adit_model.training.cli import Parser

STATE = "state.safetensors"
# Errors are counted in these units: eV/atom, eV/angstrom, eV/cubic angstrom. Up to three of them
# they count squared (with absolute errors alone nothing is learned for the first thousand steps).
UNITS = {"energy": 0.1, "forces": 0.3, "stress": 2.0 * GPa}
WEIGHTS = {"energy": 3.0, "forces": 1.0, "stress": 1.0}
HUBER_DELTA = 3.0
# Far from equilibrium errors grow with the forces; there they weigh less. eV/angstrom, and GPa.
SOFT_FORCE, SOFT_STRESS = 2.0, 20.0
EQUILIBRIUM_FORCE = 3.0  # eV/angstrom; labels up to here decide the atomic energies
LEARNING_RATE, WARMUP_STEPS, EMA_DECAY, CLIP = 0.015, 100, 0.999, 20.0
MIN_STRUCTURES = 20  # with an element, to know it
FINAL_RATE = 0.01  # of the learning rate
FIRST_HEAD = (
    0.7  # of the structures of a batch teach the readout that answers, others the committee
)


class TrainingError(ValueError):
    """A run cannot start or go on."""


@dataclass
class Labelled:
    """Graphs with what the teacher says of them; units as in `Labels`."""

    graphs: list[nets.Graph]
    energy: Tensor  # [structures]
    forces: list[NDArray[np.float64]]
    stress: Tensor  # [structures, 3, 3]
    way: list[str]
    heads: list[int]  # of the committee's, the readout that learns from each


def head_of(formula: str, num_heads: int) -> int:
    """Return the readout of the committee, the last two, that learns from a formula."""
    half = hashlib.sha256(formula.encode()).digest()[0] % 2
    return num_heads - 2 + half if num_heads > 1 else 0


def prepare(labels: Labels, config: nets.NetworkConfig, chosen: NDArray[np.int64]) -> Labelled:
    """Find the bonds of the chosen structures; those of unknown elements are left out."""
    ends = np.cumsum(labels.num_atoms)
    graphs, forces, rows = [], [], []
    for i in chosen.tolist():
        part = slice(int(ends[i] - labels.num_atoms[i]), int(ends[i]))
        if not set(labels.numbers[part].tolist()) <= {*config.elements}:
            continue
        atoms = Atoms(labels.numbers[part], labels.positions[part], cell=labels.cells[i], pbc=True)
        graphs.append(nets.graph_of(atoms, config))
        forces.append(labels.forces[part])
        rows.append(i)
    return Labelled(
        graphs,
        torch.tensor(labels.energy[rows], dtype=torch.float32),
        forces,
        torch.tensor(labels.stress[rows], dtype=torch.float32),
        labels.way[rows].tolist(),
        [head_of(formula, config.num_heads) for formula in labels.group[rows].tolist()],
    )


def atomic_energies(data: Labelled, num_elements: int) -> NDArray[np.float64]:
    """Energies an atom that explain most of the structures' (least squares, ridge to the mean).

    They only shift the network's output: what it says is on the scale of the labels.
    """
    calm = [i for i, f in enumerate(data.forces) if np.abs(f).max() < EQUILIBRIUM_FORCE]
    counts = np.stack([np.bincount(data.graphs[i].elements, minlength=num_elements) for i in calm])
    energies = data.energy.numpy()[calm].astype(float)
    sizes = counts.sum(axis=1)
    fractions, mean = counts / sizes[:, None], float((energies / sizes).mean())
    matrix = fractions.T @ fractions + 0.01 * np.eye(num_elements)
    found: NDArray[np.float64] = np.linalg.solve(matrix, fractions.T @ (energies / sizes - mean))
    return found + mean


def known_elements(data: Labelled, elements: tuple[int, ...]) -> tuple[int, ...]:
    """Return the elements that at least `MIN_STRUCTURES` structures hold."""
    counts = np.zeros(len(elements), int)
    for graph in data.graphs:
        counts[np.unique(graph.elements)] += 1
    return tuple(z for z, count in zip(elements, counts, strict=True) if count >= MIN_STRUCTURES)


def errors(
    network: torch.nn.Module,
    data: Labelled,
    rows: list[int],
    device: torch.device,
    heads: list[int],
    training: bool = False,
) -> dict[str, Tensor]:
    """Errors of a batch in the labels' units, and what the teacher says.

    Args:
        network: the student.
        data: labelled structures.
        rows: places of the batch in `data`.
        device: of the network.
        heads: the readout asked of each.
        training: whether gradients are kept.

    Returns:
        `energy` [structures] an atom, `forces` [atoms], `stress` [structures] (the largest
        component), `forces_size` and `stress_size` of the labels, and `owner` [atoms].
    """
    graphs = [data.graphs[i] for i in rows]
    num_elements = len(network.atomic_numbers)  # type: ignore[arg-type]
    batch = nets.collate(graphs, num_elements, heads, device)
    owner = batch["batch"]
    output = network(batch, training=training, compute_stress=True)
    sizes = torch.bincount(owner)
    forces = torch.tensor(np.concatenate([data.forces[i] for i in rows])).float().to(device)
    stress = data.stress[rows].to(device)
    return {
        "energy": (output["energy"] - data.energy[rows].to(device)) / sizes,
        "forces": torch.linalg.vector_norm(output["forces"] - forces + 1e-9, dim=1),
        "force_components": (output["forces"] - forces).detach().abs().mean(dim=1),
        "stress": (output["stress"] - stress).abs().mean(dim=(1, 2)),
        "forces_size": torch.linalg.vector_norm(forces, dim=1),
        "stress_size": stress.abs().amax(dim=(1, 2)),
        "owner": owner,
    }


def loss_of(found: dict[str, Tensor]) -> Tensor:
    """Huber losses in `UNITS`; far from equilibrium they weigh less."""
    calm = 1 / (1 + found["stress_size"] / (SOFT_STRESS * GPa))
    calm_atoms = 1 / (1 + found["forces_size"] / SOFT_FORCE)
    shares = {"energy": calm, "forces": calm_atoms, "stress": calm}
    total = torch.zeros((), device=calm.device)
    for name, share in shares.items():
        error = found[name] / UNITS[name]
        huber = torch.nn.functional.huber_loss(
            error, torch.zeros_like(error), reduction="none", delta=HUBER_DELTA
        )
        total = total + WEIGHTS[name] * (huber * share).mean()
    return total


def evaluate(
    network: torch.nn.Module, data: Labelled, device: torch.device, batch_size: int = 32
) -> dict[str, dict[str, float]]:
    """Mean absolute errors by the way in which structures were made, and of `all`.

    Returns:
        For each way: `structures`, `energy` meV/atom, `forces` meV/angstrom a component,
        `stress` GPa a component.
    """
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for start in range(0, len(data.graphs), batch_size):
        chosen = list(range(start, min(start + batch_size, len(data.graphs))))
        asked = errors(network, data, chosen, device, [0] * len(chosen))
        found = {name: tensor.detach() for name, tensor in asked.items()}
        for place, i in enumerate(chosen):
            mine = found["owner"] == place
            row = (
                float(found["energy"][place].abs()),
                float(found["force_components"][mine].mean()),
                float(found["stress"][place]),
            )
            rows[data.way[i]].append(row)
            rows["all"].append(row)
    return {
        way: {
            "structures": len(each),
            "energy": round(1000 * float(np.mean([e for e, _, _ in each])), 1),
            "forces": round(1000 * float(np.mean([f for _, f, _ in each])), 1),
            "stress": round(float(np.mean([s for _, _, s in each])) / GPa, 2),
        }
        for way, each in sorted(rows.items())
    }


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

    def __init__(self, args: argparse.Namespace) -> None:
        """Read the labels and build the network.

        Raises:
            ValueError: there are no labels, or a run cannot start or go on.
        """
        self.args, self.out = args, Path(args.out)
        self.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        _check_processes(args.processes, self.device)
        labels = Labels.load(args.labels)
        config = nets.NetworkConfig(channels=args.channels)
        self.train = prepare(labels, config, labels.split("train"))
        self.val = prepare(labels, config, labels.split("val"))
        if not self.train.graphs or not self.val.graphs:
            raise TrainingError(f"Too few labels ({len(labels)}) to hold formulas out.")
        if len(self.train.graphs) < args.processes:
            raise TrainingError(
                f"--processes {args.processes} is more than the {len(self.train.graphs)} structures"
            )
        bonds = sum(g.edges.shape[1] for g in self.train.graphs)
        atoms = sum(len(g.elements) for g in self.train.graphs)
        self.config = dataclasses.replace(
            config,
            avg_num_neighbors=round(bonds / atoms, 1),
            known=known_elements(self.train, config.elements),
        )
        torch.manual_seed(args.seed)
        self.network = nets.build(self.config).to(self.device)
        energies = torch.tensor(atomic_energies(self.train, len(config.elements)))  # of all heads
        self.network.get_buffer(nets.ATOMIC_ENERGIES).copy_(energies)
        self.step, self.seconds = 0, 0.0
        self.average = {k: v.clone() for k, v in nets.tensors_of(self.network).items()}
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)

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

        nets.set_tensors(self.network, part("network"), str(path))
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
            "structures": len(self.train.graphs),
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "hardware": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
            "processes": self.args.processes,
            "seed": self.args.seed,
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
        size, num = self.args.batch_size * self.args.processes, len(self.train.graphs)
        per_epoch = max(1, num // size)  # every process has its part
        while True:
            epoch, place = divmod(self.step, per_epoch)
            order = np.random.default_rng([self.args.seed, epoch]).permutation(num)
            yield order[place * size : (place + 1) * size].tolist()

    def loss(self, part: tuple[list[int], list[int]]) -> Tensor:
        """Return the loss of structures, given by their places, and of the readouts they teach."""
        rows, heads = part
        return loss_of(errors(self.network, self.train, rows, self.device, heads, training=True))

    def heads(self, rows: list[int]) -> list[int]:
        """Choose the readout that learns from each structure in this step."""
        rng = np.random.default_rng([self.args.seed, self.step, len(rows)])
        committee = rng.random(len(rows)) >= FIRST_HEAD
        return [self.train.heads[i] if c else 0 for i, c in zip(rows, committee, strict=True)]

    def learning_rate(self) -> float:
        """Up in a few steps, then a cosine over the time (or steps) of the run."""
        spent = self.seconds / (60 * self.args.minutes)
        if self.args.steps:
            spent = max(spent, self.step / self.args.steps)
        decay = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * min(1.0, spent))) / 2
        return LEARNING_RATE * decay * min(1.0, (self.step + 1) / WARMUP_STEPS)

    def update(self, rows: list[int]) -> float:
        """Take one step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        heads, num = self.heads(rows), self.args.processes
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
        self.processes = GradientProcesses(self.network, self.loss, self.args.processes)
        try:
            self._run()
        finally:
            self.processes.close()

    def _run(self) -> None:
        args, start, saved = self.args, time.monotonic() - self.seconds, time.monotonic()
        losses: list[float] = []
        for rows in self.batches():
            if self.seconds > 60 * args.minutes or (args.steps and self.step >= args.steps):
                break
            losses.append(self.update(rows))
            self.seconds = time.monotonic() - start
            if len(losses) == args.log_steps:
                self.log({"loss": round(float(np.mean(losses)), 3)})
                losses = []
            if time.monotonic() - saved > 60 * args.save_minutes:
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
    p.add_argument(
        "--labels", nargs="+", type=Path, required=True, metavar="DIR", help="adit train labels"
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    p.add_argument("--minutes", type=float, default=40.0, help="default: 40")
    p.add_argument("--steps", type=int, help="stop after so many steps; default: time decides")
    p.add_argument("--batch-size", type=int, default=16, help="structures a process; default: 16")
    p.add_argument("--processes", type=int, default=1, help="on a CPU, one a core; default: 1")
    p.add_argument("--channels", type=int, default=32, help="default: 32")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--resume", action="store_true", help="continue the run in --out")
    p.add_argument("--save-minutes", type=float, default=5.0, help="default: 5")
    p.add_argument("--log-steps", type=int, default=100, help="default: 100")
    p.add_argument("--threads", type=int, help="of torch; default: torch's own")
    p.add_argument("--device", help="cpu, cuda, ...; by default CUDA if there is one")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _train(args)
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _train(args: argparse.Namespace) -> int:
    if args.processes > 1 and args.threads not in (None, 1):
        raise TrainingError("Several processes have a thread each: leave out --threads")
    if args.threads or args.processes > 1:
        torch.set_num_threads(args.threads or 1)
    exists = (args.out / STATE).exists()
    if exists and not args.resume:
        raise TrainingError(
            f"{args.out} holds a run: pass --resume to continue it, or another --out"
        )
    if args.resume and not exists:
        raise TrainingError(f"{args.out} holds no run to resume; leave out --resume to begin one")
    trainer = Trainer(args)
    if args.resume:
        trainer.resume()
    args.out.mkdir(parents=True, exist_ok=True)
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
    print(f"Weights: {args.out / 'model'} after {trainer.step} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
