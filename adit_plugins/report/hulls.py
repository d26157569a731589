"""Pictures of hulls: the stable phases of two or three elements, and the lines between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from adit_plugins.hull.table import SHIPPED, Hull

MAX_SYSTEMS = 60  # pictures in a page, of the best candidates
TOLERANCE = 1e-4  # eV/atom: what lies closer to its neighbours' hull is a point of it, no corner


def hull_pictures(rows: Iterable[Mapping[str, Any]], elements: Iterable[list[str]]) -> list[Any]:
    """Return the binary and ternary systems of candidates, the best candidate's first.

    Args:
        rows: of the table; only those on the shipped reference's scale have a picture.
        elements: the elements of each.
    """
    wanted: dict[tuple[str, ...], None] = {}
    for row, symbols in zip(rows, elements, strict=True):
        placed = row.get("energy_above_hull") is not None and row.get("source", SHIPPED) == SHIPPED
        if placed and len(symbols) in (2, 3):
            wanted.setdefault(tuple(sorted(symbols)))
        if len(wanted) == MAX_SYSTEMS:
            break
    if not wanted:
        return []
    hull = Hull.load()
    return [hull_picture(system, hull) for system in wanted]


def hull_picture(system: tuple[str, ...], hull: Hull) -> dict[str, Any]:
    """Return the stable phases of a system and the edges of the lower hull between them.

    Args:
        system: two or three element symbols.
        hull: the reference.

    Returns:
        `elements`; `phases`, each with name, atomic fractions and formation energy (eV/atom);
        `edges`, pairs of places in `phases`.
    """
    points = [({symbol: 1.0}, 0.0) for symbol in system]
    points += [
        ({s: n / sum(amounts.values()) for s, n in amounts.items()}, energy)
        for amounts, energy in hull.phases(system)
        if energy < 0
    ]
    fractions = np.array([[amounts.get(s, 0.0) for s in system] for amounts, _ in points])
    energies = np.array([energy for _, energy in points])
    keep = _corners(fractions, energies)
    fractions, energies = fractions[keep], energies[keep]
    phases = [
        {"formula": _formula(system, x), "x": [round(float(v), 6) for v in x], "e": round(e, 5)}
        for x, e in zip(fractions, energies.tolist(), strict=True)
    ]
    return {"elements": list(system), "phases": phases, "edges": _edges(fractions, energies)}


def _formula(system: tuple[str, ...], fractions: np.ndarray) -> str:
    from pymatgen.core import Composition

    if fractions.max() == 1.0:
        return system[int(fractions.argmax())]  # O, where pymatgen says O2
    amounts = dict(zip(system, fractions.tolist(), strict=True))
    formula, _ = Composition(amounts).get_integer_formula_and_factor(max_denominator=200)
    return str(formula)


def _corners(fractions: np.ndarray, energies: np.ndarray) -> list[int]:
    """Places of the phases without which the hull would be higher."""
    num_elements = fractions.shape[1]
    keep = list(range(len(energies)))
    for place in sorted(range(num_elements, len(energies)), key=lambda i: -energies[i]):
        others = [i for i in keep if i != place]
        if _hull_energy(fractions[others], energies[others], fractions[place]) <= (
            energies[place] + TOLERANCE
        ):
            keep = others
    return keep


def _hull_energy(fractions: np.ndarray, energies: np.ndarray, target: np.ndarray) -> float:
    from scipy.optimize import linprog

    return float(linprog(energies, A_eq=fractions.T, b_eq=target, bounds=(0, None)).fun)


def _edges(fractions: np.ndarray, energies: np.ndarray) -> list[list[int]]:
    """Pairs of phases that coexist: the edges of the lower facets."""
    if fractions.shape[1] == 2:
        order = np.argsort(fractions[:, 1]).tolist()
        return [list(pair) for pair in pairwise(order)]
    if len(energies) == 3:  # the elements alone
        return [[0, 1], [0, 2], [1, 2]]
    from scipy.spatial import ConvexHull

    hull = ConvexHull(np.column_stack([fractions[:, 1:], energies]))
    found = set()
    for corners, equation in zip(hull.simplices, hull.equations, strict=True):
        if equation[2] < -1e-8:  # facing down
            found |= set(combinations(sorted(corners.tolist()), 2))
    return [list(pair) for pair in sorted(found)]
