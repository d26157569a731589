"""What a pre-filter drops and keeps by a limit on energies above hull, and what a cascade costs.

Three rules to drop a structure: the energy above hull by the pre-filter, by the judge's look at the
geometry where that ended, and the lower of both, as in `adit discover`, which needs the
look only at what is high by the pre-filter. Rows are those of `prefilter.compare`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

METASTABLE = 0.1  # eV/atom above the hull
KEEP = 0.99  # of the metastable structures
LIMITS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # eV/atom


def is_metastable(row: dict[str, Any]) -> bool:
    """Whether a relaxed structure lies below `METASTABLE`."""
    energy = row["energy_above_hull"]
    return energy is not None and energy < METASTABLE


RULES = ("student", "looked", "both")  # whose energy above hull decides


def judgement(row: dict[str, Any], rule: str, limit: float = 0.0) -> float | None:
    """Energy above hull by which a structure is dropped, eV/atom; None if nobody can judge."""
    student: float | None = row["student"]["energy_above_hull"]
    if student is None or not is_looked_at(row, rule, limit):
        return student
    looked: float | None = row["looked"]["energy_above_hull"]
    return None if looked is None else min(student, looked) if rule == "both" else looked


def end_of(row: dict[str, Any], rule: str, limit: float) -> dict[str, Any]:
    """The teacher's relaxation of what passes: as generated where its look failed."""
    failed = is_looked_at(row, rule, limit) and row["looked"]["energy_per_atom"] is None
    end: dict[str, Any] = row["direct" if failed else "refined"]
    return end


def is_looked_at(row: dict[str, Any], rule: str, limit: float) -> bool:
    """Whether the teacher's look is needed."""
    student = row["student"]["energy_above_hull"]
    return student is not None and (rule == "looked" or (rule == "both" and student >= limit))


def threshold(rows: Sequence[dict[str, Any]], rule: str) -> float:
    """The limit (eV/atom, in meV) that keeps `KEEP` of the metastable ones by a rule."""
    energies = [
        energy
        for row in rows
        if is_metastable(row["direct"]) and (energy := judgement(row, rule)) is not None
    ]
    if not energies:
        return float("inf")
    highest = float(np.quantile(energies, KEEP, method="higher"))
    return (math.floor(1000 * highest) + 1) / 1000  # above it: a limit keeps what lies below


def cascade(rows: Sequence[dict[str, Any]], rule: str, limit: float) -> dict[str, Any]:
    """What the cascade costs and keeps at a limit; what nobody can judge goes on."""

    def passes(row: dict[str, Any]) -> bool:
        energy = judgement(row, rule, limit)
        return energy is None or energy < limit

    passed = [row for row in rows if passes(row)]
    metastable = [row for row in rows if is_metastable(row["direct"])]
    others = [row for row in rows if not is_metastable(row["direct"])]
    alone = sum(row["direct"]["seconds"] for row in rows)
    student = sum(row["student"]["seconds"] for row in rows)
    looks = sum(row["looked"]["seconds"] for row in rows if is_looked_at(row, rule, limit))
    ends = [end_of(row, rule, limit) for row in passed]
    after = sum(end["seconds"] for end in ends)
    return {
        "structures": len(rows),
        "limit": round(limit, 3),
        "metastable_by_teacher": len(metastable),
        "metastable_kept": sum(map(passes, metastable)),
        "others": len(others),
        "others_removed": sum(not passes(row) for row in others),
        "not_judged": sum(judgement(row, rule, limit) is None for row in rows),
        "metastable_found_by_cascade": sum(map(is_metastable, ends)),
        "teacher_seconds": round(alone, 1),
        "student_seconds": round(student, 1),
        "look_seconds": round(looks, 1),
        "teacher_seconds_after_student": round(after, 1),
        "speedup": round(alone / (student + looks + after), 2),
    }


def kept(rows: Sequence[dict[str, Any]], limit: float) -> dict[str, Any]:
    """What the student alone would keep at a limit, of what the judge finds."""
    found = {True: [0, 0], False: [0, 0]}
    for row in rows:
        energy = judgement(row, "student")
        found[is_metastable(row["direct"])][int(energy is None or energy < limit)] += 1
    return {
        "structures": len(rows),
        "limit": round(limit, 3),
        "metastable_by_judge": sum(found[True]),
        "metastable_kept": found[True][1],
        "others": sum(found[False]),
        "others_removed": found[False][0],
    }


def judged(rows: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """What the student alone keeps, at the limit of the checked formulas and at others."""
    limit = threshold(rows["val"], "student")
    return {
        "kept_val": kept(rows["val"], limit),
        "kept_test": kept(rows["test"], limit),
        "kept_test_by_limit": {str(each): kept(rows["test"], each) for each in LIMITS},
    }


def cascaded(rows: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """The cascade by each rule, at the limit of the checked formulas and at others."""
    limits = {rule: threshold(rows["val"], rule) for rule in RULES}
    return {
        "cascade_val": {rule: cascade(rows["val"], rule, limits[rule]) for rule in RULES},
        "cascade_test": {rule: cascade(rows["test"], rule, limits[rule]) for rule in RULES},
        "cascade_test_by_limit": {
            rule: {str(each): cascade(rows["test"], rule, each) for each in LIMITS}
            for rule in RULES
        },
    }
