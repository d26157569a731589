"""The predicates of `adit_plugins.validity` and `matching` as pymatgen filters.

For `StandardTransmuter.apply_filter`, and any place that takes an `AbstractStructureFilter`:

    transmuter.apply_filter(SmactFilter())
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from pymatgen.alchemy.filters import AbstractStructureFilter
from pymatgen.core import Structure

from adit_plugins.matching.fingerprints import Fingerprints
from adit_plugins.matching.matcher import LTOL, is_match
from adit_plugins.validity.crystals import (
    OXIDATION_TABLES,
    is_composition_valid,
    is_structure_valid,
)
from adit_plugins.validity.lemat import check_lemat

__all__ = ["LematFilter", "NovelFilter", "SmactFilter", "StructureValidFilter", "UniqueFilter"]


@dataclass
class StructureValidFilter(AbstractStructureFilter):
    """Keeps crystals whose distances and volume reach their minima (`is_structure_valid`).

    Args:
        min_distance: angstrom.
        min_volume: cubic angstrom, of the whole cell.
    """

    min_distance: float = 0.5
    min_volume: float = 0.1

    def test(self, structure: Structure) -> bool:  # type: ignore[override]
        """Return whether to keep the crystal."""
        return is_structure_valid(structure, self.min_distance, self.min_volume)


@dataclass
class SmactFilter(AbstractStructureFilter):
    """Keeps compositions that can be charge neutral (SMACT's rule, `is_composition_valid`).

    Args:
        table: oxidation states, one of `validity.OXIDATION_TABLES`.

    Raises:
        ValueError: there is no such table.
    """

    table: str = "smact14"

    def __post_init__(self) -> None:
        if self.table not in OXIDATION_TABLES:
            known = ", ".join(OXIDATION_TABLES)
            raise ValueError(f"No oxidation-state table {self.table!r}. Known: {known}.")

    def test(self, structure: Structure) -> bool:  # type: ignore[override]
        """Return whether to keep the crystal."""
        return is_composition_valid(structure.composition, self.table)


@dataclass
class LematFilter(AbstractStructureFilter):
    """Keeps what LeMat-GenBench calls valid: charge, distances, density (`check_lemat`)."""

    def test(self, structure: Structure) -> bool:  # type: ignore[override]
        """Return whether to keep the crystal; one without finite distances is not kept."""
        return is_structure_valid(structure, 0.0) and check_lemat(structure).valid


@dataclass
class UniqueFilter(AbstractStructureFilter):
    """Keeps the first of crystals that StructureMatcher maps onto each other.

    It remembers what it has kept: take a new one for another set.

    Args:
        ltol: of the matcher; stol is 0.5 and angle_tol 10, as in published figures.
    """

    ltol: float = LTOL

    def __post_init__(self) -> None:
        self._kept: defaultdict[str, list[Structure]] = defaultdict(list)

    def test(self, structure: Structure) -> bool:  # type: ignore[override]
        """Return whether no crystal kept before matches."""
        alike = self._kept[structure.composition.reduced_formula]
        if any(is_match(each, structure, self.ltol) for each in alike):
            return False
        alike.append(structure)
        return True


@dataclass
class NovelFilter(AbstractStructureFilter):
    """Keeps crystals that are not in a set of fingerprints.

    Args:
        reference: `"crystal"` for the training set of the release, or a file of fingerprints.

    Raises:
        ValueError: at the first test, if there is no such set or it holds molecules.
    """

    reference: str = "crystal"

    def test(self, structure: Structure) -> bool:  # type: ignore[override]
        """Return whether to keep the crystal."""
        return not _known(self.reference).contains(structure)


@lru_cache(maxsize=2)
def _known(reference: str) -> Fingerprints:
    known = Fingerprints.load(reference)
    if known.kind != "crystal":
        raise ValueError(f"The reference {reference!r} holds {known.kind}s; crystals are needed.")
    return known
