"""Crystals on their way from any source to arrays: one after the other, with what was left out."""

from __future__ import annotations

import functools
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_plugins import processes
from adit_plugins.datasets.canonical import crystal_row, lost
from adit_plugins.datasets.common import SPLITS, assemble, split_by_row
from adit_plugins.datasets.labels import KNOWN, number_of
from adit_plugins.structures.entries import Entry, ReadingNotice

if TYPE_CHECKING:
    from ase import Atoms

    from adit_model.data import PreparedData

UNITS = {"density": "g/cm3"}  # of what is found from the structure
UNREADABLE = "cannot be read"


@dataclass(frozen=True)
class CrystalStream:
    """Where crystals come from, and which of them are wanted.

    Attributes:
        name: of the data set.
        source: what the prepared data say of their origin.
        entries: gives all rows of the source with their split, or None where it names none; called
            anew for each pass.
        max_num_atoms: larger cells are left out.
        max_energy_above_hull: eV/atom; rows above it, or without a number, are left out where the
            column exists; infinity for no limit. None: columns are not looked at.
        units: of the labels, by column.
        limits: of further columns; rows above one, or without a number, are left out.
    """

    name: str
    source: str
    entries: Callable[[], Iterable[tuple[Entry, str | None]]]
    max_num_atoms: int = 20
    max_energy_above_hull: float | None = None
    units: Mapping[str, str] = field(default_factory=lambda: dict(KNOWN))
    limits: Mapping[str, float] = field(default_factory=dict)

    def limited(self, limits: Mapping[str, float]) -> CrystalStream:
        """The same with other highest values of `num_atoms`, `energy_above_hull`, other columns."""
        further = dict(limits)
        atoms = int(further.pop("num_atoms", self.max_num_atoms))
        energy = further.pop("energy_above_hull", self.max_energy_above_hull)
        return replace(self, max_num_atoms=atoms, max_energy_above_hull=energy, limits=further)

    def all_units(self) -> dict[str, str]:
        """Units of the labels, with those that are found from the structure."""
        return {**self.units, **UNITS}

    def wanted_labels(self) -> list[str]:
        """Labels that somebody asked for, which have to be there."""
        return [label for label in self.units if label not in KNOWN]

    def describe(self) -> dict[str, Any]:
        """What decides on the arrays beside the source's content."""
        return {
            "name": self.name,
            "source": self.source,
            "max_num_atoms": self.max_num_atoms,
            "max_energy_above_hull": self.max_energy_above_hull,
            "units": dict(self.units),
        } | ({"limits": dict(self.limits)} if self.limits else {})

    def refused(self, columns: Mapping[str, Any]) -> str:
        """Why the columns of a row leave it out, or nothing."""
        limits: list[tuple[str, float, str]] = [(k, v, "") for k, v in self.limits.items()]
        if self.max_energy_above_hull is not None:
            limits.append(("energy_above_hull", self.max_energy_above_hull, " eV/atom"))
            limits.append(("num_atoms", self.max_num_atoms, ""))
        for name, limit, unit in limits:
            if limit == np.inf or (name not in columns and name not in self.limits):
                continue
            value = number_of(columns.get(name))
            if not np.isfinite(value):
                return f"have no {name}"
            if value > limit:
                return f"have {name} above {limit:g}{unit}"
        return ""


@dataclass(frozen=True)
class Fate:
    """What became of a row of the source.

    Attributes:
        number: of the row, from 0.
        row: arrays; None where it is left out.
        reason: why, in the words of a count: "3 of 9 rows REASON".
        detail: what is wrong with this one.
    """

    number: int
    row: dict[str, Any] | None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class _Waiting:
    """A row while its crystal is worked on."""

    number: int
    place: int  # among those whose columns pass
    entry: Entry
    split: str | None
    reason: str


def walk(
    stream: CrystalStream, is_wanted: Callable[[int], bool] = lambda number: True
) -> Iterator[Fate]:
    """Reduce and order the crystals, in processes; yield what became of each row, in order.

    Args:
        stream: where they come from.
        is_wanted: by the number of a row; others are read and passed over.

    Raises:
        DatasetError: the source cannot be read.
    """
    waiting: deque[_Waiting] = deque()

    def structures() -> Iterator[Atoms | None]:
        place = 0
        for number, (entry, split) in enumerate(stream.entries()):
            reason = stream.refused(entry.columns)
            if is_wanted(number):
                bare = Entry(entry.name, None, entry.reason, columns=entry.columns)
                waiting.append(_Waiting(number, place, bare, split, reason))
                yield None if reason else entry.atoms
            place += not reason

    for found in processes.map(crystal_row, structures(), lost):
        yield _fate(stream, waiting.popleft(), found)


def _fate(stream: CrystalStream, each: _Waiting, found: dict[str, Any] | str) -> Fate:
    if each.reason:
        return Fate(each.number, None, each.reason, each.entry.name)
    if isinstance(found, str):
        detail = f"{each.entry.name}: {each.entry.reason or found}"
        return Fate(each.number, None, UNREADABLE, detail)
    if len(found["atomic_numbers"]) > stream.max_num_atoms:
        reason = f"have more than {stream.max_num_atoms} atoms in the reduced cell"
        return Fate(each.number, None, reason, each.entry.name)
    columns = each.entry.columns
    told = {key: number_of(columns[key]) for key in stream.units if key in columns}
    split = SPLITS.index(each.split) if each.split else split_by_row(each.place)
    return Fate(each.number, found | {"split": split, "labels": told | found["labels"]})


class Streamed:
    """A data set of crystals: prepared arrays when it is called, a stream where that is wanted."""

    def __init__(self, stream: Callable[..., CrystalStream]) -> None:
        """Take the function that finds the source."""
        self.stream = stream
        functools.update_wrapper(self, stream)

    def __call__(self, *arguments: Any, **options: Any) -> PreparedData:
        """Prepare everything in memory; what is left out is a warning."""
        return collect(self.stream(*arguments, **options))


def collect(stream: CrystalStream) -> PreparedData:
    """All crystals as arrays in memory; warns of what is left out, with number and reason.

    Raises:
        DatasetError: the source cannot be read, nothing is left, or a wanted label has no values.
    """
    rows, left, first = sorted_out(walk(stream))
    total = len(rows) + left.total()
    crystals = total - sum(n for reason, n in left.items() if not _of_crystals(reason))
    for reason, count in left.items():
        judged = _of_crystals(reason)
        of = f"{crystals} crystals" if judged else f"{total} rows"
        example = f"; the first: {first[reason]}" if reason == UNREADABLE else ""
        text = f"{stream.source}: {count} of {of} {reason} and are left out{example}"
        warnings.warn(text, ReadingNotice, stacklevel=3)
    return assemble(
        stream.name, "crystal", rows, stream.source, stream.all_units(), stream.wanted_labels()
    )


def sorted_out(
    fates: Iterable[Fate],
) -> tuple[list[dict[str, Any]], Counter[str], dict[str, str]]:
    """Return the rows, how many each reason left out, and the first of these in detail."""
    rows: list[dict[str, Any]] = []
    left: Counter[str] = Counter()
    first: dict[str, str] = {}
    for fate in fates:
        if fate.row is not None:
            rows.append(fate.row)
        else:
            left[fate.reason] += 1
            first.setdefault(fate.reason, fate.detail)
    return rows, left, first


def _of_crystals(reason: str) -> bool:
    """Whether a reason is of the crystal, and not of its row's columns."""
    return reason == UNREADABLE or reason.endswith("reduced cell")
