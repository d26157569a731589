"""What a CIF says of its composition, compared with what was read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from numpy.typing import NDArray

from adit_plugins.structures.elements import element_of_symbol

DALTON = 1.66053907  # g/cm3 of one dalton in a cubic angstrom (CODATA 2018)
DENSITY_TOLERANCE = 0.05
FORMULA_TOLERANCE = 0.01  # an element: formulas are given with two decimals


@dataclass(frozen=True)
class Claims:
    """What a file says; empty or None where it says nothing.

    Attributes:
        formula: amounts by atomic number, of one formula unit or of the cell.
        units: formula units in a cell (Z).
        density: g/cm3.
    """

    formula: dict[int, float] = field(default_factory=dict)
    units: float | None = None
    density: float | None = None

    def tell(self) -> bool:
        """Return whether there is something to compare with."""
        return bool(self.formula or self.density)


def formula_of(text: str) -> dict[int, float]:
    """Return the amounts of a sum formula, or nothing if it is none (`C2 H6 O`, `Fe0.9 O`)."""
    amounts: dict[int, float] = {}
    words = text.split() if " " in text.strip() else re.findall(r"[A-Z][a-z]?[\d.]*", text)
    if "".join(words) != "".join(text.split()):
        return {}
    for word in words:
        found = re.fullmatch(r"([A-Za-z]{1,2})(\d*\.?\d*)(?:\(\d+\))?", word)
        if not found:
            return {}
        try:
            number = 1 if found[1] in ("D", "T") else element_of_symbol(found[1])
            amounts[number] = amounts.get(number, 0.0) + float(found[2] or 1)
        except ValueError:
            return {}
    return {number: amount for number, amount in amounts.items() if amount}


def contradiction(numbers: NDArray[np.int64], cell: NDArray[np.float64], claims: Claims) -> str:
    """Say how the atoms of a cell contradict what the file says, or nothing."""
    return _wrong_formula(numbers, claims) or _wrong_density(numbers, cell, claims)


def _wrong_formula(numbers: NDArray[np.int64], claims: Claims) -> str:
    if not claims.formula:
        return ""
    elements, counts = np.unique(numbers, return_counts=True)
    found = {int(z): int(n) for z, n in zip(elements, counts, strict=True)}
    units = len(numbers) / sum(claims.formula.values())
    whole = max(round(units), 1)
    said = " ".join(f"{chemical_symbols[z]}{n:g}" for z, n in claims.formula.items())
    read = " ".join(f"{chemical_symbols[z]}{n}" for z, n in found.items())
    same = found.keys() == claims.formula.keys() and all(
        abs(found[z] - whole * amount) <= FORMULA_TOLERANCE * whole
        for z, amount in claims.formula.items()
    )
    if not same:
        return f"its atoms in the cell are {read}, but its formula is {said}"
    if claims.units and whole not in (1, round(claims.units)):
        return (
            f"its atoms in the cell are {read}: {whole} formula units of {said}, "
            f"but the file says Z = {claims.units:g}"
        )
    return ""


def _wrong_density(numbers: NDArray[np.int64], cell: NDArray[np.float64], claims: Claims) -> str:
    if not claims.density:
        return ""
    volume = abs(float(np.linalg.det(cell)))
    if not volume:
        return ""
    density = DALTON * float(atomic_masses[numbers].sum()) / volume
    # Some write kilograms a cubic metre.
    if min(abs(density / claims.density - 1), abs(1000 * density / claims.density - 1)) <= (
        DENSITY_TOLERANCE
    ):
        return ""
    return f"its density is {density:.3g} g/cm3, but the file says {claims.density:g}"
