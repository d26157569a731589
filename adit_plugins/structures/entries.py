"""What reading gives: one entry a structure, with its atoms or the reason why there are none."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from rdkit import rdBase

from adit_plugins.structures.elements import check_isotopes
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import check_neutral

PROVENANCE_TAG = "_adit_provenance"  # of a CIF block
MATERIAL_ID = "material_id"  # of info: the name that a data base gave
# A structure of so many lines has too many atoms to be judged; parsers take minutes over it.
MAX_LINES = 20_000
MAX_CHARACTERS = 2**26  # of one structure in a text file
FULL = 1 - 1e-3  # an occupancy from here on is 1, rounded
_OURS = (KEY, "relax")  # keys of info whose values are dictionaries
_CHARGES = ("charge", "total_charge")


class ReadingNotice(UserWarning):
    """Something of a file or folder was left out."""


class InputError(ValueError):
    """A file of structures cannot be read."""


class NoStructuresError(InputError):
    """A file of a kind that may hold structures holds something else."""


@dataclass(frozen=True)
class Entry:
    """One structure of a file, or the reason why there is none.

    Attributes:
        name: where it stands, such as `"crystals.extxyz, structure 3"`.
        atoms: None if it cannot be read.
        reason: why not.
        kind: what the format says it is, `"crystal"` or `"molecule"`; None if it does not say.
        id: its name of its own (a material id, the name of a file with one structure), or empty.
        columns: the other cells of its row, of a table.
    """

    name: str
    atoms: Atoms | None
    reason: str = ""
    kind: str | None = None
    id: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)


def attempt(
    name: str, make: Callable[[], Atoms], kind: str | None = None, own_id: str = ""
) -> Entry:
    """Return the entry that `make` gives; whatever it raises becomes the reason."""
    try:
        with warnings.catch_warnings(), rdBase.BlockLogs():
            warnings.simplefilter("ignore")
            atoms = sound(make())
            return Entry(name, atoms, kind=kind, id=own_id or str(atoms.info.get(MATERIAL_ID, "")))
    except Exception as error:  # noqa: BLE001 - parsers of a dozen formats fail in as many ways
        reason = " ".join(str(error).split())
        if not reason or not isinstance(error, ValueError):  # a parser's slip, no explanation
            reason = f"damaged ({type(error).__name__}: {reason})"
        return Entry(name, None, reason[:300], kind, own_id)


def sound(atoms: Atoms) -> Atoms:
    """Judge what a file says beside the geometry, by the same rules for all formats.

    Side data of an impossible form (an energy of three numbers, a stress of two) are dropped:
    they do not spoil the geometry. Disorder, a molecule's charge and isotopes do, because the
    atoms alone would be another structure.

    Raises:
        ValueError: the structure is disordered, charged, or has isotopes or dummy atoms.
    """
    if not (atoms.numbers > 0).all():
        raise ValueError("an atom has no element: a dummy atom (X), or the file does not say")
    _check_occupancies(atoms.info.pop("occupancy", None))
    if not atoms.pbc.any():
        check_neutral(next((_number(atoms.info[k]) for k in _CHARGES if k in atoms.info), 0.0))
    if atoms.has("masses"):
        check_isotopes(atoms.numbers, atoms.get_masses())
        atoms.set_masses(None)  # what is left are averages of another table
    for name in _OURS:
        value = _decoded(atoms.info.pop(name, None))
        if isinstance(value, dict):
            atoms.info[name] = value
    if isinstance(atoms.calc, SinglePointCalculator):
        results = atoms.calc.results
        wrong = [key for key, value in results.items() if not _fits(key, value, len(atoms))]
        for key in wrong:
            del results[key]
        if not results:
            atoms.calc = None
    return atoms


def _check_occupancies(sites: Any) -> None:
    """Refuse what ASE made of a disordered CIF: it keeps one element a site, and notes the rest."""
    for site in sites.values() if isinstance(sites, dict) else ():
        if isinstance(site, dict) and (len(site) > 1 or min(map(float, site.values())) < FULL):
            raise ValueError("it is disordered: " + json.dumps(site, default=str))


def _fits(key: str, value: Any, num_atoms: int) -> bool:
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "energy": ((),),
        "free_energy": ((),),
        "forces": ((num_atoms, 3),),
        "stress": ((6,), (3, 3)),
        "virial": ((6,), (3, 3)),
    }
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return key not in shapes
    return key not in shapes or (array.shape in shapes[key] and bool(np.isfinite(array).all()))


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _decoded(value: Any) -> Any:
    """A dictionary may come as its JSON, where a format keeps only text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None
