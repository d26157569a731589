"""What is tried again after a process was lost: the one policy, for every kind of work.

What was finished stays. Items that were not at work go on as if nothing had happened. Of those
that were, one alone is tried again, for something else may have ended its process, and is given up
at its third death or at the time limit; several, of which one is to blame, are cut in halves.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from adit_plugins.processes.messages import TIME_LIMIT

DEATHS = 3  # of processes, at which the one item that was at work is given up

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """Items that a process gets together.

    Attributes:
        places: of the items.
        deaths: processes that were lost over them.
    """

    places: tuple[int, ...]
    deaths: int = 0


def after_loss(
    attempt: Attempt, finished: Collection[int], at_work: Sequence[int], problem: str
) -> tuple[list[Attempt], list[int]]:
    """Say what is tried again, and what is given up.

    Args:
        attempt: whose process was lost.
        finished: places whose results have arrived.
        at_work: places that were at work; empty if that is not known.
        problem: `TIME_LIMIT`, or whatever else was seen.

    Returns:
        Attempts, and places of which at most one is given up.
    """
    left = [place for place in attempt.places if place not in finished]
    suspects = [place for place in left if place in at_work] or left
    rest = tuple(place for place in left if place not in suspects)
    again = [Attempt(rest, attempt.deaths)] if rest else []
    deaths = attempt.deaths + 1
    if len(suspects) == 1:
        if problem == TIME_LIMIT or deaths >= DEATHS:
            log.warning("item %d is given up after %d tries: %s", suspects[0], deaths, problem)
            return again, suspects
        log.info("item %d is tried again: %s", suspects[0], problem)
        return [*again, Attempt(tuple(suspects), deaths)], []
    half = len(suspects) // 2
    log.info("%d items are tried again in halves: %s", len(suspects), problem)
    parts = (suspects[:half], suspects[half:])
    return [*again, *(Attempt(tuple(part), deaths) for part in parts if part)], []
