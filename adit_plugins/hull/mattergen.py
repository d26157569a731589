"""MatterGen's reference entries: an LMDB by chemical system, of which few are ever read.

Its keys are `A-B.reduced_formulas`, `A-B.FORMULA.length` and `A-B.FORMULA.0`, ...; its values
pickles, the last of `ComputedStructureEntry.as_dict()`. Read here with an unpickler that makes
plain values and arrays and nothing else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from adit_plugins.hull.energies import ConventionError, mp2020_correction
from adit_plugins.hull.entries import AskedHull, HullSourceError, Total, total_of_json
from adit_plugins.registry import MissingExtraError, missing_package

# What plain values and numbers of numpy are pickled as.
PLAIN = {
    ("builtins", "complex"),
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
}
CORRECTIONS = "MP2020"  # names of adjustments begin with the scheme's


class EntriesHull(AskedHull):
    """The entries of a chemical system and its sub-systems, read when they are first asked for."""

    def __init__(self, path: Path, source: str) -> None:
        """Open the unpacked file.

        Raises:
            HullSourceError: it is no such LMDB.
            MissingExtraError: lmdb is missing.
        """
        super().__init__(source)
        self._path = path
        self._file = _opened(path.resolve())
        if not self._value("chemical_systems"):
            raise HullSourceError(f"'{path}' is no LMDB of MatterGen's: no chemical_systems in it.")

    def _entries_of(self, symbols: frozenset[str]) -> list[Total]:
        found = []
        for size in range(1, len(symbols) + 1):
            for part in combinations(sorted(symbols), size):
                found += list(self._of_system("-".join(part)))
        return found

    def _of_system(self, system: str) -> Iterator[Total]:
        for formula in self._value(f"{system}.reduced_formulas") or ():
            for i in range(self._value(f"{system}.{formula}.length") or 0):
                name = f"{system}.{formula}.{i}"
                try:
                    total = corrected_total(self._value(name))
                except (ValueError, KeyError, TypeError, ArithmeticError) as error:
                    problem = f"{name}: {type(error).__name__}: {error!s:.200}"
                    raise HullSourceError(f"'{self._path}' is damaged ({problem})") from error
                if total is not None:
                    yield total

    def _value(self, key: str) -> Any:
        try:
            with self._file.begin() as transaction:
                packed = transaction.get(key.encode("ascii"))
            return None if packed is None else _Plain(io.BytesIO(packed)).load()
        except Exception as error:
            raise HullSourceError(f"'{self._path}', {key}: no plain values ({error})") from error


@lru_cache(maxsize=4)
def _opened(path: Path) -> Any:
    """The file, which a process may open once only."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing_package("the hull 'tri2024'", error)) from error
    try:
        return lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, readahead=False, max_readers=1
        )
    except lmdb.Error as error:
        raise HullSourceError(f"'{path}' is no LMDB of entries: {error}") from error


def corrected_total(entry: Any) -> Total | None:
    """Return the energy with the corrections of 2020, None where that scheme has no place for it.

    Those in the entry are taken if they are this scheme's. All others are dropped and these made
    from the structure and the U that the entry names.

    Raises:
        KeyError, TypeError, ValueError: it is no entry.
    """
    from adit_plugins.structures.untrusted import structure_from_dict

    adjustments = entry.get("energy_adjustments") or []
    if adjustments and all(str(each.get("name")).startswith(CORRECTIONS) for each in adjustments):
        return total_of_json(entry)
    raw = total_of_json(entry | {"energy_adjustments": [], "correction": 0.0})
    parameters = entry.get("parameters") or {}
    hubbards = None
    if parameters.get("run_type") in ("GGA", "GGA+U"):
        hubbards = {s: float(u) for s, u in (parameters.get("hubbards") or {}).items() if u}
    if len(raw.amounts) == 1:
        return raw
    structure: Any = structure_from_dict(entry["structure"])
    try:
        return raw._replace(energy=raw.energy + mp2020_correction(structure, hubbards))
    except ConventionError:
        return None


class _Plain(pickle.Unpickler):
    """Makes no object of a class that it does not know."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of `PLAIN`.

        Raises:
            UnpicklingError: it is another.
        """
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)
