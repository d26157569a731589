"""Structures as the training data have them, where the network knows them, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adit_plugins.datasets.canonical import heavy_first
from adit_plugins.structures.samples import Sample

# A reduced cell is made of whole numbers of the given one's vectors; what is further off is none.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TrainingForm:
    """A structure in the form of the training data.

    Crystals: the primitive Niggli cell, atoms ordered by element and position. Molecules: heavy
    atoms first, as in QM9.

    Attributes:
        sample: in that form.
        sites: of each atom of the structure as it was given, the atom of `sample` `[num_atoms]`.
        shifts: of each of them in a crystal, the lattice vectors of `sample` from that atom
            `[num_atoms, 3]`.
        cell: the given lattice in the lattice vectors of `sample` `[3, 3]`, whole numbers.
        rotation: of the frame of `sample` into the given one `[3, 3]`; it may be improper.
        centre: of a molecule, angstrom `[3]`.
    """

    sample: Sample
    sites: NDArray[np.int64]
    shifts: NDArray[np.int64] | None = None
    cell: NDArray[np.int64] | None = None
    rotation: NDArray[np.float64] | None = None
    centre: NDArray[np.float64] | None = None

    def restored(self, sample: Sample) -> Sample:
        """Return a structure like `self.sample` in the cell and order that were given.

        A crystal gets as many of its cells as were given, turned as that was; a molecule stays
        where it is.
        """
        numbers = sample.atomic_numbers[self.sites]
        if self.cell is None or self.rotation is None or self.shifts is None:
            positions = sample.positions - sample.positions.mean(axis=0) + self.centre
            return Sample("molecule", numbers, positions[self.sites], None, sample.provenance)
        frac_coords = sample.frac_coords
        assert sample.lattice is not None
        assert frac_coords is not None
        near = _nearest_images(frac_coords, self.sample)
        lattice = sample.lattice @ self.rotation
        positions = (near[self.sites] + self.shifts) @ lattice
        return Sample("crystal", numbers, positions, self.cell @ lattice, sample.provenance)


def training_form(sample: Sample) -> TrainingForm:
    """Bring a structure into the form of the training data.

    Raises:
        ValueError: a crystal has no primitive Niggli cell that is made of its own, or an element
            that no network knows.
    """
    if sample.kind == "molecule":
        order = heavy_first(sample.atomic_numbers)
        moved = Sample("molecule", sample.atomic_numbers[order], sample.positions[order])
        return TrainingForm(moved, np.argsort(order), centre=moved.positions.mean(axis=0))
    from pymatgen.core import Lattice, Structure

    from adit_plugins.datasets.crystals import canonical_crystal
    from adit_plugins.structures.symmetry import niggli_reduced, unskewed

    # A conventional cell holds the same crystal several times.
    structure = sample.to_pymatgen()
    assert isinstance(structure, Structure)
    assert sample.lattice is not None
    primitive = unskewed(structure).get_primitive_structure()
    row = canonical_crystal(primitive)
    matrix = Lattice.from_parameters(*row["cell"]).matrix
    reduced = niggli_reduced(primitive).lattice.matrix
    form = Sample("crystal", np.array(row["atomic_numbers"]), row["coords"] @ matrix, matrix)
    cell = sample.lattice @ np.linalg.inv(reduced)
    if np.abs(cell - np.round(cell)).max() > _TOLERANCE * max(1.0, float(np.abs(cell).max())):
        raise ValueError(
            f"the primitive cell of {sample!r} is not made of its lattice vectors; give the "
            "crystal in its primitive cell"
        )
    sites, shifts = _same_atoms(sample, form, reduced)
    whole = np.round(cell).astype(np.int64)
    return TrainingForm(form, sites, shifts, whole, np.linalg.inv(matrix) @ reduced)


def _same_atoms(
    given: Sample, form: Sample, reduced: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each given atom the nearest one of its element in the reduced cell, and the way there."""
    frac = given.positions @ np.linalg.inv(reduced)
    own = form.frac_coords
    assert own is not None
    offsets = frac[:, None] - own  # [given, reduced, 3]
    shifts = np.round(offsets)
    distances = np.linalg.norm((offsets - shifts) @ reduced, axis=-1)
    distances[given.atomic_numbers[:, None] != form.atomic_numbers] = np.inf
    sites = distances.argmin(axis=1)
    return sites, shifts[np.arange(len(sites)), sites].astype(np.int64)


def _nearest_images(frac_coords: NDArray[np.float64], like: Sample) -> NDArray[np.float64]:
    """Coordinates of the images that lie nearest to the atoms of another crystal."""
    reference = like.frac_coords
    assert reference is not None
    return frac_coords - np.round(frac_coords - reference)
