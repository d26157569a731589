"""Labelled structures as graphs, and how far a network is from what the teacher says of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from ase import Atoms
from ase.units import GPa
from numpy.typing import NDArray
from torch import Tensor

from adit_integrations.mace_adit import network as nets
from adit_integrations.mace_adit.batches import Batches
from adit_integrations.mace_adit.label_set import Labels
from adit_plugins import processes

# Errors are counted in these units: eV/atom, eV/angstrom, eV/cubic angstrom. Up to three of them
# they count squared (with absolute errors alone nothing is learned for the first thousand steps).
UNITS = {"energy": 0.1, "forces": 0.3, "stress": 2.0 * GPa}
ENERGY_WEIGHT = 3.0  # of forces and stress 1
HUBER_DELTA = 3.0
# Far from equilibrium errors grow with the forces; there they weigh less. eV/angstrom, and GPa.
SOFT_FORCE, SOFT_STRESS = 2.0, 20.0
EQUILIBRIUM_FORCE = 3.0  # eV/angstrom; labels up to here decide the atomic energies
MIN_STRUCTURES = 20  # with an element, to know it
CHUNK = 500  # structures whose bonds a process looks for at once


@dataclass
class Labelled:
    """Graphs with what the teacher says of them; units as in `Labels`."""

    graphs: list[nets.Graph]
    energy: Tensor  # [structures]
    forces: list[NDArray[np.float64]]
    stress: Tensor  # [structures, 3, 3]
    way: list[str]
    answers: list[int]  # the readout that is asked of each
    heads: list[int]  # of the committee's, the readout that learns from each
    _batches: dict[tuple[torch.device, int], Batches] = field(default_factory=dict, repr=False)

    def batches(self, num_elements: int, device: torch.device) -> Batches:
        """Return these structures as arrays on a device, made once."""
        key = device, num_elements
        if key not in self._batches:
            self._batches[key] = Batches(self, num_elements, device)
        return self._batches[key]


def head_of(formula: str, num_heads: int) -> int:
    """Return the readout of the committee, the last two, that learns from a formula."""
    half = hashlib.sha256(formula.encode()).digest()[0] % 2
    return num_heads - 2 + half if num_heads > 1 else 0


def prepare(labels: Labels, config: nets.NetworkConfig, chosen: NDArray[np.int64]) -> Labelled:
    """Find the bonds of the chosen structures; those of unknown elements are left out.

    Molecules have a readout of their own, which also is their committee.
    """
    ends = np.cumsum(labels.num_atoms)
    places = [
        slice(int(end - num), int(end)) for end, num in zip(ends, labels.num_atoms, strict=True)
    ]
    known = {*config.elements}
    rows = [i for i in chosen.tolist() if known >= {*labels.numbers[places[i]].tolist()}]

    def chunks() -> Iterator[_Chunk]:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            yield _Chunk([labels.atoms(i, places[i]) for i in part], config)

    found = processes.map(_graphs, chunks(), _no_graphs, chunk_size=1, time_limit=10 * CHUNK)
    molecules = labels.molecules
    own = config.molecule_head
    committee = [head_of(formula, config.num_heads) for formula in labels.group[rows].tolist()]
    return Labelled(
        [graph for part in found for graph in part],
        torch.tensor(labels.energy[rows], dtype=torch.float32),
        [labels.forces[places[i]] for i in rows],
        torch.tensor(labels.stress[rows], dtype=torch.float32),
        labels.way[rows].tolist(),
        [own if molecules[i] else 0 for i in rows],
        [own if molecules[i] else head for i, head in zip(rows, committee, strict=True)],
    )


@dataclass(frozen=True)
class _Chunk:
    structures: list[Atoms]
    config: nets.NetworkConfig


def _graphs(chunk: _Chunk) -> list[nets.Graph]:
    return [nets.graph_of(atoms, chunk.config) for atoms in chunk.structures]


def _no_graphs(chunk: _Chunk, problem: str) -> list[nets.Graph]:
    raise ValueError(f"the bonds of {len(chunk.structures)} structures cannot be found: {problem}")


def atomic_energies(data: Labelled, config: nets.NetworkConfig) -> NDArray[np.float64]:
    """Energies an atom that explain most of the structures' (least squares, ridge to the mean).

    They only shift the network's output: what it says is on the scale of the labels.

    Returns:
        eV, [num_heads, num_elements]: molecules' own for their readout.
    """
    calm = [i for i, f in enumerate(data.forces) if np.abs(f).max() < EQUILIBRIUM_FORCE]
    found = np.zeros((config.num_heads, len(config.elements)))
    for answer in sorted({0, config.molecule_head}):
        rows = [i for i in calm if data.answers[i] == answer]
        heads = slice(None) if answer == 0 else answer
        if rows:
            found[heads] = _least_squares(data, rows, len(config.elements))
    return found


def _least_squares(data: Labelled, rows: list[int], num_elements: int) -> NDArray[np.float64]:
    counts = np.stack([np.bincount(data.graphs[i].elements, minlength=num_elements) for i in rows])
    energies = data.energy.numpy()[rows].astype(float)
    sizes = counts.sum(axis=1)
    fractions, mean = counts / sizes[:, None], float((energies / sizes).mean())
    matrix = fractions.T @ fractions + 0.01 * np.eye(num_elements)
    found: NDArray[np.float64] = np.linalg.solve(matrix, fractions.T @ (energies / sizes - mean))
    return found + mean


def known_elements(data: Labelled, config: nets.NetworkConfig, answer: int = 0) -> tuple[int, ...]:
    """Return the elements that at least `MIN_STRUCTURES` structures of a readout hold."""
    counts = np.zeros(len(config.elements), int)
    for graph, its in zip(data.graphs, data.answers, strict=True):
        if its == answer:
            counts[np.unique(graph.elements)] += 1
    pairs = zip(config.elements, counts, strict=True)
    return tuple(z for z, count in pairs if count >= MIN_STRUCTURES)


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
    num_elements = len(network.atomic_numbers)  # type: ignore[arg-type]
    batch = data.batches(num_elements, device).batch(rows, heads)
    owner, forces, stress = batch["batch"], batch["label_forces"], batch["label_stress"]
    output = network(batch, training=training, compute_stress=True)
    sizes = batch["ptr"].diff()
    return {
        "energy": (output["energy"] - batch["label_energy"]) / sizes,
        "forces": torch.linalg.vector_norm(output["forces"] - forces + 1e-9, dim=1),
        "force_components": (output["forces"] - forces).detach().abs().mean(dim=1),
        "stress": (output["stress"] - stress).abs().mean(dim=(1, 2)),
        "forces_size": torch.linalg.vector_norm(forces, dim=1),
        "stress_size": stress.abs().amax(dim=(1, 2)),
        "owner": owner,
    }


def loss_of(found: dict[str, Tensor], energy_weight: float = ENERGY_WEIGHT) -> Tensor:
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
        total = total + (energy_weight if name == "energy" else 1.0) * (huber * share).mean()
    return total


def evaluate(
    network: torch.nn.Module, data: Labelled, device: torch.device, batch_size: int = 256
) -> dict[str, dict[str, float]]:
    """Mean absolute errors by the way in which structures were made, and of `all`.

    Returns:
        For each way: `structures`, `energy` meV/atom, `forces` meV/angstrom a component,
        `stress` GPa a component.
    """
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for start in range(0, len(data.graphs), batch_size):
        chosen = list(range(start, min(start + batch_size, len(data.graphs))))
        asked = errors(network, data, chosen, device, [data.answers[i] for i in chosen])
        found = {name: tensor.detach() for name, tensor in asked.items()}
        sizes = torch.bincount(found["owner"])
        sums = torch.zeros_like(found["energy"]).index_add(
            0, found["owner"], found["force_components"]
        )
        columns = found["energy"].abs().tolist(), (sums / sizes).tolist(), found["stress"].tolist()
        for i, row in zip(chosen, zip(*columns, strict=True), strict=True):
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
