"""The concatenated arrays of CDVAE, DiffCSP, FlowMM and OMatG, as npz and as torch files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from adit_plugins.structures.entries import Entry, InputError, attempt

# The atoms of all crystals follow each other under names like these.
NUMBERS = ("atomic_numbers", "atom_types", "species")
_CELLS = ("lattices", "lengths", "angles")

Arrays = Mapping[str, NDArray[Any]]


def read_npz(path: Path, name: str) -> Iterator[Entry]:
    """Read an archive of plain arrays.

    Raises:
        InputError: it is none, or the arrays are not those of crystals.
    """
    try:
        arrays = np.load(path, allow_pickle=False)
    except ValueError as error:  # numpy advises to unpickle it, which would run what is inside
        raise InputError(f"{name} is no archive of plain arrays.") from error
    if not isinstance(arrays, NpzFile):
        raise InputError(f"{name} is a single array, no archive.")
    with arrays:
        wanted = (*NUMBERS, "frac_coords", "num_atoms", *_CELLS)
        found = {key: arrays[key] for key in wanted if key in arrays}
        yield from _crystals(found, list(arrays), name)


def read_torch(path: Path, name: str) -> Iterator[Entry]:
    """Read a dictionary of tensors (`eval_gen.pt`) without unpickling it.

    Raises:
        InputError: it is no such file, or the tensors are not those of crystals.
    """
    from adit_model.checkpoints.folder import CheckpointError
    from adit_model.checkpoints.lightning_file import LightningFile
    from adit_model.checkpoints.restricted_pickle import StoredTensor

    try:
        with LightningFile(path) as file:
            found = {
                key: file.read_stored(value, str(key)).numpy()
                for key in (*NUMBERS, "frac_coords", "num_atoms", *_CELLS)
                if isinstance(value := file.content.get(key), StoredTensor)
            }
            names = [str(key) for key in file.content]
    except CheckpointError as error:
        raise InputError(f"{name} is no file of tensors: {error}") from error
    yield from _crystals(found, names, name)


def _crystals(arrays: Arrays, names: list[str], name: str) -> Iterator[Entry]:
    """Cut the arrays into crystals.

    Raises:
        InputError: arrays are missing, or do not fit each other.
    """
    types = next((arrays[key] for key in NUMBERS if key in arrays), None)
    given = "lattices" in arrays or {"lengths", "angles"} <= set(arrays)
    if types is None or not given or not {"frac_coords", "num_atoms"} <= set(arrays):
        wanted = f"frac_coords, num_atoms, one of {', '.join(NUMBERS)}, and lengths with angles"
        raise InputError(
            f"{name} needs the arrays {wanted} (or lattices); it has {', '.join(names) or 'none'}."
        )
    sizes, numbers = arrays["num_atoms"].ravel().astype(int), types.ravel()
    coords, cells = arrays["frac_coords"].reshape(-1, 3), _cells(arrays)
    fits = len(sizes) == len(cells) and sizes.sum() == len(numbers) == len(coords)
    if (sizes < 0).any() or not fits:
        raise InputError(
            f"{name}: its arrays do not fit each other (num_atoms sums up to {sizes.sum()}; "
            f"{len(numbers)} types, {len(coords)} coordinates, {len(cells)} of {len(sizes)} cells)."
        )
    for i, end in enumerate(np.cumsum(sizes)):
        part = slice(int(end - sizes[i]), int(end))
        make = partial(_atoms, numbers[part], coords[part], cells[i])
        yield attempt(f"{name}, structure {i}", make, "crystal")


def _cells(arrays: Arrays) -> NDArray[Any]:
    if "lattices" in arrays:
        return arrays["lattices"].reshape(-1, 3, 3)
    return np.hstack([arrays["lengths"].reshape(-1, 3), arrays["angles"].reshape(-1, 3)])


def _atoms(numbers: NDArray[Any], coords: NDArray[Any], cell: NDArray[Any]) -> Atoms:
    cell = np.asarray(cell, dtype=float)
    matrix = cell if cell.shape == (3, 3) else cellpar_to_cell(cell)
    frac = np.asarray(coords, dtype=float)
    return Atoms(numbers=numbers, scaled_positions=frac, cell=matrix, pbc=True)
