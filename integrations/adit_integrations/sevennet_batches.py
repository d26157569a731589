"""SevenNet for many crystals in one pass. Run in SevenNet's environment: nothing else of ours.

SevenNet's ASE calculator takes one structure at a time, which leaves a GPU idle; the network itself
takes batches.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence  # noqa: UP035 - a Python of another may be old

import sevenn._keys as keys
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.train.dataload import unlabeled_atoms_to_graph
from torch_geometric.loader.dataloader import Collater

VOIGT = [0, 1, 2, 4, 5, 3]  # SevenNet's order xx, yy, zz, xy, yz, zx as ASE's
MAX_BONDS = 20_000  # in a pass; l3i5 takes some 0.4 MB for each


class BatchedSevenNet(SevenNetCalculator):
    """SevenNet's calculator, with answers for many structures at once."""

    def evaluate_many(self, structures: Sequence[Any]) -> List[Dict[str, Any]]:  # noqa: UP006
        """Return energy (eV), forces (eV/angstrom) and stress (eV/cubic angstrom, Voigt) of each.

        A structure with an element that it does not know has an `error` instead.
        """
        answers: List[Dict[str, Any]] = [{} for _ in structures]  # noqa: UP006
        batch: List[Any] = []  # noqa: UP006
        places: List[int] = []  # noqa: UP006
        bonds = 0
        for place, atoms in enumerate(structures):
            try:
                self.set_atoms(atoms)
            except ValueError as error:
                answers[place] = {"error": str(error)}
                continue
            graph = unlabeled_atoms_to_graph(atoms, self.cutoff, with_shift=False)
            num = graph[keys.EDGE_IDX].shape[1]
            if batch and bonds + num > MAX_BONDS:
                self._answer(batch, places, answers)
                batch, places, bonds = [], [], 0
            batch.append(AtomGraphData.from_numpy_dict(graph))
            places.append(place)
            bonds += num
        if batch:
            self._answer(batch, places, answers)
        return answers

    def _answer(self, batch: Any, places: Any, answers: Any) -> None:
        data = Collater([], follow_batch=None, exclude_keys=None)(batch)
        data.to(self.device)
        self.model.set_is_batch_data(True)
        try:
            output = self.model(data)
        finally:
            self.model.set_is_batch_data(False)
        sizes = [len(each[keys.ATOMIC_NUMBERS]) for each in batch]
        energies = output[keys.PRED_TOTAL_ENERGY].detach().cpu().reshape(-1).tolist()
        forces = output[keys.PRED_FORCE].detach().cpu().split(sizes)
        stresses = (-output[keys.PRED_STRESS]).detach().cpu().reshape(-1, 6)[:, VOIGT]
        for i, place in enumerate(places):
            answers[place] = {
                "energy": energies[i],
                "forces": forces[i].numpy(),
                "stress": stresses[i].numpy(),
            }
