"""Work that stalls, dies or raises costs its own item and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from adit_plugins.timed_workers import DIED, TIME_LIMIT, End, stream_parts


def work(item: str) -> Iterator[str]:
    """What the item says."""
    yield f"{item} begun"
    if item == "stall":
        time.sleep(60)
    if item == "die":
        os._exit(3)
    if item == "raise":
        raise ValueError("no good")
    yield f"{item} done"


def results(items: list[str], workers: int | None, time_limit: float = 1.0) -> list[list[object]]:
    collected: list[list[object]] = [[] for _ in items]
    for index, part in stream_parts(work, items, time_limit, workers):
        collected[index].append(part)
    return collected


def test_each_item_keeps_what_it_had_and_the_others_go_on() -> None:
    items = ["a", "stall", "b", "die", "c", "raise", "d"]
    start = time.monotonic()
    answers = results(items, workers=2)
    assert time.monotonic() - start < 30
    assert answers[1] == ["stall begun", End(TIME_LIMIT)]
    assert answers[3] == ["die begun", End(DIED)]
    assert answers[5] == ["raise begun", End("ValueError: no good")]
    for index in (0, 2, 4, 6):
        assert answers[index] == [f"{items[index]} begun", f"{items[index]} done", End()]


def test_without_processes_the_answers_are_the_same() -> None:
    assert results(["a", "raise"], workers=0) == [
        ["a begun", "a done", End()],
        ["raise begun", End("ValueError: no good")],
    ]


def test_nothing_to_do_starts_nothing() -> None:
    assert results([], workers=None) == []


@pytest.mark.parametrize(("time_limit", "workers"), [(0.0, 1), (-1.0, 1), (1.0, -1)])
def test_limits_that_mean_nothing_are_refused(time_limit: float, workers: int) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        results(["a"], workers, time_limit)
