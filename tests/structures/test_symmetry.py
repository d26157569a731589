"""Space groups are found of every cell, or not, in a moment: also of those too thin to have one.

moyopy multiplies the operations of a lattice until there are no new ones. Where these never end it
fills the memory and nothing can interrupt it, so each test asks for the tolerance first.
"""

from __future__ import annotations

import numpy as np
import pytest
from moyopy.interface import MoyoAdapter
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from adit_plugins.structures.symmetrizing import symmetrized
from adit_plugins.structures.symmetry import (
    SYMPREC,
    THIN,
    _bearable,
    _has_finite_group,
    symmetry_dataset,
)

# Two mirrors within the tolerance, at b = 0 and at b = a / 4: their product shears.
SHEARED = [[0.5, 0.0, 0.0], [0.125, 5.0, 0.0], [0.0, 0.0, 5.0]]
# An autoencoder that had learned little made this of one atom of iridium.
DECODED = [[0.692, 0.0, -0.584], [-0.642, 0.532, 0.433], [0.0, 0.0, 5.169]]
# VS2, a real crystal, at a tolerance that merges what differs.
LAYERED = [[3.18, 0.0, 0.25], [1.57, 2.755, 0.351], [0.0, 0.0, 11.459]]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("lattice", "tolerance"), [(SHEARED, 0.1), (DECODED, 0.1), (LAYERED, 0.5)])
def test_a_thin_cell_gets_a_tolerance_that_ends(
    lattice: list[list[float]], tolerance: float, times: int
) -> None:
    assert not _has_finite_group(_reduced(np.array(lattice)), tolerance)
    crystal = Structure(lattice, ["Ir"], [[0.1, 0.2, 0.3]]) * (times, 1, 1)
    assert tolerance / 4 <= bearable(crystal, tolerance) < tolerance
    dataset = symmetry_dataset(crystal, tolerance)
    assert dataset is not None
    assert dataset.symprec <= tolerance / 2
    assert dataset.number > 1
    assert len(dataset.prim_std_cell.numbers) == 1


def test_a_large_tolerance_of_symmetrized_ends() -> None:
    layers = Structure(LAYERED, ["V", "S", "S"], [[0, 0, 0], [1 / 3, 1 / 3, 0.13], [-1 / 3] * 3])
    assert bearable(layers, 0.5) < 0.5
    exact = symmetrized(layers, tolerance=0.5)
    assert len(exact) == 3
    assert exact.properties["adit"]["symmetry_tolerance"] <= 0.25


@pytest.mark.parametrize("turned", [False, True])
def test_ordinary_crystals_keep_their_tolerance(turned: bool) -> None:
    face_centred = 2.0 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    cells = {225: face_centred, 221: 4.0 * np.eye(3), 123: np.diag([2.5, 2.5, 60.0])}
    cells[191] = np.array(Lattice.hexagonal(2.5, 30.0).matrix)
    for number, basis in cells.items():
        for tolerance in (1e-3, SYMPREC):
            crystal = Structure(basis @ _rotation() if turned else basis, ["Po"], [[0.0] * 3])
            for each in (crystal, crystal * (2, 1, 2)):
                assert bearable(each, tolerance) == tolerance
                dataset = symmetry_dataset(each, tolerance)
                assert dataset is not None
                assert (dataset.number, dataset.symprec) == (number, tolerance)


def test_only_cells_that_are_thin_are_endless() -> None:
    """The bound below which a lattice is looked at, on random ones around it."""
    rng = np.random.default_rng(0)
    endless = []
    for _ in range(600):
        basis = (np.eye(3) + 0.1 * rng.normal(size=(3, 3))) * np.exp(rng.uniform(1, 4, (3, 1)))
        basis = _reduced(basis)
        lengths = np.linalg.norm(basis, axis=1)
        if not _has_finite_group(basis, 1.0):
            endless.append(lengths.min() ** 3 / lengths.max())
    assert len(endless) > 5
    assert max(endless) < THIN


def test_a_flat_cell_has_no_symmetry() -> None:
    flat = Structure([[3, 0, 0], [3, 0, 0], [0, 0, 3]], ["Na"], [[0, 0, 0]])
    assert symmetry_dataset(flat) is None


def bearable(crystal: Structure, tolerance: float) -> float:
    """The tolerance that moyopy is given."""
    return _bearable(MoyoAdapter.from_structure(crystal), tolerance)


def _reduced(basis: NDArray[np.float64]) -> NDArray[np.float64]:
    reduced: NDArray[np.float64] = Lattice(basis).get_niggli_reduced_lattice().matrix
    return reduced


def _rotation() -> NDArray[np.float64]:
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    return turn
