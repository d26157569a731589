"""Atom sites of a CIF: elements, occupancies, and their images under the symmetry operators."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from adit_plugins.structures.cif_values import Tags, number
from adit_plugins.structures.elements import element_of_label, element_of_symbol
from adit_plugins.structures.entries import FULL, MAX_LINES
from adit_plugins.structures.space_groups import Operators

# Images of one site so near to each other are one atom on a special position, its coordinates
# given with too few digits (0.333); a bond is never so short.
SPECIAL_DISTANCE = 0.1  # angstrom
SAME_DISTANCE = 0.01  # angstrom, between different sites: the same place
MAX_IMAGES = 500_000


class Site(NamedTuple):
    """One line of the list of sites."""

    label: str
    number: int  # atomic
    position: tuple[float, float, float]  # fractional
    occupancy: float


def read_sites(tags: Tags, formula: dict[int, float]) -> list[Site]:
    """Return the sites that are there; an occupancy that is not given is 1.

    Raises:
        ValueError: there are none, or one has no element, no coordinates or hydrogens without.
    """
    axes = [tags.get(f"atom_site_fract_{axis}", []) for axis in "xyz"]
    if not all(axes):
        raise ValueError("it has no fractional coordinates of atoms (_atom_site_fract_x, _y, _z)")
    count = len(axes[0])
    empty = [""] * count
    labels = tags.get("atom_site_label", empty)
    symbols = tags.get("atom_site_type_symbol", empty)
    occupancies = tags.get("atom_site_occupancy", empty)
    hydrogens = tags.get("atom_site_attached_hydrogens", empty)
    dummies = tags.get("atom_site_calc_flag", empty)
    columns = (*axes, labels, symbols, occupancies, hydrogens, dummies)
    if {len(column) for column in columns} != {count}:
        raise ValueError("its columns of atom sites are of different lengths")
    sites = []
    for x, y, z, label, symbol, occupied, attached, flag in zip(*columns, strict=True):
        occupancy = 1.0 if not occupied else number(occupied)
        if flag.lower() == "dum" or (occupancy is not None and 0 <= occupancy <= 1 - FULL):
            continue
        position = (number(x), number(y), number(z))
        name = label or symbol
        if None in position:
            raise ValueError(f"its site {name} has no coordinates")
        if occupancy is None or not 0 <= occupancy <= 2 - FULL:
            raise ValueError(f"the occupancy of its site {name} is {occupied:.20}")
        if number(attached):
            raise ValueError(f"its site {name} has hydrogen atoms without coordinates")
        element = element_of_symbol(symbol) if symbol else element_of_label(label, formula)
        sites.append(Site(name, element, position, occupancy))  # type: ignore[arg-type]
    if not sites:
        raise ValueError("it has no atoms")
    return sites


def expand(
    sites: list[Site], operators: Operators, cell: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Apply the operators to ordered sites.

    Args:
        sites: of the asymmetric unit; sites that are images of each other count once.
        operators: of the space group.
        cell: `[3, 3]` lattice vectors as rows, angstrom.

    Returns:
        Atomic numbers `[num_atoms]` and fractional coordinates `[num_atoms, 3]` in [0, 1).

    Raises:
        ValueError: a place is shared by two elements or is partly empty, or there are too many.
    """
    if len(sites) * len(operators.rotations) > MAX_IMAGES:
        raise ValueError("it has too many atoms to be judged")
    positions = np.array([site.position for site in sites])
    if not np.isfinite(positions).all() or np.abs(positions).max() > 1e6:
        raise ValueError("a coordinate is impossible")
    numbers, coords, owners = [], [], []
    for i, (site, position) in enumerate(zip(sites, positions, strict=True)):
        images = position[None] if len(operators.rotations) == 1 else _orbit(
            position, operators, cell, site.label
        )  # fmt: skip
        coords.append(images)
        numbers += [site.number] * len(images)
        owners += [i] * len(images)
        if len(numbers) > MAX_LINES:
            raise ValueError("it has too many atoms to be judged")
    frac = _wrapped(np.concatenate(coords))
    kept = _without_repetition(sites, np.array(owners), frac, cell)
    return np.array(numbers)[kept], frac[kept]


def _orbit(
    position: NDArray[np.float64], operators: Operators, cell: NDArray[np.float64], label: str
) -> NDArray[np.float64]:
    """All images of a site, each once; a site near a special position is moved onto it."""
    for _ in range(3):  # a position far off may come onto a more special one by the first step
        images = operators.rotations @ position + operators.translations
        shifts = images - position
        shifts -= np.round(shifts)
        near = np.linalg.norm(shifts @ cell, axis=1) < SPECIAL_DISTANCE
        if near.sum() == 1:
            break
        moved = position + shifts[near].mean(axis=0)
        if np.allclose(moved, position, atol=1e-12):
            break
        position = moved
    images = operators.rotations @ position + operators.translations
    size = len(images) // int(near.sum())
    chosen: list[int] = []
    remaining = np.ones(len(images), dtype=bool)
    while remaining.any():
        first = int(np.argmax(remaining))
        chosen.append(first)
        shifts = images - images[first]
        shifts -= np.round(shifts)
        remaining &= np.linalg.norm(shifts @ cell, axis=1) >= SPECIAL_DISTANCE / 2
    if len(chosen) != size:
        raise ValueError(f"its site {label} lies too near a special position to tell on which")
    return images[chosen]


def _without_repetition(
    sites: list[Site],
    owners: NDArray[np.int64],
    frac: NDArray[np.float64],
    cell: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Indices of the atoms when a place that several sites name is one atom."""
    groups = _same_places(frac, cell)
    kept = []
    for group in groups:
        here = [sites[owners[i]] for i in group]
        elements = {site.number for site in here}
        names = ", ".join(f"{chemical_symbols[s.number]} {s.occupancy:g}" for s in here)
        if len(elements) > 1:
            raise ValueError(f"it is disordered: a site is shared ({names})")
        total = sum(site.occupancy for site in here)
        if total < FULL:
            raise ValueError(f"it is disordered: a site is partly empty ({names})")
        kept.append(group[0])
    return np.array(sorted(kept))


def _same_places(frac: NDArray[np.float64], cell: NDArray[np.float64]) -> list[list[int]]:
    """Indices of atoms at one place, most alone; found by sorting, as there may be thousands."""
    from scipy.spatial import cKDTree

    if len(frac) == 1:
        return [[0]]
    # In units of the lattice a place is no farther than this from another within the distance.
    reach = SAME_DISTANCE * float(np.linalg.norm(np.linalg.inv(cell), axis=0).max())
    if not np.isfinite(reach) or reach >= 0.5:
        return [[i] for i in range(len(frac))]
    pairs = cKDTree(frac, boxsize=1.0).query_pairs(reach, output_type="ndarray", p=np.inf)
    if len(pairs):
        shifts = frac[pairs[:, 0]] - frac[pairs[:, 1]]
        shifts -= np.round(shifts)
        pairs = pairs[np.linalg.norm(shifts @ cell, axis=1) < SAME_DISTANCE]
    if not len(pairs):
        return [[i] for i in range(len(frac))]
    leader = np.arange(len(frac))
    for a, b in pairs[np.argsort(pairs[:, 0])]:
        leader[b] = min(leader[a], leader[b])
    groups: dict[int, list[int]] = {}
    for i, lead in enumerate(leader):
        groups.setdefault(int(lead), []).append(i)
    return list(groups.values())


def _wrapped(frac: NDArray[np.float64]) -> NDArray[np.float64]:
    frac = frac % 1.0
    frac[frac >= 1.0] = 0.0  # -1e-17 % 1.0 is 1.0 in floating point
    return frac
