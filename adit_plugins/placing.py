"""Given atoms put into a predicted structure: which atoms they are, and how they are moved there.

A network predicts a structure in a frame of its own: another origin and an equivalent setting of
the cell for a crystal, another place and orientation for a molecule. The motion that fits best
takes the given atoms there, and is undone in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

OTHER_ELEMENT = 1e6  # square angstrom, beyond every distance
SAME_METRIC = 0.02  # relative: settings of the cell that are as good as equal
ROUNDS = 4  # of assignment and motion in turn, from a motion that is nearly right

# The 24 rotations of a cube: no orientation is further than 63 degrees from one of them.
_SIGNED = [
    np.eye(3)[list(order)] * signs
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2))
    for signs in product((1.0, -1.0), repeat=3)
]
TURNS = np.array([turn for turn in _SIGNED if np.linalg.det(turn) > 0])


@dataclass(frozen=True)
class Motion:
    """`x @ matrix + shift`, in fractional coordinates for crystals, angstrom for molecules."""

    matrix: Array
    shift: Array

    def apply(self, x: Array) -> Array:
        """From the given frame into the predicted one."""
        moved: Array = x @ self.matrix + self.shift
        return moved

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
    """Finds the motion of given atoms into predicted structures of one kind."""

    def __call__(self, numbers: Numbers, predicted: Array, last: Motion | None) -> Placed:
        """Place the given atoms, near the motion of the last time if there was one."""
        ...


class CrystalPlacer:
    """Places atoms of a given cell by an origin and a setting of the cell.

    Args:
        numbers: of the given atoms, `[given]`.
        frac: their fractional coordinates, `[given, 3]`, in
        lattice: the Niggli cell, `[3, 3]` row vectors, angstrom.
    """

    def __init__(self, numbers: Numbers, frac: Array, lattice: Array) -> None:
        self.numbers, self.frac, self.lattice = numbers, frac, lattice

    @cached_property
    def settings(self) -> Array:
        """Matrices `[n, 3, 3]` that take the lattice to itself: its point group, about."""
        # The symmetries of a Niggli cell have no other entries.
        matrices = np.array(list(product((-1, 0, 1), repeat=9)), dtype=float).reshape(-1, 3, 3)
        metric = self.lattice @ self.lattice.T
        scale = np.sqrt(np.outer(metric.diagonal(), metric.diagonal()))
        changed = np.abs(matrices @ metric @ matrices.transpose(0, 2, 1) - metric) / scale
        return matrices[changed.max(axis=(1, 2)) < SAME_METRIC]

    def __call__(self, numbers: Numbers, predicted: Array, last: Motion | None) -> Placed:
        """Place the atoms; the origin follows the prediction, the setting is chosen once."""
        motion = last or self._first(numbers, predicted)
        atoms = self._assign(motion, numbers, predicted)
        offsets = predicted[atoms] - motion.apply(self.frac)
        shift = (offsets - offsets.round()).mean(axis=0)
        return Placed(Motion(motion.matrix, motion.shift + shift), atoms)

    def _first(self, numbers: Numbers, predicted: Array) -> Motion:
        """The best of all settings with an atom of the rarest element on each of its kind."""
        kinds, counts = np.unique(self.numbers, return_counts=True)
        rarest = kinds[counts.argmin()]
        anchor = self.frac[self.numbers == rarest][0]
        targets = predicted[numbers == rarest]
        turned = self.frac @ self.settings  # [settings, given, 3]
        shifts = targets[None] - (anchor @ self.settings)[:, None]  # [settings, targets, 3]
        moved = turned[:, None] + shifts[:, :, None]  # [settings, targets, given, 3]
        costs = np.zeros(moved.shape[:2])
        for kind in kinds:
            offsets = moved[..., self.numbers == kind, None, :] - predicted[numbers == kind]
            distances = np.square((offsets - offsets.round()) @ self.lattice).sum(axis=-1)
            costs += distances.min(axis=-1).sum(axis=-1) + distances.min(axis=-2).sum(axis=-1)
        setting, target = np.unravel_index(costs.argmin(), costs.shape)
        return Motion(self.settings[setting], shifts[setting, target])

    def _assign(self, motion: Motion, numbers: Numbers, predicted: Array) -> Numbers:
        offsets = motion.apply(self.frac)[:, None] - predicted
        near = (offsets - offsets.round())[:, :, None] + _IMAGES
        squares = np.square(near @ self.lattice).sum(axis=-1).min(axis=-1)
        return assigned(squares, self.numbers, numbers)


_IMAGES = np.array(list(product((-1.0, 0.0, 1.0), repeat=3)))


class MoleculePlacer:
    """Places atoms of a molecule by a rigid motion (Kabsch, doi 10.1107/S0567739476001873).

    Args:
        numbers: of the given atoms, `[given]`.
        positions: `[given, 3]`, angstrom.
    """

    def __init__(self, numbers: Numbers, positions: Array) -> None:
        self.numbers, self.positions = numbers, positions

    def __call__(self, numbers: Numbers, predicted: Array, last: Motion | None) -> Placed:
        """Place the atoms; mirror images are no motion, so that chirality stays."""
        if last is not None:
            return self._settle(last, numbers, predicted)[1]
        centre = self.positions.mean(axis=0)
        starts = [
            Motion(turn, predicted.mean(axis=0) - centre @ turn)
            for turn in _axes(self.positions) @ TURNS @ _axes(predicted).T
        ]
        found = [self._settle(start, numbers, predicted) for start in starts]
        return min(found, key=lambda each: each[0])[1]

    def _settle(self, motion: Motion, numbers: Numbers, predicted: Array) -> tuple[float, Placed]:
        """Assignment and motion in turn, from a first motion: the squared error, and both."""
        for _ in range(ROUNDS):
            offsets = motion.apply(self.positions)[:, None] - predicted
            atoms = assigned(np.square(offsets).sum(axis=-1), self.numbers, numbers)
            motion = rigid_motion(self.positions, predicted[atoms])
        error = float(np.square(motion.apply(self.positions) - predicted[atoms]).sum())
        return error, Placed(motion, atoms)


def _axes(positions: Array) -> Array:
    """Principal axes as columns, right-handed."""
    centred = positions - positions.mean(axis=0)
    axes: Array = np.linalg.eigh(centred.T @ centred)[1]
    return axes * np.array([1.0, 1.0, np.sign(np.linalg.det(axes))])


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
