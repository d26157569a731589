"""Total energies of pymatgen entries that belong together, and the hull that they make.

Total energies of different functionals have no common zero (PBE and r2SCAN are eV/atom apart), so
entries of more than one are refused, and so is another than PBE, on whose scale the potentials are.
Formation energies are taken from the lowest elemental entry of the same source.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from adit_plugins.hull.table import MAX_SYSTEMS, Hull, Phase, _System, atomic_fractions

if TYPE_CHECKING:
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

PBE = "PBE"
ENTRY_CLASSES = ("ComputedEntry", "ComputedStructureEntry", "PDEntry")


class HullSourceError(ValueError):
    """A reference cannot be read or reached."""


def from_entries(
    entries: Iterable[ComputedEntry], source: str, functional: str | None = None
) -> Hull:
    """Build a hull from pymatgen entries with (corrected) total energies.

    Args:
        entries: `ComputedEntry` (with `parameters["run_type"]`, as the Materials Project writes
            them) or `PDEntry`, which says nothing of its functional.
        source: what to call this reference in results.
        functional: keep the entries of this one alone ("PBE", which is GGA and GGA+U, "R2SCAN",
            ...); None: all of them have to be PBE's, as far as they say.

    Raises:
        HullSourceError: there are none, no elements among them, or they mix functionals.
    """
    return from_totals([total_of(entry) for entry in entries], source, functional)


class Total(NamedTuple):
    """What a hull needs of an entry."""

    amounts: dict[str, float]
    energy: float  # eV, with corrections
    functional: str  # "" where the entry does not say
    uncorrected: bool  # a GGA+U calculation, which cannot stand beside GGA as it is


def total_of(entry: Any) -> Total:
    """Take composition, corrected energy and functional from an entry of pymatgen."""
    parameters = getattr(entry, "parameters", None) or {}
    data = getattr(entry, "data", None) or {}
    names = [str(each.name) for each in getattr(entry, "energy_adjustments", None) or []]
    correction = float(getattr(entry, "correction", 0.0))
    amounts = entry.composition.element_composition.get_el_amt_dict()
    return _describe(dict(amounts), float(entry.energy), correction, names, parameters, data)


def total_of_json(item: Any) -> Total:
    """Take composition and energy from an entry's `as_dict`.

    Raises:
        KeyError, TypeError, ValueError: it is none, or of a kind whose energy is another.
        ArithmeticError, RecursionError: a number or a formula is beyond all bounds.
    """
    from pymatgen.core import Composition, Element

    if not isinstance(item, dict):
        raise TypeError(f"{item!r:.40} is no entry")
    kind = item.get("@class", "PDEntry")
    if kind not in ENTRY_CLASSES:
        raise ValueError(f"a '{kind}', not one of {', '.join(ENTRY_CLASSES)}")
    energy, correction = _number(item["energy"]), _number(item.get("correction") or 0.0)
    adjustments = item.get("energy_adjustments") or []
    if adjustments and "correction" not in item:
        raise ValueError("it has energy_adjustments and no correction")
    composition = item["composition"]
    if isinstance(composition, dict):
        composition = {str(k): _number(v) for k, v in composition.items() if k[:1] != "@"}
    elif not isinstance(composition, str):
        raise ValueError("its composition is neither a formula nor amounts by element")
    amounts = Composition(composition).element_composition.get_el_amt_dict()
    if unknown := [symbol for symbol in amounts if not Element.is_valid_symbol(symbol)]:
        raise ValueError(f"{', '.join(unknown)} are no elements")
    names = [str(each.get("name") or "") for each in adjustments if isinstance(each, dict)]
    parameters, data = (
        value if isinstance(value := item.get(key), dict) else {} for key in ("parameters", "data")
    )
    return _describe(dict(amounts), energy + correction, correction, names, parameters, data)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no finite number")
    return float(value)


def _describe(
    amounts: dict[str, float],
    energy: float,
    correction: float,
    adjustments: Iterable[str],
    parameters: Mapping[str, Any],
    data: Mapping[str, Any],
) -> Total:
    if not amounts or not math.isfinite(energy):
        raise ValueError(f"an entry of {amounts} with the energy {energy}")
    run_type = str(parameters.get("run_type") or data.get("run_type") or "").upper()
    # "GGA", "GGA+U" and "GGA_U" are all PBE in the Materials Project.
    functional = re.sub(r"^GGA$", PBE, re.split(r"[+_ ]", run_type)[0])
    if any("mixing adjustment" in name for name in adjustments):
        functional = "r2SCAN mixing scheme"  # PBE entries, moved to r2SCAN's scale
    with_u = functional == PBE and run_type.endswith("U")
    return Total(amounts, energy, functional, with_u and correction == 0)


def one_functional(totals: list[Total], source: str, functional: str | None) -> list[Total]:
    """Return the entries that belong together.

    Raises:
        HullSourceError: they do not.
    """
    counts = Counter(total.functional for total in totals if total.functional)
    if functional is not None:
        kept = [total for total in totals if total.functional == functional.upper()]
        if not kept:
            raise HullSourceError(f"{source} holds no entries of {functional}: {dict(counts)}.")
        return kept
    if set(counts) - {PBE}:
        found = ", ".join(f"{number} of {name}" for name, number in counts.most_common())
        raise HullSourceError(
            f"{source} holds entries of other functionals than PBE ({found}); their energies have "
            "no common zero, and the potentials here are on PBE's scale. Of a JSON, "
            "entries:PBE:FILE keeps PBE's (GGA and GGA+U) and leaves the others out."
        )
    return totals


def from_totals(totals: list[Total], source: str, functional: str | None) -> Hull:
    """Build a hull as `from_entries` does; its source says what was left out or looks wrong.

    Raises:
        HullSourceError: as `from_entries`.
    """
    kept = one_functional(totals, source, functional)
    references, phases = split(kept)
    if not references:
        raise HullSourceError(f"{source} holds no elemental entries, so no formation energies.")
    remarks = []
    if len(kept) < len(totals):
        remarks.append(f"{len(kept)} of {functional}, {len(totals) - len(kept)} left out")
    if raw := sum(total.uncorrected for total in kept):
        remarks.append(f"{raw} of GGA+U without the corrections that belong to them")
    if remarks:
        source += f" ({'; '.join(remarks)})"
    hull = Hull({}, references, source)
    hull._add(phases)
    return hull


def split(totals: Iterable[Total]) -> tuple[dict[str, float], list[Phase]]:
    """Return elemental references (eV/atom) and the formation energies of the compounds."""
    totals = list(totals)
    references: dict[str, float] = {}
    for amounts, energy, *_ in totals:
        if len(amounts) == 1:
            ((symbol, number),) = amounts.items()
            references[symbol] = min(energy / number, references.get(symbol, float("inf")))
    phases: list[Phase] = []
    for amounts, energy, *_ in totals:
        if len(amounts) > 1 and references.keys() >= amounts.keys():
            elements = sum(number * references[symbol] for symbol, number in amounts.items())
            phases.append((amounts, (energy - elements) / sum(amounts.values())))
    return references, phases


class AskedHull(Hull):
    """A reference that is asked for a chemical system when it is first needed.

    Subclasses say what entries there are of some elements.
    """

    def __init__(self, source: str) -> None:
        """Take what to call this reference in results."""
        super().__init__({}, {}, source)
        self._fetched: dict[frozenset[str], tuple[Mapping[str, float], list[Phase]]] = {}

    def _entries_of(self, symbols: frozenset[str]) -> list[Total]:
        """Return the entries of these elements and of all sub-systems."""
        raise NotImplementedError

    def _fetch(self, symbols: Iterable[str]) -> tuple[Mapping[str, float], list[Phase]]:
        key = frozenset(symbols)
        if key not in self._fetched:
            found = split(self._entries_of(key))
            if len(self._fetched) >= MAX_SYSTEMS:  # of a campaign of any length
                del self._fetched[next(iter(self._fetched))]
            self._fetched[key] = found
        return self._fetched[key]

    def _references(self, symbols: Iterable[str]) -> Mapping[str, float]:
        return self._fetch(symbols)[0]

    def knows(self, composition: Composition | str) -> bool:
        """Whether the source has this formula; every element is known."""
        self._ask(atomic_fractions(composition))
        return super().knows(composition)

    def phases(self, symbols: Iterable[str]) -> list[Phase]:
        """Return the compounds of a chemical system: amounts by element, and eV/atom."""
        self._ask(wanted := tuple(symbols))
        return super().phases(wanted)

    def _system(self, symbols: tuple[str, ...]) -> _System:
        self._ask(symbols)
        return super()._system(symbols)

    def _ask(self, symbols: Iterable[str]) -> None:
        """Hold the phases of these elements, and no others."""
        self._phases.clear()
        self._add(self._fetch(symbols)[1])
