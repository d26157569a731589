"""Two structures, equal or not; one structure, known or not.

`matcher` compares crystals by StructureMatcher, `fingerprints` with a training set that is not
here. Add a way to compare, or a set of known structures, here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.matching.fingerprints import (
        CrystalFingerprints,
        Fingerprints,
        MoleculeFingerprints,
        crystal_invariants,
        invariants_match,
        is_known,
    )
    from adit_plugins.matching.matcher import (
        Matches,
        duplicate_labels,
        find_duplicates,
        first_match,
        group,
        is_match,
        match_alike,
        reduce_cell,
        rms_distance,
        structure_matcher,
    )

__all__ = [
    "CrystalFingerprints",
    "Fingerprints",
    "Matches",
    "MoleculeFingerprints",
    "crystal_invariants",
    "duplicate_labels",
    "find_duplicates",
    "first_match",
    "group",
    "invariants_match",
    "is_known",
    "is_match",
    "match_alike",
    "reduce_cell",
    "rms_distance",
    "structure_matcher",
]

__getattr__, __dir__ = lazily(
    __name__,
    fingerprints="CrystalFingerprints Fingerprints MoleculeFingerprints crystal_invariants "
    "invariants_match is_known",
    matcher="Matches duplicate_labels find_duplicates first_match group is_match "
    "match_alike reduce_cell rms_distance structure_matcher",
)
