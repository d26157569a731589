"""Energy above hull, with source and coverage of the reference beside every number.

The shipped table is the lower convex envelope of one release of the Materials Project: its hull
energy where that is known, also where the competing phases are not in the table, and formation
energies of its entries, of earlier releases and of WBM elsewhere (`adit_plugins.hull.building`).
Between its formulas, and in chemical systems that it does not know, the hull comes out too high and
distances too small (`adit_plugins.hull.thinness`).
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adit_plugins.hull.results import HullResult
from adit_plugins.structures.untrusted import check_unpacked_size

if TYPE_CHECKING:
    from pymatgen.core import Composition

Phase = tuple[dict[str, float], float]  # amounts by element, formation energy in eV/atom

SHIPPED = "Materials Project and WBM, shipped table of 74,972 formulas"
TABLE_HEADER = "formula,hull_energy_per_atom"
MAX_ELEMENT_ERROR = 1e-3  # eV/atom below 0, of an element in a table of formation energies
MAX_SYSTEMS = 1000  # chemical systems whose hull is kept


class UnknownElementError(ValueError):
    """An element has no reference energy."""


def formation_energy_per_atom(composition: Composition | str, energy_per_atom: float) -> float:
    """Return the formation energy from the elements, eV/atom.

    Args:
        composition: a pymatgen Composition or a formula.
        energy_per_atom: eV/atom, from CHGNet or another potential on the Materials Project's scale
            (PBE with MP2020 corrections); references from matcalc.

    Raises:
        UnknownElementError: if an element has no reference energy.
    """
    return _formation(atomic_fractions(composition), energy_per_atom, element_references())


@lru_cache(maxsize=1)
def element_references() -> Mapping[str, float]:
    """Return the energy per atom (eV) of the most stable phase of each element."""
    text = (files("adit_plugins") / "data" / "element_refs.json").read_text(encoding="utf-8")
    return dict(json.loads(text)["energy_per_atom"])


class Hull:
    """The convex hull of formation energies over a table of phases.

    Elements are always phases of energy 0. The hull at a composition is the lowest energy of any
    mixture of phases that adds up to it; this equals pymatgen's `PhaseDiagram`.
    """

    def __init__(
        self,
        energies: Mapping[str, float],
        references: Mapping[str, float] | None = None,
        source: str = "own table",
    ) -> None:
        """Take formation energies (eV/atom) by formula, such as `{"NaCl": -2.1}`.

        Args:
            energies: formation energies; formulas without brackets. Elements are 0 anyway.
            references: energy per atom (eV) of each element; None for the shipped ones.
            source: what to call this reference in results.
        """
        self.references = element_references() if references is None else dict(references)
        self.source = source
        self._phases: defaultdict[frozenset[str], list[Phase]] = defaultdict(list)
        self._add((_parse(formula), energy) for formula, energy in energies.items())
        self._systems: dict[tuple[str, ...], _System] = {}

    def _add(self, phases: Iterable[Phase]) -> None:
        for amounts, energy in phases:
            if len(amounts) > 1:
                self._phases[frozenset(amounts)].append((amounts, energy))

    @classmethod
    def load(cls, path: str | Path | None = None) -> Hull:
        """Load the shipped Materials Project table, or a CSV (`.csv`, `.csv.gz`) like it.

        Raises:
            ValueError: if the file cannot be read or is no such table.
        """
        shipped = files("adit_plugins") / "data" / "hull.csv.gz"
        file = Path(path) if path is not None else Path(str(shipped))
        try:
            check_unpacked_size(file)
            content = file.read_bytes()
            if file.suffix == ".gz":
                content = gzip.decompress(content)
            header, *lines = content.decode().splitlines() or [""]
            if header != TABLE_HEADER:
                raise ValueError(f"first line is '{header[:80]}', not '{TABLE_HEADER}'")
            energies: dict[str, float] = {}
            for formula, energy in (line.split(",") for line in lines):
                energies[formula] = min(float(energy), energies.get(formula, math.inf))
            _check_formation_energies(energies)
            return cls(energies, source=SHIPPED if path is None else f"table {file.name}")
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"'{file}' is no hull table: {error}") from error

    def without(self, formula: Composition | str) -> Hull:
        """Return this hull without the phases of one composition: where would it be unknown?"""
        fractions = atomic_fractions(formula)
        key = frozenset(fractions)
        other = Hull({}, self.references, self.source)
        other._phases.update(self._phases)
        other._phases[key] = [p for p in self._phases[key] if not _same(p[0], fractions)]
        return other

    def knows(self, composition: Composition | str) -> bool:
        """Whether the table has this formula; every element is known."""
        fractions = atomic_fractions(composition)
        same = (_same(phase[0], fractions) for phase in self._phases.get(frozenset(fractions), ()))
        return len(fractions) == 1 or any(same)

    def phases(self, symbols: Iterable[str]) -> list[Phase]:
        """Return the compounds of a chemical system: amounts by element, and eV/atom."""
        inside = _subsets(tuple(symbols), self._phases)
        return [phase for key in inside for phase in self._phases.get(key, [])]

    def formation_energy_per_atom(
        self, composition: Composition | str, energy_per_atom: float
    ) -> float:
        """Return the formation energy (eV/atom) from this reference's own elements.

        Raises:
            UnknownElementError: if an element has no reference energy.
        """
        fractions = atomic_fractions(composition)
        return _formation(fractions, energy_per_atom, self._references(fractions))

    def energy_above_hull(
        self, composition: Composition | str, formation_energy_per_atom: float
    ) -> HullResult:
        """Return the distance from the hull in eV/atom, negative below it, and the coverage.

        Raises:
            UnknownElementError: if an element has no reference energy.
        """
        fractions = atomic_fractions(composition)
        symbols = tuple(sorted(fractions))
        system = self._systems.get(symbols)
        if system is None:
            _check_elements(fractions, self._references(fractions))
            system = self._system(symbols)
            if len(self._systems) >= MAX_SYSTEMS:  # of a campaign of any length
                del self._systems[next(iter(self._systems))]
            self._systems[symbols] = system
        energy = system.hull_energy(np.array([fractions[symbol] for symbol in symbols]))
        return HullResult(
            energy_above_hull=formation_energy_per_atom - energy,
            hull_energy_per_atom=energy,
            num_reference_phases=len(system.energies) - len(symbols),
            num_subsystems=2 ** len(symbols) - len(symbols) - 1,
            num_subsystems_covered=system.num_covered,
            source=self.source,
        )

    def _references(self, symbols: Iterable[str]) -> Mapping[str, float]:
        """The elements' energies; a source that is asked system by system looks them up here."""
        return self.references

    def _system(self, symbols: tuple[str, ...]) -> _System:
        inside = [key for key in _subsets(symbols, self._phases) if self._phases.get(key)]
        phases: list[Phase] = [({symbol: 1.0}, 0.0) for symbol in symbols]
        phases += self.phases(symbols)
        columns = np.array([[amounts.get(s, 0.0) for s in symbols] for amounts, _ in phases])
        columns /= columns.sum(axis=1, keepdims=True)
        return _System(columns.T, np.array([energy for _, energy in phases]), len(inside))


def _subsets(
    symbols: tuple[str, ...], known: Mapping[frozenset[str], object]
) -> Iterable[frozenset[str]]:
    """Return the sub-systems that may have phases: looked up if few, else looked for."""
    if 2 ** len(symbols) > len(known):
        return [key for key in known if key.issubset(symbols)]
    sizes = range(2, len(symbols) + 1)
    return [frozenset(each) for size in sizes for each in combinations(symbols, size)]


# Qhull's facets grow steeply with the dimension; a linear program a query is then cheaper.
MAX_QHULL_ELEMENTS = 6
# eV/atom; what is no further below the elements is rounding, and Qhull fails on so flat a hull.
FLAT = 1e-8


class _System:
    """The hull of one chemical system, as the planes below which nothing lies.

    Args:
        fractions: atomic fractions of the phases, [num_elements, num_phases].
        energies: formation energies, eV/atom, [num_phases]; the elements come first.
        num_covered: sub-systems with a compound.
    """

    def __init__(
        self, fractions: NDArray[np.float64], energies: NDArray[np.float64], num_covered: int
    ) -> None:
        self.fractions, self.energies, self.num_covered = fractions, energies, num_covered
        self.planes: NDArray[np.float64] | None = None  # chemical potentials [num_planes, elements]
        if not (energies < -FLAT).any():
            # Phases above the elements are never on the hull, so with none below 0 it is 0.
            self.planes = np.zeros((1, len(fractions)))
        elif len(fractions) <= MAX_QHULL_ELEMENTS:
            self.planes = _lower_planes(fractions, energies)

    def hull_energy(self, target: NDArray[np.float64]) -> float:
        """Return the hull at atomic fractions [num_elements], eV/atom."""
        if self.planes is not None:
            return float((self.planes @ target).max())
        from scipy.optimize import linprog

        result = linprog(self.energies, A_eq=self.fractions, b_eq=target, bounds=(0, None))
        if not result.success:  # the elements alone are a solution, so this is numerical trouble
            raise ArithmeticError(f"Hull at {target.tolist()} not found: {result.message}")
        return float(result.fun)


def _lower_planes(
    fractions: NDArray[np.float64], energies: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the chemical potentials of the lower facets, [num_facets, num_elements].

    The hull is convex, so at any composition it is the highest of these planes.
    """
    from scipy.spatial import ConvexHull

    num_elements = len(fractions)
    keep = energies < -FLAT
    keep[:num_elements] = True
    points = np.vstack([fractions[1:, keep], energies[keep]]).T
    equations = ConvexHull(points).equations
    # The facets over the edges of composition space are vertical, but for rounding.
    slopes, offsets = equations[:, :-1], equations[:, -1]
    lower = slopes[:, -1] < -1e-8
    corners = np.vstack([np.zeros(num_elements - 1), np.eye(num_elements - 1)])
    heights = slopes[lower, :-1] @ corners.T + offsets[lower, None]
    return np.unique(np.round(-heights / slopes[lower, -1:], 12), axis=0)


def _check_formation_energies(energies: Mapping[str, float]) -> None:
    if not np.isfinite(list(energies.values())).all():
        raise ValueError("an energy is not finite")
    for formula, energy in energies.items():
        if energy < -MAX_ELEMENT_ERROR and len(_parse(formula)) == 1:
            raise ValueError(
                f"the element {formula} is at {energy} eV/atom, where formation energies have 0. "
                "Are these total energies? --hull entries:FILE takes them"
            )


def _formation(
    fractions: Mapping[str, float], energy_per_atom: float, references: Mapping[str, float]
) -> float:
    _check_elements(fractions, references)
    return energy_per_atom - sum(x * references[symbol] for symbol, x in fractions.items())


def _check_elements(symbols: Iterable[str], references: Mapping[str, float]) -> None:
    unknown = sorted(set(symbols) - set(references))
    if unknown:
        known = ", ".join(sorted(references))
        raise UnknownElementError(
            f"No reference energy for {', '.join(unknown)}. Known elements: {known}."
        )


def atomic_fractions(composition: Composition | str) -> dict[str, float]:
    """Return the atomic fraction of each element."""
    from pymatgen.core import Composition as PymatgenComposition

    amounts = PymatgenComposition(composition).element_composition.get_el_amt_dict()
    if not amounts:
        raise ValueError("Empty composition.")
    total = sum(amounts.values())
    return {symbol: amount / total for symbol, amount in amounts.items()}


def _same(amounts: Mapping[str, float], fractions: Mapping[str, float]) -> bool:
    total = sum(amounts.values())
    return all(abs(n / total - fractions[symbol]) < 1e-6 for symbol, n in amounts.items())


def _parse(formula: str) -> dict[str, float]:
    """Split a formula without brackets; pymatgen's parser takes seconds for a whole table."""
    pieces = re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", formula)
    if not pieces or "".join(symbol + amount for symbol, amount in pieces) != formula:
        raise ValueError(f"cannot read the formula '{formula}' (no brackets allowed)")
    return {symbol: float(amount or 1) for symbol, amount in pieces}
