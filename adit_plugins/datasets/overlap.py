"""Crystals that are in two splits of prepared data, found by formula and StructureMatcher."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adit_plugins.datasets.errors import DatasetError
from adit_plugins.matching.fingerprints import invariants_of_primitive
from adit_plugins.matching.matcher import ERRORS, first_match, reduce_cell

if TYPE_CHECKING:
    from pymatgen.core import Structure
    from torch import Tensor

    from adit_model.data import PreparedData

Formula = tuple[tuple[int, int], ...]  # atomic numbers, with how many there are
NEAREST = 10  # unseen crystals of a formula that one is compared with, by their invariants
HELD_OUT = (2, 1, 0)  # test, val, train: who is kept of two that are equal


def overlapping(data: PreparedData) -> NDArray[np.bool_]:
    """Which crystals `[structures]` equal one of a split that is held out more strictly.

    A training crystal that equals one of val or test, and one of val that equals one of test. Only
    crystals of one reduced formula are compared, by StructureMatcher; where more than `NEAREST` are
    held out of a formula, with those whose primitive cells have the nearest invariants.

    Raises:
        DatasetError: these are no crystals.
    """
    if data.kind != "crystal" or data.coords is None or data.cell is None:
        raise DatasetError(f"{data.name} has no crystals, whose splits could be compared.")
    found = np.zeros(len(data.split), dtype=bool)
    split = data.split.numpy()
    for rows in rows_by_formula(data).values():
        if len({int(split[row]) for row, _ in rows}) > 1:
            for row in _equal(data, rows, split):
                found[row] = True
    return found


def without(data: PreparedData, rows: NDArray[np.bool_]) -> PreparedData:
    """The data without some structures."""
    import torch

    keep = torch.from_numpy(~rows)
    atoms = keep.repeat_interleave(data.num_atoms)

    def of_structures(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor[keep]

    return dataclasses.replace(
        data,
        atomic_numbers=data.atomic_numbers[atoms],
        coords=None if data.coords is None else data.coords[atoms],
        num_atoms=data.num_atoms[keep],
        split=data.split[keep],
        cell=of_structures(data.cell),
        labels={name: values[keep] for name, values in data.labels.items()},
    )


def formula_key(numbers: NDArray[Any], kind: str) -> Formula:
    """The elements and their amounts, for a crystal in the smallest whole numbers."""
    elements, counts = np.unique(numbers, return_counts=True)
    divisor = int(np.gcd.reduce(counts)) if kind == "crystal" and len(counts) else 1
    return tuple(zip(elements.tolist(), (counts // divisor).tolist(), strict=True))


def rows_by_formula(data: PreparedData) -> dict[Formula, list[tuple[int, int]]]:
    """Row and first atom of the structures, by `formula_key`."""
    ends = np.cumsum(data.num_atoms.numpy())
    groups: dict[Formula, list[tuple[int, int]]] = {}
    for row, numbers in enumerate(np.split(data.atomic_numbers.numpy(), ends[:-1])):
        start = int(ends[row]) - len(numbers)
        groups.setdefault(formula_key(numbers, data.kind), []).append((row, start))
    return groups


def _equal(
    data: PreparedData, rows: list[tuple[int, int]], split: NDArray[np.uint8]
) -> Iterator[int]:
    """Those of one formula that equal one that is held out more strictly."""
    held: list[tuple[Structure | None, NDArray[np.int8] | None]] = []
    for number in HELD_OUT:
        here = [(row, start) for row, start in rows if split[row] == number]
        cells = {row: reduce_cell(structure_of(data, row, start)) for row, start in here}
        for row, cell in cells.items():
            if first_match(cell, _near(cell, held)) is not None:
                yield row
        if number:
            held += [(cell, None) for cell in cells.values()]
            if len(held) > NEAREST:
                held = [(c, _invariants(c) if i is None else i) for c, i in held]


def _near(
    cell: Structure | None, held: list[tuple[Structure | None, NDArray[np.int8] | None]]
) -> list[Structure | None]:
    """The crystals of as many sites that a cell is compared with."""
    alike = [
        (other, invariants)
        for other, invariants in held
        if cell is not None and other is not None and len(other) == len(cell)
    ]
    if len(alike) <= NEAREST:
        return [other for other, _ in alike]
    mine = _invariants(cell)
    far = [
        np.inf
        if mine is None or invariants is None
        else float(((mine.astype(float) - invariants) ** 2).sum())
        for _, invariants in alike
    ]
    return [alike[place][0] for place in np.argsort(far, kind="stable")[:NEAREST]]


def _invariants(cell: Structure | None) -> NDArray[np.int8] | None:
    if cell is None:
        return None
    try:
        return invariants_of_primitive(cell)
    except ERRORS:
        return None


def structure_of(data: PreparedData, row: int, start: int) -> Structure:
    """One crystal of prepared data, by its row and its first atom."""
    from pymatgen.core import Lattice, Structure

    assert data.coords is not None
    assert data.cell is not None
    atoms = slice(start, start + int(data.num_atoms[row]))
    lattice = Lattice.from_parameters(*data.cell[row].tolist())
    return Structure(lattice, data.atomic_numbers[atoms].tolist(), data.coords[atoms].numpy())
