"""Progress on stderr: bars on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]  # stage, done, total


@contextmanager
def progress() -> Iterator[Report]:
    """Give a function that is told (stage, done, total) as work goes on."""
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    pace = Pace()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, rate="")
            rate, _ = pace.of(stage, done, total)
            text = "" if rate is None else f"{rate:.3g}/s"
            bars.update(tasks[stage], completed=done, total=total, rate=text)

        yield report


class Pace:
    """How fast each stage goes, counted from its first report: what was resumed took no time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: dict[str, tuple[float, int]] = {}

    def of(self, stage: str, done: int, total: int) -> tuple[float | None, float | None]:
        """Return items a second and the seconds that remain; None before both are known."""
        now = self._clock()
        start, before = self._first.setdefault(stage, (now, done))
        if done <= before or now <= start:
            return None, None
        rate = (done - before) / (now - start)
        return rate, (total - done) / rate


SHORT_SECONDS = 1.0  # at least between two lines but the last: a quick stage floods no log
LINE_SECONDS = 30.0  # at most between two lines of a stage that moves, so that a log shows life


def _plain_lines(clock: Callable[[], float] = time.monotonic) -> Report:
    """Print a line at the start, the end and every tenth of a stage, or after half a minute."""
    pace = Pace(clock)
    last: dict[str, tuple[int, float]] = {}

    def report(stage: str, done: int, total: int) -> None:
        rate, remaining = pace.of(stage, done, total)
        tenth, now = 10 * done // max(total, 1), clock()
        highest, when = last.get(stage, (-1, now))
        pause = LINE_SECONDS if tenth <= highest else SHORT_SECONDS
        if highest >= 0 and now - when < pause and (done < total or tenth <= highest):
            return  # the total of a stage may grow: a tenth is reported once
        last[stage] = (max(tenth, highest), now)
        text = ""
        if rate is not None and remaining is not None and done < total:
            text = f" ({rate:.3g}/s, {_duration(remaining)} left)"
        print(f"{stage}: {done}/{total}{text}", file=sys.stderr, flush=True)

    return report


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
