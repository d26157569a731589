"""The given atoms of a completion, kept in every structure that the network predicts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adit_plugins.datasets.crystals import training_order
from adit_plugins.generation.placing import (
    CrystalPlacer,
    MoleculePlacer,
    Motion,
    Placed,
    Placer,
    rigid_motion,
)
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from adit_model.batch import AtomBatch


class Filling:
    """The given atoms in the network's frame, in every predicted structure (an `Edit`)."""

    def __init__(self, given: Sample, principal: bool = True) -> None:
        """Bring a crystal into its Niggli cell, where the network knows it best.

        Args:
            given: the atoms.
            principal: whether the network knows molecules by their principal axes.
        """
        self.given, self.principal = given, principal
        self.placed: dict[int, Placed] = {}
        self.places: list[NDArray[np.int64]] | None = None  # of the given atoms in each row
        self.cell: NDArray[np.float64] | None = None
        self.basis = np.eye(3)  # the Niggli cell's vectors in those of the given cell
        numbers = given.atomic_numbers
        self.placer: Placer
        if given.lattice is None:
            self.placer = MoleculePlacer(numbers, given.positions)
            return
        from ase.cell import Cell
        from pymatgen.core import Lattice

        _, basis = Cell(given.lattice).niggli_reduce()
        self.basis = np.array(basis, dtype=float).T
        reduced = Lattice(self.basis @ given.lattice)
        self.cell = Lattice.from_parameters(*reduced.parameters).matrix
        frac = given.positions @ np.linalg.inv(self.basis @ given.lattice)
        self.placer = CrystalPlacer(numbers, frac, self.cell)

    def __call__(self, rows: list[int], batch: AtomBatch, t: float) -> AtomBatch:
        """Put the given atoms into predicted structures of one size."""
        import torch

        periodic = self.cell is not None
        numbers = batch.atomic_numbers.cpu().numpy().copy()
        coords = (batch.frac_coords if periodic else batch.positions).double().cpu().numpy()
        if not np.isfinite(coords).all():
            raise ValueError(
                "the network's output is not finite; take a smaller guidance_scale, or the weights "
                "are damaged: see adit doctor"
            )
        for place, row in enumerate(rows):
            last = self.placed.get(row)
            atoms = None if self.places is None else self.places[row]
            found = self.placer(numbers[place], coords[place], last.motion if last else None, atoms)
            coords[place, found.atoms] = found.motion.apply(self.placer.start)
            if periodic:
                coords[place] = (coords[place] + 0.02) % 1.0 - 0.02
                order = training_order(numbers[place], coords[place])
                numbers[place], coords[place] = numbers[place][order], coords[place][order]
                found = Placed(found.motion, np.argsort(order)[found.atoms])
            else:
                turn = self._turn(coords[place])
                coords[place] = turn.apply(coords[place])
                found = Placed(found.motion.then(turn), found.atoms)
            self.placed[row] = found
        if self.cell is None:
            frac, lattice, positions = batch.frac_coords, batch.lattice, coords
        else:
            frac, positions = batch.frac_coords.new_tensor(coords), coords @ self.cell
            lattice = batch.lattice.new_tensor(self.cell).expand(len(rows), 3, 3)
        return dataclasses.replace(
            batch,
            atomic_numbers=torch.tensor(numbers, device=batch.device),
            frac_coords=frac,
            positions=batch.positions.new_tensor(positions),
            lattice=lattice,
        )

    def _turn(self, positions: NDArray[np.float64]) -> Motion:
        """Into the frame that molecules have in training."""
        import torch

        from adit_model.batch import principal_frame

        if not self.principal:
            return Motion(np.eye(3), -positions.mean(axis=0))
        return rigid_motion(
            positions, principal_frame(torch.from_numpy(positions)[None])[0].numpy()
        )

    def restored(self, row: int, made: Sample) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers and positions of a completion in the given frame: the given atoms, then others.

        Args:
            row: of the call.
            made: what the network gave for it.
        """
        placed, given = self.placed[row], self.given
        others = np.setdiff1d(np.arange(made.num_atoms), placed.atoms)
        if given.lattice is None:
            added = placed.motion.undo(made.positions[others])
        else:
            assert made.lattice is not None
            frac = np.asarray(np.linalg.solve(made.lattice.T, made.positions[others].T).T, float)
            frac = placed.motion.undo(frac) @ self.basis
            added = (frac % 1.0) @ given.lattice
        numbers = np.concatenate([given.atomic_numbers, made.atomic_numbers[others]])
        return numbers, np.concatenate([given.positions, added])
