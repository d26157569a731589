"""Formation energy and energy above hull, with the coverage of the reference beside every number.

The shipped table holds the Materials Project's hull energy at 41,076 formulas. Each of them is a
point of the real hull, also where the competing phases are not in the table; between them, and in
chemical systems the table does not know, the hull comes out too high and distances too small.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Composition


class UnknownElementError(ValueError):
    """An element has no reference energy."""


@dataclass(frozen=True)
class HullResult:
    """A distance from the hull and how much the reference knows about it.

    Attributes:
        energy_above_hull: eV/atom; negative if the structure lies below every known combination.
        hull_energy_per_atom: formation energy of the hull at this composition, eV/atom.
        num_reference_phases: compounds (two elements or more) of the table in the chemical system.
        num_subsystems: subsets of the elements with two elements or more, the full system included.
        num_subsystems_covered: those with at least one compound of exactly these elements.
    """

    energy_above_hull: float
    hull_energy_per_atom: float
    num_reference_phases: int
    num_subsystems: int
    num_subsystems_covered: int


def formation_energy_per_atom(composition: Composition | str, energy_per_atom: float) -> float:
    """Return the formation energy from the elements, eV/atom.

    Args:
        composition: a pymatgen Composition or a formula.
        energy_per_atom: eV/atom, from CHGNet or another potential on the Materials Project's scale
            (PBE with MP2020 corrections); references from matcalc.

    Raises:
        UnknownElementError: if an element has no reference energy.
    """
    fractions = _fractions(composition)
    references = element_references()
    return energy_per_atom - sum(x * references[symbol] for symbol, x in fractions.items())


@lru_cache(maxsize=1)
def element_references() -> Mapping[str, float]:
    """Return the energy per atom (eV) of the most stable phase of each element."""
    text = (files("adit_plugins") / "data" / "element_refs.json").read_text(encoding="utf-8")
    return dict(json.loads(text)["energy_per_atom"])


class Hull:
    """The convex hull of formation energies over a table of phases.

    Elements are always phases of energy 0. The hull at a composition is the lowest energy of any
    mixture of phases that adds up to it, a small linear program; this is exact in any number of
    elements and equals pymatgen's `PhaseDiagram`.
    """

    def __init__(self, energies: Mapping[str, float]) -> None:
        """Take formation energies (eV/atom) by formula, such as `{"NaCl": -2.1}`."""
        self._phases: defaultdict[frozenset[str], list[tuple[dict[str, float], float]]]
        self._phases = defaultdict(list)
        for formula, energy in energies.items():
            amounts = _parse(formula)
            if len(amounts) > 1:
                self._phases[frozenset(amounts)].append((amounts, energy))
        self._systems: dict[tuple[str, ...], _System] = {}

    @classmethod
    def load(cls, path: str | Path | None = None) -> Hull:
        """Load the shipped Materials Project table, or a CSV (`.csv`, `.csv.gz`) like it.

        Raises:
            ValueError: if the file cannot be read or is no such table.
        """
        shipped = files("adit_plugins") / "data" / "hull.csv.gz"
        source = Path(path) if path is not None else Path(str(shipped))
        try:
            content = source.read_bytes()
            if source.suffix == ".gz":
                content = gzip.decompress(content)
            header, *lines = content.decode().splitlines()
            if header != TABLE_HEADER:
                raise ValueError(f"first line is '{header}', not '{TABLE_HEADER}'")
            pairs = (line.split(",") for line in lines)
            return cls({formula: float(energy) for formula, energy in pairs})
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"'{source}' is no hull table: {error}") from error

    def energy_above_hull(
        self, composition: Composition | str, formation_energy_per_atom: float
    ) -> HullResult:
        """Return the distance from the hull in eV/atom, negative below it, and the coverage.

        Raises:
            UnknownElementError: if an element has no reference energy.
        """
        fractions = _fractions(composition)
        symbols = tuple(sorted(fractions))
        system = self._systems.get(symbols)
        if system is None:
            system = self._systems[symbols] = self._system(symbols)
        energy = system.hull_energy(np.array([fractions[symbol] for symbol in symbols]))
        return HullResult(
            energy_above_hull=formation_energy_per_atom - energy,
            hull_energy_per_atom=energy,
            num_reference_phases=len(system.energies) - len(symbols),
            num_subsystems=2 ** len(symbols) - len(symbols) - 1,
            num_subsystems_covered=system.num_covered,
        )

    def _system(self, symbols: tuple[str, ...]) -> _System:
        inside = [key for key in self._phases if key.issubset(symbols)]
        phases = [({symbol: 1.0}, 0.0) for symbol in symbols]
        phases += [phase for key in inside for phase in self._phases[key]]
        columns = np.array([[amounts.get(s, 0.0) for s in symbols] for amounts, _ in phases])
        columns /= columns.sum(axis=1, keepdims=True)
        return _System(columns.T, np.array([energy for _, energy in phases]), len(inside))


TABLE_HEADER = "formula,hull_energy_per_atom"


@dataclass(frozen=True)
class _System:
    """The phases of one chemical system: atomic fractions [num_elements, num_phases]."""

    fractions: NDArray[np.float64]
    energies: NDArray[np.float64]
    num_covered: int

    def hull_energy(self, target: NDArray[np.float64]) -> float:
        from scipy.optimize import linprog

        # Phases above the elements are never on the hull, so with none below 0 the answer is 0.
        if not (self.energies < 0).any():
            return 0.0
        result = linprog(self.energies, A_eq=self.fractions, b_eq=target, bounds=(0, None))
        if not result.success:  # the elements alone are a solution, so this is numerical trouble
            raise ArithmeticError(f"Hull at {target.tolist()} not found: {result.message}")
        return float(result.fun)


def _fractions(composition: Composition | str) -> dict[str, float]:
    """Return the atomic fraction of each element, all of them known."""
    from pymatgen.core import Composition as PymatgenComposition

    amounts = PymatgenComposition(composition).element_composition.get_el_amt_dict()
    if not amounts:
        raise ValueError("Empty composition.")
    unknown = sorted(set(amounts) - set(element_references()))
    if unknown:
        known = ", ".join(sorted(element_references()))
        raise UnknownElementError(
            f"No reference energy for {', '.join(unknown)}. Known elements: {known}."
        )
    total = sum(amounts.values())
    return {symbol: amount / total for symbol, amount in amounts.items()}


def _parse(formula: str) -> dict[str, float]:
    """Split a formula without brackets; pymatgen's parser takes seconds for a whole table."""
    pieces = re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", formula)
    if not pieces or "".join(symbol + amount for symbol, amount in pieces) != formula:
        raise ValueError(f"cannot read the formula '{formula}' (no brackets allowed)")
    return {symbol: float(amount or 1) for symbol, amount in pieces}
