"""Other references than the shipped table: the entry points of the group `adit.hulls`.

All of them hold total energies with the Materials Project's 2020 corrections, and bring their own
elements: formation energies are taken from the lowest elemental entry of the same source. Total
energies of different functionals have no common zero (chlorine differs by 13 eV/atom between PBE
and r2SCAN), so entries of more than one are refused, and so is another than PBE, on whose scale the
potentials are.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adit_plugins import registry
from adit_plugins.hull import Hull, Phase, _System

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry

PBE = "PBE"
ONLY_PBE = f"{PBE}:"  # before a file's name
ENTRY_CLASSES = ("ComputedEntry", "ComputedStructureEntry", "PDEntry")


class HullSourceError(ValueError):
    """A reference cannot be read or reached."""


def load_hull(spec: str = "mp") -> Hull:
    """Return the reference behind a name in `adit.hulls`, or `name:FILE` for those that need one.

    Raises:
        UnknownPluginError: there is none of that name.
        MissingExtraError: its package is not installed.
        ValueError: the file cannot be read, or something it needs is missing.
    """
    name, _, argument = spec.partition(":")
    make = registry.load("adit.hulls", name)
    try:
        made: Hull = make(argument) if argument else make()
    except ModuleNotFoundError as error:
        message = registry.missing_package(f"Hull '{name}'", error)
        raise registry.MissingExtraError(message) from error
    return made


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
    return _from_totals([_total(entry) for entry in entries], source, functional)


def from_table(path: str | None = None) -> Hull:
    """Read a CSV of formation energies, as `Hull.load` describes it.

    Raises:
        HullSourceError: no path.
        ValueError: it cannot be read.
    """
    return Hull.load(_needed(path, "table:FILE, a CSV of formation energies"))


def from_json(path: str | None = None) -> Hull:
    """Read a JSON list of pymatgen entries (`ComputedEntry`, `PDEntry`, ...); `.gz` is unpacked.

    Compositions and energies are taken from the text; nothing that it names is imported. Written
    as `PBE:FILE`, entries of other functionals in the file are left out.

    Raises:
        HullSourceError: no path, no such list in it, or entries that do not belong together.
    """
    functional = PBE if (path or "").startswith(ONLY_PBE) else None
    file = _needed(
        (path or "").removeprefix(ONLY_PBE), "entries:FILE, a JSON list of pymatgen entries"
    )
    try:
        content = json.loads(_read(file).decode())
    except (ValueError, RecursionError) as error:
        raise HullSourceError(f"'{file}' is no JSON of pymatgen entries: {error}") from error
    if isinstance(content, dict):
        content = content.get("entries", [])
    if not content or not isinstance(content, list):
        raise HullSourceError(f"'{file}' is no list of pymatgen entries.")
    totals = []
    for i, item in enumerate(content):
        try:
            totals.append(_total_of_json(item))
        except (ValueError, KeyError, TypeError) as error:
            problem = f"entry {i}: {type(error).__name__}: {error}"
            raise HullSourceError(
                f"'{file}' is no list of pymatgen entries ({problem})."
            ) from error
    return _from_totals(totals, f"entries {file.name}", functional)


def from_matbench_discovery(path: str | None = None) -> Hull:
    """Read Matbench Discovery's patched phase diagram (`2023-02-07-ppd-mp.pkl.gz`).

    It is a pickle, which can run anything when it is read: take it from the project itself only.

    Raises:
        HullSourceError: no path, or no such diagram in it.
    """
    file = _needed(path, "matbench-discovery:FILE, its patched phase diagram (.pkl.gz)")
    try:
        diagram: Any = pickle.loads(_read(file))  # noqa: S301 - the only form it exists in
        totals = [_total(entry) for entry in diagram.all_entries]
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, ValueError) as error:
        raise HullSourceError(f"'{file}' is no patched phase diagram: {error}") from error
    return _from_totals(totals, f"Matbench Discovery {file.name}", None)


def from_mp_api(key: str | None = None) -> Hull:
    """Ask the Materials Project itself, chemical system by chemical system.

    Args:
        key: of the API; None takes the environment variable MP_API_KEY.

    Raises:
        HullSourceError: there is no key.
        ModuleNotFoundError: mp-api is not installed.
    """
    key = key or os.environ.get("MP_API_KEY")
    if not key:
        raise HullSourceError(
            "The Materials Project wants a key: get one at materialsproject.org/api and set "
            "MP_API_KEY. The shipped table ('mp') needs none."
        )
    from mp_api.client import MPRester

    return _OnlineHull(MPRester(key, mute_progress_bars=True))


class _OnlineHull(Hull):
    """Fetches a chemical system when it is first asked for."""

    def __init__(self, rester: Any) -> None:
        super().__init__({}, {}, "Materials Project API")
        self._rester = rester
        self._fetched: dict[frozenset[str], tuple[Mapping[str, float], list[Phase]]] = {}

    def _fetch(self, symbols: Iterable[str]) -> tuple[Mapping[str, float], list[Phase]]:
        key = frozenset(symbols)
        if key not in self._fetched:
            try:
                entries = self._rester.get_entries_in_chemsys(
                    sorted(key),
                    # The default would mix in r2SCAN, which no potential here was trained on.
                    additional_criteria={"thermo_types": ["GGA_GGA+U"]},
                )
            except Exception as error:
                system = "-".join(sorted(key))
                message = f"The Materials Project gave no entries for {system}: {error}"
                raise HullSourceError(message) from error
            totals = [_total(entry) for entry in entries]
            self._fetched[key] = _split(_one_functional(totals, self.source, None))
        return self._fetched[key]

    def _references(self, symbols: Iterable[str]) -> Mapping[str, float]:
        return self._fetch(symbols)[0]

    def _system(self, symbols: tuple[str, ...]) -> _System:
        self._phases.clear()
        self._add(self._fetch(symbols)[1])
        return super()._system(symbols)


class _Total(NamedTuple):
    """What a hull needs of an entry."""

    amounts: dict[str, float]
    energy: float  # eV, with corrections
    functional: str  # "" where the entry does not say
    uncorrected: bool  # a GGA+U calculation, which cannot stand beside GGA as it is


def _total(entry: Any) -> _Total:
    parameters = getattr(entry, "parameters", None) or {}
    data = getattr(entry, "data", None) or {}
    names = [str(each.name) for each in getattr(entry, "energy_adjustments", None) or []]
    correction = float(getattr(entry, "correction", 0.0))
    amounts = entry.composition.element_composition.get_el_amt_dict()
    return _describe(dict(amounts), float(entry.energy), correction, names, parameters, data)


def _total_of_json(item: Any) -> _Total:
    """Take composition and energy from an entry's `as_dict`.

    Raises:
        KeyError, TypeError, ValueError: it is none, or of a kind whose energy is another.
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
    parameters, data = item.get("parameters") or {}, item.get("data") or {}
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
) -> _Total:
    if not amounts or not math.isfinite(energy):
        raise ValueError(f"an entry of {amounts} with the energy {energy}")
    run_type = str(parameters.get("run_type") or data.get("run_type") or "").upper()
    # "GGA", "GGA+U" and "GGA_U" are all PBE in the Materials Project.
    functional = re.sub(r"^GGA$", PBE, re.split(r"[+_ ]", run_type)[0])
    if any("mixing adjustment" in name for name in adjustments):
        functional = "r2SCAN mixing scheme"  # PBE entries, moved to r2SCAN's scale
    with_u = functional == PBE and run_type.endswith("U")
    return _Total(amounts, energy, functional, with_u and correction == 0)


def _one_functional(totals: list[_Total], source: str, functional: str | None) -> list[_Total]:
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


def _from_totals(totals: list[_Total], source: str, functional: str | None) -> Hull:
    kept = _one_functional(totals, source, functional)
    references, phases = _split(kept)
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


def _split(totals: Iterable[_Total]) -> tuple[dict[str, float], list[Phase]]:
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


def _needed(path: str | None, form: str) -> Path:
    if not path:
        raise HullSourceError(f"This reference needs a file: {form}.")
    return Path(path)


def _read(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if file.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise HullSourceError(f"Cannot read '{file}': {error}") from error
