"""Other references than the shipped table: the entry points of the group `adit.hulls`.

All of them hold total energies with the Materials Project's 2020 corrections, and bring their own
elements: formation energies are taken from the lowest elemental entry of the same source.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins import registry
from adit_plugins.hull import Hull, Phase, _System
from adit_plugins.inputs import check_unpacked_size

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry


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


def from_entries(entries: Iterable[ComputedEntry], source: str) -> Hull:
    """Build a hull from pymatgen entries with (corrected) total energies.

    Raises:
        HullSourceError: there are none, or no elements among them.
    """
    references, phases = _split(entries)
    if not references:
        raise HullSourceError(f"{source} holds no elemental entries, so no formation energies.")
    hull = Hull({}, references, source)
    hull._add(phases)
    return hull


def from_table(path: str | None = None) -> Hull:
    """Read a CSV of formation energies, as `Hull.load` describes it.

    Raises:
        HullSourceError: no path.
        ValueError: it cannot be read.
    """
    return Hull.load(_needed(path, "table:FILE, a CSV of formation energies"))


def from_json(path: str | None = None) -> Hull:
    """Read a JSON list of pymatgen entries (`ComputedEntry`, `PDEntry`, ...); `.gz` is unpacked.

    Raises:
        HullSourceError: no path, or no such list in it.
    """
    file = _needed(path, "entries:FILE, a JSON list of pymatgen entries")
    from monty.json import MontyDecoder
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.entries.computed_entries import ComputedEntry

    try:
        content = json.loads(_read(file).decode(), cls=MontyDecoder)
    except (ValueError, KeyError, TypeError) as error:
        raise HullSourceError(f"'{file}' is no JSON of pymatgen entries: {error}") from error
    if isinstance(content, dict):
        content = content.get("entries", [])
    if not content or not all(isinstance(each, ComputedEntry | PDEntry) for each in content):
        raise HullSourceError(f"'{file}' is no list of pymatgen entries.")
    return from_entries(content, f"entries {file.name}")


def from_matbench_discovery(path: str | None = None) -> Hull:
    """Read Matbench Discovery's patched phase diagram (`2023-02-07-ppd-mp.pkl.gz`).

    It is a pickle, which can run anything when it is read: take it from the project itself only.

    Raises:
        HullSourceError: no path, or no such diagram in it.
    """
    file = _needed(path, "matbench-discovery:FILE, its patched phase diagram (.pkl.gz)")
    try:
        diagram: Any = pickle.loads(_read(file))  # noqa: S301 - the only form it exists in
        entries = diagram.all_entries
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, ValueError) as error:
        raise HullSourceError(f"'{file}' is no patched phase diagram: {error}") from error
    return from_entries(entries, f"Matbench Discovery {file.name}")


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
            self._fetched[key] = _split(entries)
        return self._fetched[key]

    def _references(self, symbols: Iterable[str]) -> Mapping[str, float]:
        return self._fetch(symbols)[0]

    def _system(self, symbols: tuple[str, ...]) -> _System:
        self._phases.clear()
        self._add(self._fetch(symbols)[1])
        return super()._system(symbols)


def _split(entries: Iterable[Any]) -> tuple[dict[str, float], list[Phase]]:
    """Return elemental references (eV/atom) and the formation energies of the compounds."""
    totals = [
        (each.composition.element_composition.get_el_amt_dict(), float(each.energy))
        for each in entries
    ]
    references: dict[str, float] = {}
    for amounts, energy in totals:
        if len(amounts) == 1:
            ((symbol, number),) = amounts.items()
            references[symbol] = min(energy / number, references.get(symbol, float("inf")))
    phases: list[Phase] = []
    for amounts, energy in totals:
        if len(amounts) > 1 and references.keys() >= amounts.keys():
            elements = sum(number * references[symbol] for symbol, number in amounts.items())
            phases.append((dict(amounts), (energy - elements) / sum(amounts.values())))
    return references, phases


def _needed(path: str | None, form: str) -> Path:
    if not path:
        raise HullSourceError(f"This reference needs a file: {form}.")
    return Path(path)


def _read(file: Path) -> bytes:
    try:
        check_unpacked_size(file)
        content = file.read_bytes()
        return gzip.decompress(content) if file.suffix == ".gz" else content
    except (OSError, EOFError, ValueError) as error:
        raise HullSourceError(f"Cannot read '{file}': {error}") from error
