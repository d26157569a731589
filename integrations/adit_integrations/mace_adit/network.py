"""A small MACE of mace-torch's modules: built from a configuration, saved without pickle.

MACE: Batatia et al. 2022, arXiv:2206.07697. Scalar messages of two interactions and two-body
products cost milliseconds on a CPU; a ZBL repulsion holds atoms apart where no data are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from adit_integrations.mace import contained
from adit_model.checked import option
from adit_model.outputs import replacing
from adit_plugins.relax.results import MP2020

# What the Materials Project has: hydrogen to bismuth and actinium to plutonium.
ELEMENTS = (*range(1, 84), *range(89, 95))
ATOMIC_ENERGIES = "atomic_energies_fn.atomic_energies"
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # a configuration may name another file
EMPTY_CELL = 100.0  # angstrom, around a molecule
SHIPPED_OR_SAVED = re.compile(r"model(-[0-9a-f]{12})?\.safetensors")


class PrefilterError(ValueError):
    """The weights of a small MACE are missing, damaged, or do not fit their configuration."""


@dataclass(frozen=True)
class NetworkConfig:
    """What the network is made of, and where it comes from.

    Attributes:
        elements: atomic numbers, ascending.
        known: those that the labels taught; of the others (noble gases) nothing it says counts.
        known_in_molecules: the same of molecules.
        channels, max_ell, cutoff, radial_width, correlation: see `adit train prefilter --help`.
        num_heads: readouts of the same features. The first answers; the last two are taught by
            different halves of the formulas, and where they disagree the network does not know.
        molecules: the second readout answers for molecules, whose energies are another teacher's.
        convention: of crystals' energies, see `adit_plugins.relax.results`; the labels'.
        avg_num_neighbors: what messages are divided by.
        provenance: labels, budget and hardware of the training.
    """

    elements: tuple[int, ...] = ELEMENTS
    known: tuple[int, ...] = ()
    known_in_molecules: tuple[int, ...] = ()
    channels: int = option(32, "scalar features of an atom")
    max_ell: int = option(2, "highest degree of the spherical harmonics of a bond")
    cutoff: float = option(5.0, "of a bond, angstrom")
    radial_width: int = option(64, "of the two hidden layers that weigh bonds by their length")
    correlation: int = option(2, "factors in a product of an atom's features")
    num_heads: int = 3
    molecules: bool = False
    convention: str = MP2020
    avg_num_neighbors: float = 40.0
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def molecule_head(self) -> int:
        """The readout that answers for molecules."""
        return int(self.molecules)


def build(config: NetworkConfig) -> torch.nn.Module:
    """Return the network with random weights of torch's current seed, in float32."""
    each_head: Any = np.ones(config.num_heads, dtype=np.float32)
    with contained():
        from e3nn import o3
        from mace import modules

        block = modules.interaction_classes["RealAgnosticDensityResidualInteractionBlock"]
        network = modules.ScaleShiftMACE(
            r_max=config.cutoff,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=config.max_ell,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=len(config.elements),
            hidden_irreps=o3.Irreps(f"{config.channels}x0e"),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros((config.num_heads, len(config.elements)), dtype=np.float32),
            avg_num_neighbors=config.avg_num_neighbors,
            atomic_numbers=list(config.elements),
            correlation=config.correlation,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=each_head,  # forces and repulsion are in eV as they are
            atomic_inter_shift=0 * each_head,
            heads=[f"head-{i}" for i in range(config.num_heads)],
            pair_repulsion=True,
            radial_MLP=[config.radial_width] * 2,
        )
    for interaction in network.interactions:  # the hook that mace-torch has for fused kernels
        interaction.conv_tp = NeighbourSum(config.channels, config.max_ell)
        interaction.conv_fusion = True  # type: ignore[assignment]
    return network


class NeighbourSum(torch.nn.Module):
    """The messages of scalar features, summed over neighbours: eq. 8 of MACE for invariant senders.

    In place of e3nn's tensor product and a scatter. The sums over an atom's neighbours are matrix
    products, of features times radial weights with spherical harmonics, so that no array of bonds
    times channels times harmonics is ever written: a training step takes three quarters of
    the time with 32 channels, two thirds with 64.
    It has no parameters.
    """

    def __init__(self, channels: int, max_ell: int) -> None:
        """Remember the shapes."""
        super().__init__()
        self.channels = channels
        self.degrees = [2 * ell + 1 for ell in range(max_ell + 1)]

    def forward(
        self, node_feats: Tensor, edge_attrs: Tensor, tp_weights: Tensor, edge_index: Tensor
    ) -> Tensor:
        """Sum messages.

        Args:
            node_feats: scalars, [atoms, channels].
            edge_attrs: spherical harmonics by degree, [bonds, (max_ell + 1)^2].
            tp_weights: of degree and channel, [bonds, (max_ell + 1) * channels].
            edge_index: sender and receiver, [2, bonds], in any order.

        Returns:
            Sums by degree, channel and order, [atoms, channels * (max_ell + 1)^2].
        """
        sender, receiver = edge_index
        slots, owners = _rows_of_bonds(receiver, len(node_feats))
        by_degree = tp_weights.view(-1, len(self.degrees), self.channels)
        messages = (by_degree * node_feats[sender, None]).flatten(1)
        weights = _in_rows(messages, slots, len(owners)).transpose(1, 2)
        harmonics = _in_rows(edge_attrs, slots, len(owners)).split(self.degrees, dim=2)
        sums = [
            (part @ values).flatten(1)
            for part, values in zip(weights.split(self.channels, dim=1), harmonics, strict=True)
        ]
        rows = torch.cat(sums, dim=1)
        return rows.new_zeros(len(node_feats), rows.shape[1]).index_add(0, owners, rows)


ROW = 16  # bonds; an atom has 30 or so, and gets as many rows as it needs


def _rows_of_bonds(receiver: Tensor, num_atoms: int) -> tuple[Tensor, Tensor]:
    """Place each bond in a row of `ROW` that holds bonds of one atom; and the atom of each row."""
    counts = torch.bincount(receiver, minlength=num_atoms)
    rows = (counts + ROW - 1) // ROW
    order = torch.argsort(receiver, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    place -= (counts.cumsum(0) - counts)[receiver]
    slots = (rows.cumsum(0) - rows)[receiver] * ROW + place
    return slots, torch.repeat_interleave(torch.arange(num_atoms, device=rows.device), rows)


def _in_rows(values: Tensor, slots: Tensor, num_rows: int) -> Tensor:
    """Return [rows, ROW, columns], zero where no bond is."""
    empty = values.new_zeros(num_rows * ROW, values.shape[1])
    return empty.index_copy(0, slots, values).view(num_rows, ROW, values.shape[1])


def tensors_of(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return what training decides: parameters and atomic energies; code makes the rest."""
    tensors = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return tensors | {ATOMIC_ENERGIES: network.get_buffer(ATOMIC_ENERGIES)}


def set_tensors(network: torch.nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Copy tensors of `tensors_of` into a network.

    Raises:
        PrefilterError: names or shapes differ.
    """
    own = tensors_of(network)
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if wrong:
        raise PrefilterError(f"{origin} does not fit its {CONFIG}: {', '.join(wrong[:5])}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def save(folder: Path, config: NetworkConfig, tensors: dict[str, Tensor]) -> None:
    """Write weights and then the configuration that names them; an older network goes last.

    So a folder holds a whole network at any time, whenever the process is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = serialize({k: v.cpu().contiguous() for k, v in tensors.items()})
    checksum = hashlib.sha256(data).hexdigest()
    weights = f"model-{checksum[:12]}.safetensors"
    with replacing(folder / weights) as temporary:
        temporary.write_bytes(data)
    content = {"network": dataclasses.asdict(config), "weights": weights, "sha256": checksum}
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    for older in folder.iterdir():
        if SHIPPED_OR_SAVED.fullmatch(older.name) and older.name != weights:
            older.unlink()


def load(folder: Path) -> tuple[NetworkConfig, torch.nn.Module]:
    """Read a network, verified and ready to evaluate.

    Raises:
        PrefilterError: a file is missing, damaged, or not what it should be.
    """
    config, path, checksum = read_config(folder)
    if not path.is_file():
        raise PrefilterError(f"{path} is missing. Install or copy the weights again.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        raise PrefilterError(
            f"{path} is damaged: its checksum is not the one in {CONFIG}. "
            "Install or copy the weights again."
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise PrefilterError(f"{path} is no safetensors file: {error}") from error
    network = build(config)
    set_tensors(network, tensors, str(path))
    return config, network.requires_grad_(False).eval()


def read_config(folder: Path) -> tuple[NetworkConfig, Path, str]:
    """Read the configuration, and which file holds the weights, with its checksum.

    Raises:
        PrefilterError: it is missing or damaged.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text())
        network = content["network"]
        for name in ("elements", "known", "known_in_molecules"):
            network[name] = tuple(network.get(name, ()))
        weights = folder / Path(content.get("weights", WEIGHTS)).name
        return NetworkConfig(**network), weights, str(content["sha256"])
    except FileNotFoundError as error:
        raise PrefilterError(
            f"No small MACE in {folder}: it has no {CONFIG}. Take mace-adit or mace-adit:sevennet, "
            "or train one: adit train prefilter --help"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PrefilterError(f"{path} is damaged: {error}. Install or copy it again.") from error


@dataclass(frozen=True)
class Graph:
    """A crystal and its bonds within the cutoff, small in memory.

    `elements` [atoms] places in the configuration's list, `positions` [atoms, 3] and `cell`
    [3, 3] in angstrom, `edges` [2, bonds], `images` [bonds, 3] in cells.
    """

    elements: NDArray[np.int64]
    positions: NDArray[np.float32]
    cell: NDArray[np.float32]
    edges: NDArray[np.int32]
    images: NDArray[np.int16]


def graph_of(atoms: Atoms, config: NetworkConfig) -> Graph:
    """Find the bonds of a crystal.

    Raises:
        ValueError: an element is not among the configuration's.
    """
    from matscipy.neighbours import neighbour_list

    unknown = {*atoms.numbers.tolist()} - {*config.elements}
    if unknown:
        raise ValueError(f"The network does not know the elements of Z = {sorted(unknown)}")
    if not atoms.pbc.any():  # a volume for the stress, which nothing asks for
        atoms = Atoms(atoms.numbers, atoms.positions, cell=[EMPTY_CELL] * 3)
    first, second, images = neighbour_list("ijS", atoms, config.cutoff)
    return Graph(
        elements=np.searchsorted(config.elements, atoms.numbers),
        positions=atoms.positions.astype(np.float32),
        cell=atoms.cell.array.astype(np.float32),
        edges=np.stack([first, second]).astype(np.int32),
        images=images.astype(np.int16),
    )


def collate(
    graphs: Sequence[Graph],
    num_elements: int,
    heads: Sequence[int],
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Return the graphs of a batch, each with its readout, as the dictionary that MACE reads."""
    sizes = [len(graph.elements) for graph in graphs]
    starts = np.cumsum([0, *sizes])
    edges = np.concatenate([g.edges + s for g, s in zip(graphs, starts[:-1], strict=True)], axis=1)
    images = np.concatenate([g.images for g in graphs]).astype(np.float32)
    shifts = np.concatenate([g.images.astype(np.float32) @ g.cell for g in graphs])
    elements = torch.from_numpy(np.concatenate([g.elements for g in graphs]))
    data = {
        "positions": torch.from_numpy(np.concatenate([g.positions for g in graphs])),
        "cell": torch.from_numpy(np.concatenate([g.cell for g in graphs])),
        "edge_index": torch.from_numpy(edges).long(),
        "unit_shifts": torch.from_numpy(images),
        "shifts": torch.from_numpy(shifts),
        "batch": torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
        "ptr": torch.from_numpy(starts),
        "head": torch.tensor(heads),
        "node_attrs": torch.nn.functional.one_hot(elements, num_elements).float(),
    }
    return {name: tensor.to(device) for name, tensor in data.items()}
