"""Picks beside the prepared data: which of them are there already, and in which split.

Only structures of one formula are compared: crystals by StructureMatcher as everywhere, molecules
by the SMILES of those with the most similar distances, since QM9 has thousands of some formulas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from adit_plugins.datasets.overlap import Formula, formula_key, rows_by_formula, structure_of
from adit_plugins.improvement.reading import Candidate
from adit_plugins.matching import group, match_alike
from adit_plugins.structures.given import to_structure
from adit_plugins.validity.molecules import examine

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from adit_model.data import PreparedData

NEAREST = 20  # molecules of the formula whose bonds are looked for
TRAINED, HELD = "are in the training data", "are in the data's val or test split"


@dataclass(frozen=True)
class Stored:
    """A structure of a prepared file, by its row and its first atom there."""

    data: PreparedData
    row: int
    start: int

    @property
    def reason(self) -> str:
        """Why a structure that equals it is no pick."""
        return TRAINED if int(self.data.split[self.row]) == 0 else HELD

    @property
    def numbers(self) -> NDArray[np.uint8]:
        """Atomic numbers `[num_atoms]`."""
        found: NDArray[np.uint8] = self.data.atomic_numbers[self._atoms].numpy()
        return found

    @property
    def positions(self) -> NDArray[np.float32]:
        """Of a molecule, angstrom `[num_atoms, 3]`."""
        assert self.data.coords is not None
        found: NDArray[np.float32] = self.data.coords[self._atoms].numpy()
        return found

    @property
    def structure(self) -> Structure:
        """A crystal."""
        return structure_of(self.data, self.row, self.start)

    @property
    def _atoms(self) -> slice:
        return slice(self.start, self.start + int(self.data.num_atoms[self.row]))


class Known:
    """All structures of the prepared files of a kind, by formula."""

    def __init__(self, files: Sequence[PreparedData]) -> None:
        """Take files of one kind that have coordinates."""
        self.files = files

    @cached_property
    def places(self) -> dict[Formula, list[Stored]]:
        """Structures by their formula, crystals by the reduced one."""
        found: defaultdict[Formula, list[Stored]] = defaultdict(list)
        for data in self.files:
            for formula, rows in rows_by_formula(data).items():
                found[formula] += [Stored(data, row, start) for row, start in rows]
        return dict(found)

    def alike(self, numbers: Iterable[int], kind: str) -> list[Stored]:
        """Return the structures of a formula."""
        return self.places.get(formula_key(np.fromiter(numbers, dtype=np.int64), kind), [])


def sorted_out(picks: Sequence[Candidate], known: Known) -> Iterator[Candidate]:
    """Leave out what equals an earlier pick or a structure of the data.

    Args:
        picks: of one kind, those first that stay of several equal ones.
        known: the data of that kind.
    """
    crystals = bool(picks) and picks[0].kind == "crystal"
    yield from (_crystals if crystals else _molecules)(picks, known)


def _crystals(picks: Sequence[Candidate], known: Known) -> Iterator[Candidate]:
    structures = [to_structure(each.atoms) for each in picks if each.atoms is not None]
    for places in group(each.composition.reduced_formula for each in structures).values():
        numbers = structures[places[0]].atomic_numbers
        stored = known.alike(numbers, "crystal")
        found = match_alike([structures[i] for i in places], [each.structure for each in stored])
        for place, matches in zip(places, found, strict=True):
            if matches.duplicate_of is not None:
                yield picks[place].without("equal another pick")
            elif matches.known_as is not None:
                yield picks[place].without(stored[matches.known_as].reason)
            else:
                yield picks[place]


def _molecules(picks: Sequence[Candidate], known: Known) -> Iterator[Candidate]:
    seen: set[str | None] = set()
    for each in picks:
        assert each.atoms is not None
        if each.smiles in seen:
            yield each.without("equal another pick")
            continue
        seen.add(each.smiles)
        stored = known.alike(each.atoms.numbers, "molecule")
        same = (s for s in _nearest(each.atoms.positions, stored) if _smiles(s) == each.smiles)
        equal = next(same, None)
        yield each if equal is None else each.without(equal.reason)


def _nearest(positions: NDArray[Any], stored: list[Stored]) -> list[Stored]:
    mine = _distances(positions)
    return sorted(stored, key=lambda s: float(np.abs(_distances(s.positions) - mine).max()))[
        :NEAREST
    ]


def _distances(positions: NDArray[Any]) -> NDArray[np.float64]:
    """All distances between atoms, the shortest first; [0] for a single one."""
    first, second = np.triu_indices(len(positions), 1)
    found = np.linalg.norm(positions[first] - positions[second], axis=-1)
    return np.sort(found) if len(found) else np.zeros(1)


def _smiles(stored: Stored) -> str | None:
    return examine(Atoms(stored.numbers, stored.positions))[0].smiles


def prepared(paths: Iterable[Path]) -> list[PreparedData]:
    """Read prepared files with coordinates; of a folder of shards, each shard.

    Raises:
        ValueError: a file is missing or damaged.
    """
    from adit_model.data import PreparedData
    from adit_model.sharded_data import load_data

    read: list[PreparedData] = []
    for path in paths:
        data = load_data(path)
        parts = [data] if isinstance(data, PreparedData) else list(data.shards)
        read += [part for part in parts if part.coords is not None]
    return read
