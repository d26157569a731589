"""Labelled structures as a few long arrays on a device, and batches gathered from them.

A batch of a thousand small graphs put together from Python objects costs a GPU more time than the
network does; from arrays that lie on the device it is a dozen gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from adit_integrations.mace_adit.labelled import Labelled


class Batches:
    """Graphs and labels one after the other, on a device; see `Labelled` for the units."""

    def __init__(self, data: Labelled, num_elements: int, device: torch.device) -> None:
        """Copy the arrays.

        Args:
            data: labelled structures.
            num_elements: of the network.
            device: where batches are wanted.
        """
        graphs = data.graphs
        self.num_elements, self.device = num_elements, device
        self.sizes = np.array([len(graph.elements) for graph in graphs])
        self.bonds = np.array([graph.edges.shape[1] for graph in graphs])
        self.first_atom = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.first_bond = np.concatenate([[0], np.cumsum(self.bonds)[:-1]])
        self.elements = self._put([graph.elements.astype(np.uint8) for graph in graphs])
        self.positions = self._put([graph.positions for graph in graphs])
        self.cells = torch.from_numpy(np.stack([graph.cell for graph in graphs])).to(device)
        self.edges = self._put([graph.edges.T.astype(np.int32) for graph in graphs])
        self.images = self._put([graph.images for graph in graphs])
        self.forces = self._put([each.astype(np.float32) for each in data.forces])
        self.energy, self.stress = data.energy.to(device), data.stress.to(device)

    def _put(self, parts: Sequence[NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self.device)

    def batch(self, rows: Sequence[int], heads: Sequence[int]) -> dict[str, Tensor]:
        """Gather structures: the dictionary that MACE reads, and their labels.

        Args:
            rows: places of the structures.
            heads: the readout asked of each.

        Returns:
            What `network.collate` returns, with `energy` [structures], `forces` [atoms, 3] and
            `stress` [structures, 3, 3] of the labels as `label_*`.
        """
        chosen = np.asarray(rows)
        sizes, bonds = self.sizes[chosen], self.bonds[chosen]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        atoms, owner = self._ragged(self.first_atom[chosen], sizes)
        edges, bond_owner = self._ragged(self.first_bond[chosen], bonds)
        places = torch.from_numpy(chosen).to(self.device)
        cells = self.cells[places]
        images = self.images[edges].float()
        ends = torch.from_numpy(starts).to(self.device)
        return {
            "positions": self.positions[atoms],
            "cell": cells.flatten(0, 1),
            "edge_index": (self.edges[edges].long() + ends[bond_owner][:, None]).T.contiguous(),
            "unit_shifts": images,
            "shifts": torch.einsum("ni,nij->nj", images, cells[bond_owner]),
            "batch": owner,
            "ptr": ends,
            "head": torch.tensor(heads, device=self.device),
            "node_attrs": torch.nn.functional.one_hot(
                self.elements[atoms].long(), self.num_elements
            ).float(),
            "label_energy": self.energy[places],
            "label_forces": self.forces[atoms],
            "label_stress": self.stress[places],
        }

    def _ragged(
        self, firsts: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Places of the items of each chosen structure, and whose they are, [items]."""
        total = int(counts.sum())
        of = torch.repeat_interleave(
            torch.arange(len(counts), device=self.device),
            torch.from_numpy(counts).to(self.device),
            output_size=total,
        )
        begin = np.concatenate([[0], np.cumsum(counts)[:-1]])
        shift = torch.from_numpy(firsts - begin).to(self.device)
        return torch.arange(total, device=self.device) + shift[of], of
