"""What a campaign does with its structures, and with which means."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adit_plugins.relax.limits import (
    CAMPAIGN_STEPS,
    CONFIRM_LIMIT,
    CONFIRM_STEPS,
    FMAX,
    PREFILTER_STEPS,
    TIME_LIMIT_SECONDS,
    check_limits,
)
from adit_plugins.validity.oxidation import NEUTRALITY_RULES


@dataclass(frozen=True)
class Settings:
    """What decides the verdicts; kept in the store, the same for the whole campaign.

    Attributes:
        relaxer: name in the entry-point group `adit.relaxers`; None relaxes nothing.
        fmax: force limit, eV/angstrom.
        max_steps: optimiser steps a structure.
        prefilter: a cheaper relaxer that goes first; None for no such stage.
        prefilter_steps: its optimiser steps.
        prefilter_limit: eV/atom above the hull; what lies higher after the pre-filter, by its own
            energy and by the relaxer's of the same geometry, is left there.
        neutral_by: rank only what this rule, or one before it in
            `adit_plugins.validity.NEUTRALITY_RULES`, finds charge neutral; None ranks all.
        max_hull: rank only what lies below this distance from the hull, eV/atom; None ranks all.
        until: stop once so many candidates are found that are no known structure; None for all
            structures of the source. Needs a `max_hull`.
        confirm: another potential that judges the candidates at the end; None for no such stage.
        confirm_steps: its optimiser steps, from where the relaxer has ended.
        confirm_limit: eV/atom above the hull by the relaxer; it is not asked about what lies
            higher.
        hull: the reference that crystals are ranked by (`adit_plugins.hull.load_hull`).

    Raises:
        ValueError: a limit is out of range.
    """

    relaxer: str | None = "chgnet"
    fmax: float = FMAX
    max_steps: int = CAMPAIGN_STEPS
    prefilter: str | None = None
    prefilter_steps: int = PREFILTER_STEPS
    prefilter_limit: float = 0.5
    neutral_by: str | None = None
    max_hull: float | None = None
    until: int | None = None
    confirm: str | None = None
    confirm_steps: int = CONFIRM_STEPS
    confirm_limit: float = CONFIRM_LIMIT
    hull: str = "mp"

    def __post_init__(self) -> None:
        check_limits(self.fmax, self.max_steps, None)
        check_limits(self.fmax, self.prefilter_steps, None)
        check_limits(self.fmax, self.confirm_steps, None)
        if not (math.isfinite(self.prefilter_limit) and self.prefilter_limit >= 0):
            raise ValueError(
                f"prefilter_limit={self.prefilter_limit} must be a finite number of at least 0"
            )
        if self.neutral_by not in (None, *NEUTRALITY_RULES):
            known = ", ".join(NEUTRALITY_RULES)
            raise ValueError(f"neutral_by={self.neutral_by!r} must be one of {known}, or None")
        if self.max_hull is not None and not math.isfinite(self.max_hull):
            raise ValueError(f"max_hull={self.max_hull} must be a finite number of eV/atom")
        if self.until is not None and (self.until < 1 or self.max_hull is None or not self.relaxer):
            raise ValueError(
                f"until={self.until} candidates need a number of at least 1, a relaxer and a "
                "max_hull to count them by"
            )
        if self.prefilter is not None and self.relaxer is None:
            raise ValueError("a pre-filter needs a relaxer to filter for; drop --no-relax")
        if not math.isfinite(self.confirm_limit):
            raise ValueError(
                f"confirm_limit={self.confirm_limit} must be a finite number of eV/atom"
            )
        if self.confirm is not None and self.confirm == self.relaxer:
            raise ValueError(f"{self.confirm} has relaxed already: its opinion is no second one")
        if self.confirm is not None and self.relaxer is None:
            raise ValueError("a second opinion needs a first one; drop --no-relax")

    @property
    def neutral_rules(self) -> tuple[str, ...] | None:
        """Rules of charge balance of which a candidate keeps one; None where it need not."""
        if self.neutral_by is None:
            return None
        return tuple(NEUTRALITY_RULES[: NEUTRALITY_RULES.index(self.neutral_by) + 1])

    @property
    def first_stage(self) -> str:
        """Where a valid, unique and novel crystal goes."""
        if self.relaxer is None:
            return DONE
        return RELAX if self.prefilter is None else PREFILTER


# Stages that a row of the store waits for.
PREFILTER, RELAX, DONE = "prefilter", "relax", "done"
WAITING = (PREFILTER, RELAX)
CHUNK_SIZE = 8  # structures

# What has ended a run: nothing is left; enough is found; the time is up; Ctrl-C. Or nothing, yet.
ALL, FOUND, MINUTES, INTERRUPTED = "all", "found", "minutes", "interrupted"
UNFINISHED = "unfinished"

# What is known of a relaxed crystal: its structure is in the training set; its formula is there, or
# in the table of the hull; neither.
KNOWN_STRUCTURE, KNOWN_FORMULA, NEW = NOVELTY = ("known structure", "known formula", "new")


@dataclass(frozen=True)
class Resources:
    """What the work is done with; changes no verdict, and may change between two runs.

    Attributes:
        executor: name in the entry-point group `adit.executors`, with its argument after a colon.
        workers: processes; None for one a core, 0 for none (everything in this process).
        chunk_size: structures sent to a worker at once, and written in one transaction; None for 8,
            or for as many as fill the batch of a relaxer that takes several at once.
        block_size: structures taken from the source at once.
        time_limit: seconds a structure may keep a worker process.
        minutes: a run ends after so long, with what is finished by then; None for no limit.

    Raises:
        ValueError: a number is out of range.
    """

    executor: str = "processes"
    workers: int | None = None
    chunk_size: int | None = None
    block_size: int = 64
    time_limit: float = TIME_LIMIT_SECONDS
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers={self.workers} must be at least 0")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"minutes={self.minutes} must be above 0")
        if (
            min(self.chunk_size or 1, self.block_size) < 1
            or self.chunk_size == 0
            or not self.time_limit > 0
        ):
            raise ValueError(
                f"chunk_size={self.chunk_size} and block_size={self.block_size} must be at least "
                f"1, time_limit={self.time_limit} above 0"
            )
