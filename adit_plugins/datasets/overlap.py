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
    for places in _formulas(data).values():
        if len(set(split[places])) > 1:
            for place in _equal(data, places, split):
                found[place] = True
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


def _formulas(data: PreparedData) -> dict[bytes, NDArray[np.int64]]:
    """Places of the structures by reduced formula."""
    ends = np.cumsum(data.num_atoms.numpy())
    numbers = data.atomic_numbers.numpy()
    groups: dict[bytes, list[int]] = {}
    for place, (end, size) in enumerate(zip(ends, data.num_atoms.tolist(), strict=True)):
        counts = np.bincount(numbers[end - size : end], minlength=128)
        reduced = counts // np.gcd.reduce(counts[counts > 0])
        groups.setdefault(reduced.tobytes(), []).append(place)
    return {key: np.array(places) for key, places in groups.items()}


def _equal(
    data: PreparedData, places: NDArray[np.int64], split: NDArray[np.uint8]
) -> Iterator[int]:
    """Those of one formula that equal one that is held out more strictly."""
    held: list[tuple[Structure | None, NDArray[np.int8] | None]] = []
    for number in HELD_OUT:
        here = [int(place) for place in places if split[place] == number]
        cells = {place: reduce_cell(structure_of(data, place)) for place in here}
        for place in here:
            if first_match(cells[place], _near(cells[place], held)) is not None:
                yield place
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


def structure_of(data: PreparedData, place: int) -> Structure:
    """One crystal of prepared data."""
    from pymatgen.core import Lattice, Structure

    assert data.coords is not None
    assert data.cell is not None
    end = int(data.num_atoms[: place + 1].sum())
    atoms = slice(end - int(data.num_atoms[place]), end)
    lattice = Lattice.from_parameters(*data.cell[place].tolist())
    return Structure(lattice, data.atomic_numbers[atoms].tolist(), data.coords[atoms].numpy())
