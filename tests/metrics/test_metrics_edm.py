"""EDM's bonds, stability and validity on molecules whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from adit_plugins.metrics.edm import edm_bonds, edm_mol


def orders(atoms: Atoms) -> list[int]:
    return sorted(edm_bonds(atoms.numbers, atoms.positions).orders.tolist())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CH4", [1, 1, 1, 1]),
        ("C2H4", [1, 1, 1, 1, 2]),
        ("C2H2", [1, 1, 3]),
        ("CO2", [2, 2]),
        ("HCN", [1, 3]),
        ("C6H6", [1] * 6 + [1] * 6),  # the tables know no aromatic bond
    ],
)
def test_orders_follow_the_lengths(name: str, expected: list[int]) -> None:
    assert orders(molecule(name)) == expected


@pytest.mark.parametrize(
    ("pair", "distance", "expected"),
    [
        ("CC", 1.639, [1]),  # 154 + 10 picometres
        ("CC", 1.641, []),
        ("CC", 1.389, [2]),  # 134 + 5
        ("CC", 1.391, [1]),
        ("CC", 1.229, [3]),  # 120 + 3
        ("CC", 1.231, [2]),
        ("CH", 1.189, [1]),
        ("HeH", 0.8, []),  # not in the tables
    ],
)
def test_limits(pair: str, distance: float, expected: list[int]) -> None:
    assert orders(Atoms(pair, [[0, 0, 0], [0, 0, distance]])) == expected


def test_stability_counts_atoms_of_the_right_valence() -> None:
    ethanol = molecule("CH3CH2OH")
    whole = edm_bonds(ethanol.numbers, ethanol.positions)
    assert whole.stable
    assert whole.num_stable_atoms == 9
    hydroxyl = next(
        i for i, s in enumerate(ethanol.symbols) if s == "H" and ethanol.get_distance(2, i) < 1.1
    )
    del ethanol[hydroxyl]
    damaged = edm_bonds(ethanol.numbers, ethanol.positions)
    assert not damaged.stable
    assert damaged.num_stable_atoms == 7  # all but the oxygen
    assert edm_mol(ethanol.numbers, damaged).GetNumAtoms() == 8  # RDKit implies the hydrogen


def test_too_many_bonds_are_not_valid() -> None:
    methane = molecule("CH4")
    crowded = methane + Atoms("H", [methane.positions[0] + np.array([0, 0, 1.0])])
    with pytest.raises(ValueError, match="RDKit rejects EDM's bonds"):
        edm_mol(crowded.numbers, edm_bonds(crowded.numbers, crowded.positions))
