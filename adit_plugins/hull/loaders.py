"""Other references than the shipped table: the entry points of the group `adit.hulls`.

All of them but the table hold total energies with the Materials Project's 2020 corrections, and
bring their own elements. Those of other functionals than PBE are refused (`hull_entries`).
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

from adit_plugins import registry
from adit_plugins.hull.entries import (
    PBE,
    AskedHull,
    HullSourceError,
    Total,
    from_totals,
    one_functional,
    total_of,
    total_of_json,
)
from adit_plugins.hull.table import Hull
from adit_plugins.structures.untrusted import check_unpacked_size

ONLY_PBE = f"{PBE}:"  # before a file's name
DEFAULT = "mp"  # the shipped table
# Those that read a file, and of these the one whose file may run code: a pickle.
OF_FILES = ("table", "entries", "alexandria", "tri2024", "matbench-discovery")
PICKLED = "matbench-discovery"


def load_hull(spec: str = DEFAULT) -> Hull:
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


@lru_cache(maxsize=1)
def kept_hull(spec: str) -> Hull:
    """Return the reference of `load_hull`, read once in a process; raises as that does."""
    return load_hull(spec)


def file_of(spec: str) -> Path | None:
    """The file of a reference that reads one."""
    name, _, argument = spec.partition(":")
    if name not in OF_FILES or not argument:
        return None
    return Path(argument.removeprefix(ONLY_PBE) if name == "entries" else argument)


def with_absolute_path(spec: str) -> str:
    """Return a reference as it can be found from any folder."""
    file = file_of(spec)
    if file is None:
        return spec
    name, _, argument = spec.partition(":")
    only = ONLY_PBE if name == "entries" and argument.startswith(ONLY_PBE) else ""
    return f"{name}:{only}{file.resolve()}"


def reads_only_data(spec: str) -> bool:
    """Whether a reference that a store names runs no code of a file, or of a plugin's argument."""
    name, _, argument = spec.partition(":")
    return not argument or (name in OF_FILES and name != PICKLED)


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
            totals.append(total_of_json(item))
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            problem = f"entry {i}: {type(error).__name__}: {error!s:.200}"
            raise HullSourceError(
                f"'{file}' is no list of pymatgen entries ({problem})."
            ) from error
    return from_totals(totals, f"entries {file.name}", functional)


def from_matbench_discovery(path: str | None = None) -> Hull:
    """Read Matbench Discovery's patched phase diagram (`2023-02-07-ppd-mp.pkl.gz`).

    It is a pickle, which can run anything when it is read: take it from the project itself only.

    Raises:
        HullSourceError: no path, or no such diagram in it.
    """
    file = _needed(path, "matbench-discovery:FILE, its patched phase diagram (.pkl.gz)")
    try:
        diagram: Any = pickle.loads(_read(file))  # noqa: S301 - the only form it exists in
        totals = [total_of(entry) for entry in diagram.all_entries]
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, ValueError) as error:
        raise HullSourceError(f"'{file}' is no patched phase diagram: {error}") from error
    return from_totals(totals, f"Matbench Discovery {file.name}", None)


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


class _OnlineHull(AskedHull):
    """Fetches a chemical system when it is first asked for."""

    def __init__(self, rester: Any) -> None:
        super().__init__("Materials Project API")
        self._rester = rester

    def _entries_of(self, symbols: frozenset[str]) -> list[Total]:
        try:
            entries = self._rester.get_entries_in_chemsys(
                sorted(symbols),
                # The default would mix in r2SCAN, which no potential here was trained on.
                additional_criteria={"thermo_types": ["GGA_GGA+U"]},
            )
        except Exception as error:
            system = "-".join(sorted(symbols))
            message = f"The Materials Project gave no entries for {system}: {error}"
            raise HullSourceError(message) from error
        return one_functional([total_of(entry) for entry in entries], self.source, None)


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
