"""Given atoms put into a predicted structure: which atoms they are, and how they are moved there.

A network predicts a structure in a frame of its own: another origin for a crystal, another place
and orientation for a molecule. A motion takes the given atoms there, and is undone in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from adit_plugins.structures.symmetry import symmetry_dataset

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

OTHER_ELEMENT = 1e6  # square angstrom, beyond every distance
IMAGES = np.array(list(product((-1.0, 0.0, 1.0), repeat=3)))  # cells around one
ROUNDS = 4  # of assignment and motion in turn, from a motion that is nearly right
STARTS = 12  # motions that are followed to their end

# Evenly spread at random: every orientation has one of these within some 30 degrees.
ORIENTATIONS = Rotation.random(300, np.random.default_rng(0)).as_matrix()


@dataclass(frozen=True)
class Motion:
    """`x @ matrix + shift`, in fractional coordinates for crystals, angstrom for molecules."""

    matrix: Array
    shift: Array

    def apply(self, x: Array) -> Array:
        """From the given frame into the predicted one."""
        moved: Array = x @ self.matrix + self.shift
        return moved

    def then(self, other: Motion) -> Motion:
        """This motion and another one after it."""
        return Motion(self.matrix @ other.matrix, other.apply(self.shift))

    def undo(self, x: Array) -> Array:
        """From the predicted frame into the given one."""
        back: Array = (x - self.shift) @ np.linalg.inv(self.matrix)
        return back


@dataclass(frozen=True)
class Placed:
    """A motion, and for each given atom the predicted atom that it is, `[given]`."""

    motion: Motion
    atoms: Numbers


class Placer(Protocol):
    """Finds given atoms in predicted structures of one kind.

    Attributes:
        start: their coordinates in the given frame, `[given, 3]`.
    """

    start: Array

    def __call__(
        self, numbers: Numbers, predicted: Array, last: Motion | None, atoms: Numbers | None = None
    ) -> Placed:
        """Place the given atoms.

        Args:
            numbers: of the predicted atoms, `[predicted]`.
            predicted: their coordinates, `[predicted, 3]`.
            last: the motion of the last time, if there was one.
            atoms: which of the predicted atoms the given ones are, if it is known.
        """
        ...


class CrystalPlacer:
    """Places atoms of a given cell: the frame is that of the given atoms, and the network follows.

    Their space group's standard origin is the network's, for the crystals of databases, which it
    has learned from, have special positions there. (Origins that follow the prediction fit worse.)

    Args:
        numbers: of the given atoms, `[given]`.
        frac: their fractional coordinates, `[given, 3]`, in
        lattice: the Niggli cell, `[3, 3]` row vectors, angstrom.
    """

    def __init__(self, numbers: Numbers, frac: Array, lattice: Array) -> None:
        self.numbers, self.start, self.lattice = numbers, frac, lattice
        found = symmetry_dataset(
            Atoms(numbers=numbers, scaled_positions=frac, cell=lattice, pbc=True)
        )
        origin = np.zeros(3) if found is None else np.array(found.std_origin_shift)
        self.motion = Motion(np.eye(3), -origin)

    def __call__(
        self, numbers: Numbers, predicted: Array, last: Motion | None, atoms: Numbers | None = None
    ) -> Placed:
        """Find the given atoms among the predicted ones, with periodic images."""
        offsets = self.motion.apply(self.start)[:, None] - predicted
        near = (offsets - offsets.round())[:, :, None] + IMAGES
        squares = np.square(near @ self.lattice).sum(axis=-1).min(axis=-1)
        return Placed(self.motion, assigned(squares, self.numbers, numbers))


class MoleculePlacer:
    """Places atoms of a molecule by a rigid motion (Kabsch, doi 10.1107/S0567739476001873).

    Args:
        numbers: of the given atoms, `[given]`.
        positions: `[given, 3]`, angstrom.
    """

    def __init__(self, numbers: Numbers, positions: Array) -> None:
        self.numbers, self.start = numbers, positions

    def __call__(
        self, numbers: Numbers, predicted: Array, last: Motion | None, atoms: Numbers | None = None
    ) -> Placed:
        """Place the atoms; mirror images are no motion, so that chirality stays."""
        if atoms is not None:
            return Placed(rigid_motion(self.start, predicted[atoms]), atoms)
        starts = [last] if last is not None else self._starts(numbers, predicted)
        found = [self._settle(start, numbers, predicted) for start in starts]
        return min(found, key=lambda each: each[0])[1]

    def _starts(self, numbers: Numbers, predicted: Array) -> list[Motion]:
        """The likeliest of all orientations with an atom of the rarest element on each of its kind.

        The centre and the axes of a part say nothing about where it lies in the whole.
        """
        kinds, counts = np.unique(self.numbers, return_counts=True)
        rarest = kinds[counts.argmin()]
        anchor = self.start[self.numbers == rarest][0]
        turns = ORIENTATIONS
        targets = predicted[numbers == rarest]
        shifts = targets[None] - (anchor @ turns)[:, None]  # [turns, targets, 3]
        moved = (self.start @ turns)[:, None] + shifts[:, :, None]
        costs = np.zeros(moved.shape[:2])
        for kind in kinds:
            offsets = moved[..., self.numbers == kind, None, :] - predicted[numbers == kind]
            costs += np.square(offsets).sum(axis=-1).min(axis=-1).sum(axis=-1)
        best = np.argsort(costs, axis=None)[:STARTS]
        places = zip(*np.unravel_index(best, costs.shape), strict=True)
        return [Motion(turns[turn], shifts[turn, target]) for turn, target in places]

    def _settle(self, motion: Motion, numbers: Numbers, predicted: Array) -> tuple[float, Placed]:
        """Assignment and motion in turn, from a first motion: the squared error, and both."""
        for _ in range(ROUNDS):
            offsets = motion.apply(self.start)[:, None] - predicted
            atoms = assigned(np.square(offsets).sum(axis=-1), self.numbers, numbers)
            motion = rigid_motion(self.start, predicted[atoms])
        error = float(np.square(motion.apply(self.start) - predicted[atoms]).sum())
        return error, Placed(motion, atoms)


def rigid_motion(start: Array, end: Array) -> Motion:
    """The rotation and shift that take points nearest to others, `[points, 3]` each."""
    first, second = start.mean(axis=0), end.mean(axis=0)
    u, _, v = np.linalg.svd((start - first).T @ (end - second))
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    matrix = u @ handed @ v
    return Motion(matrix, second - first @ matrix)


def assigned(squares: Array, numbers: Numbers, predicted: Numbers) -> Numbers:
    """For each given atom a predicted atom of its element, with the least sum of squares.

    Args:
        squares: `[given, predicted]`, square angstrom.
        numbers: `[given]`.
        predicted: atomic numbers `[predicted]`.

    Raises:
        ValueError: there are too few predicted atoms of an element.
    """
    other = numbers[:, None] != predicted
    rows, columns = linear_sum_assignment(squares + OTHER_ELEMENT * other)
    if other[rows, columns].any():
        raise ValueError("the prediction lacks atoms of an element that is given")
    chosen: Numbers = columns
    return chosen
