"""Duplicates and known crystals by StructureMatcher; novelty by table is in `fingerprints`.

Comparing every pair takes hours. Two crystals can only match if their reduced formulas are equal,
and, since pymatgen demands a one-to-one assignment of the sites of the primitive cells, if these
cells have as many sites. So crystals are sorted into buckets by formula, each is reduced once, and
only those with cells of one size are handed to the matcher: the answers are those of every pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adit_plugins.matching.fingerprints import is_too_empty
from adit_plugins.structures.given import to_structure
from adit_plugins.structures.symmetry import niggli_reduced, unskewed

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    from adit_plugins.structures.samples import Convertible

__all__ = [
    "LEMAT_LTOL",
    "LTOL",
    "Matches",
    "duplicate_labels",
    "find_duplicates",
    "first_match",
    "is_match",
    "match_alike",
    "reduce_cell",
    "rms_distance",
    "structure_matcher",
]

LTOL, LEMAT_LTOL = 0.3, 0.1  # most papers and LeMat-GenBench
STOL, ANGLE_TOL = 0.5, 10.0  # in both settings


def structure_matcher(ltol: float = LTOL) -> StructureMatcher:
    """Return the matcher of the published protocols: stol 0.5, angle_tol 10, ltol 0.3 (or 0.1)."""
    from pymatgen.analysis.structure_matcher import StructureMatcher as Matcher

    return Matcher(stol=STOL, angle_tol=ANGLE_TOL, ltol=ltol)


@dataclass(frozen=True)
class Matches:
    """What one crystal was found to equal.

    Attributes:
        duplicate_of: the first earlier crystal that it matches and that is no duplicate itself.
        known_as: the first reference that it matches.
    """

    duplicate_of: int | None = None
    known_as: int | None = None


def match_alike(
    crystals: Sequence[Structure], references: Sequence[Structure] = (), ltol: float = LTOL
) -> list[Matches]:
    """Compare crystals of one reduced formula with each other and with references of that formula.

    Indices count within the two arguments. The order of the arguments of `fit`, which is not quite
    symmetric, is: earlier before later, reference before sample.
    """
    matcher = structure_matcher(ltol)
    known = [reduce_cell(each) for each in references]
    unique: list[tuple[int, Structure | None]] = []
    answer = []
    for index, crystal in enumerate(crystals):
        mine = reduce_cell(crystal)
        pairs = ((j, other) for j, other in unique if _fit(matcher, other, mine))
        duplicate = next((j for j, _ in pairs), None)
        reference = next((j for j, each in enumerate(known) if _fit(matcher, each, mine)), None)
        if duplicate is None:
            unique.append((index, mine))
        answer.append(Matches(duplicate, reference))
    return answer


def first_match(
    crystal: Structure | None,
    earlier: Iterable[Structure | None],
    ltol: float = LTOL,
    matcher: StructureMatcher | None = None,
) -> int | None:
    """Return the place of the first earlier crystal that this one matches, or None.

    All of one reduced formula and as `reduce_cell` gives them: for a set that grows. A matcher of
    other tolerances takes the place of the published one.
    """
    matcher = matcher or structure_matcher(ltol)
    return next((i for i, each in enumerate(earlier) if _fit(matcher, each, crystal)), None)


def find_duplicates(structures: Sequence[Convertible], ltol: float = LTOL) -> list[int | None]:
    """Return for each crystal the index of the first earlier one it matches, or None.

    Matches are looked for among those that are no duplicates themselves, so every index in the
    answer points to a unique structure.
    """
    crystals = [to_structure(each) for each in structures]
    answer: list[int | None] = [None] * len(crystals)
    for places in group(each.composition.reduced_formula for each in crystals).values():
        found = match_alike([crystals[i] for i in places], ltol=ltol) if len(places) > 1 else []
        for place, matches in zip(places, found, strict=False):
            if matches.duplicate_of is not None:
                answer[place] = places[matches.duplicate_of]
    return answer


def group(labels: Iterable[Hashable]) -> dict[Hashable, list[int]]:
    """Return the places of each label, in order."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        places[label].append(index)
    return dict(places)


def is_match(first: Convertible, second: Convertible, ltol: float = LTOL) -> bool:
    """Return whether StructureMatcher maps one crystal onto the other.

    A cell too distorted or too empty to be reduced matches nothing; pymatgen raises various
    errors there, and takes all memory for cells of micrometres.
    """
    first, second = to_structure(first), to_structure(second)
    if first.composition.reduced_formula != second.composition.reduced_formula:
        return False
    return _fit(structure_matcher(ltol), reduce_cell(first), reduce_cell(second))


def rms_distance(
    first: Convertible, second: Convertible, matcher: StructureMatcher | None = None
) -> float | None:
    """Return the RMS displacement of matched sites in units of (volume / atom)^(1/3), or None.

    None where the matcher finds no mapping, or cannot reduce a cell.
    """
    first, second = to_structure(first), to_structure(second)
    if is_too_empty(first) or is_too_empty(second):
        return None
    try:
        result = (matcher or structure_matcher()).get_rms_dist(unskewed(first), unskewed(second))
    except ERRORS:
        return None
    return None if result is None else float(result[0])


def reduce_cell(structure: Convertible) -> Structure | None:
    """Return the primitive cell that StructureMatcher works on; None where there is none."""
    structure = to_structure(structure)
    if is_too_empty(structure):
        return None
    try:
        return niggli_reduced(structure).get_primitive_structure()
    except ERRORS:
        return None


# What pymatgen raises of cells too distorted to be worked on.
ERRORS = (ValueError, ArithmeticError, IndexError, RuntimeError, MemoryError)


def _fit(matcher: StructureMatcher, first: Structure | None, second: Structure | None) -> bool:
    if first is None or second is None or len(first) != len(second):
        return False
    try:
        return bool(matcher.fit(first, second, skip_structure_reduction=True))
    except ERRORS:
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
