"""Duplicates among samples, and (re-exported) novelty against a table of fingerprints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adit_plugins.fingerprints import Fingerprints, is_too_empty

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

__all__ = ["Fingerprints", "duplicate_labels", "find_duplicates", "is_match", "structure_matcher"]


def structure_matcher() -> StructureMatcher:
    """Return the matcher of the published protocols: stol 0.5, angle_tol 10, ltol 0.3."""
    from pymatgen.analysis.structure_matcher import StructureMatcher as Matcher

    return Matcher(stol=0.5, angle_tol=10, ltol=0.3)


def find_duplicates(structures: Sequence[Structure]) -> list[int | None]:
    """Return for each crystal the index of the first earlier one it matches, or None.

    Only crystals of equal reduced formula are compared. Matches are looked for among those that
    are no duplicates themselves, so every index in the answer points to a unique structure.
    """
    matcher = structure_matcher()
    unique: defaultdict[str, list[int]] = defaultdict(list)
    answer: list[int | None] = []
    for index, structure in enumerate(structures):
        same_formula = unique[structure.composition.reduced_formula]
        match = next((j for j in same_formula if is_match(structures[j], structure, matcher)), None)
        if match is None:
            same_formula.append(index)
        answer.append(match)
    return answer


def is_match(first: Structure, second: Structure, matcher: StructureMatcher | None = None) -> bool:
    """Return whether StructureMatcher maps one crystal onto the other.

    A cell too distorted or too empty to be reduced matches nothing; pymatgen raises various
    errors there, and takes all memory for cells of micrometres.
    """
    if is_too_empty(first) or is_too_empty(second):
        return False
    try:
        return bool((matcher or structure_matcher()).fit(first, second))
    except (ValueError, ArithmeticError, IndexError, RuntimeError, MemoryError):
        return False


def duplicate_labels(labels: Sequence[str | None]) -> list[int | None]:
    """Return for each label (SMILES) the index of its first occurrence earlier, or None.

    A missing label (no bonds found) is a duplicate of nothing.
    """
    first: dict[str, int] = {}
    answer: list[int | None] = []
    for index, label in enumerate(labels):
        answer.append(None if label is None else first.get(label))
        if label is not None:
            first.setdefault(label, index)
    return answer
