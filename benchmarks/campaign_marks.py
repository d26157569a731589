"""What a campaign takes while it runs: memory and time at marks, and the time of some of its steps.

Marks go into a file of the campaign's folder as they are made. So a run that is killed and taken up
again knows what it took before; what was done between the last mark and the kill is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from adit_plugins.campaign import Store, campaign
from adit_plugins.campaign.duplicates import Duplicates

MARKS = "marks.jsonl"
CHECKED = "structures checked"
# The steps that touch what all rows have left behind; the others see one structure at a time.
STEPS: tuple[tuple[str, Any, str], ...] = (
    ("store", Store, "add"),
    ("store", Store, "update"),
    ("store", Store, "claim"),
    ("duplicates", Duplicates, "crystal"),
    ("relaxed_duplicates", campaign, "mark_relaxed_duplicates"),
)


def memory() -> float:
    """Resident memory of this process in MB, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """Largest memory of this process in MB; getrusage counts that of the parent, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = int(next(each.split()[1] for each in lines if each.startswith("VmHWM")))
    return round(1024 * kibibytes / 1e6, 1)


def cpu_seconds() -> float:
    """Of this process and those that it has ended."""
    of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(each) for each in of]
    return sum(each.ru_utime + each.ru_stime for each in used)


def own_cpu_seconds() -> float:
    """Of this process alone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def load_average() -> float:
    """Programs that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 1)


@contextmanager
def timed_steps() -> Iterator[dict[str, float]]:
    """Give the CPU seconds that `STEPS` have taken in this process, by name, as they grow."""
    seconds = {name: 0.0 for name, _, _ in STEPS}
    with ExitStack() as stack:
        for name, owner, attribute in STEPS:
            watched = _timed(getattr(owner, attribute), name, seconds)
            stack.enter_context(mock.patch.object(owner, attribute, watched))
        yield seconds


def _timed(
    function: Callable[..., Any], name: str, seconds: dict[str, float]
) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.process_time() - begun

    return watched


class Marks:
    """A campaign's report that looks at it every so many structures.

    Attributes:
        marks: all of this campaign.
        seconds: from its beginning on, of all its runs.
        cpu_seconds: the same, of all processes.
    """

    def __init__(self, folder: Path, every: int, steps: dict[str, float]) -> None:
        self._path, self._every, self._steps = folder / MARKS, every, steps
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.marks: list[dict[str, Any]] = [json.loads(line) for line in lines]
        before = self.marks[-1] if self.marks else {"seconds": 0.0, "cpu_seconds": 0.0}
        self.seconds, self.cpu_seconds = before["seconds"], before["cpu_seconds"]
        self._done: int | None = None
        self._last = self._now()

    def _now(self) -> dict[str, float]:
        return {"seconds": time.perf_counter(), "cpu": cpu_seconds(), **self._steps}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `campaign.driver.Report`."""
        if stage != CHECKED:
            return
        if self._done is None:
            self._done = done
        if done - self._done >= self._every or (done == total and done > self._done):
            self._mark(done)

    def finish(self) -> None:
        """Count what came after the last mark."""
        now = self._now()
        self.seconds += now["seconds"] - self._last["seconds"]
        self.cpu_seconds += now["cpu"] - self._last["cpu"]
        self._last = now

    def _mark(self, done: int) -> None:
        assert self._done is not None
        now, num = self._now(), done - self._done
        took = {name: round(1000 * (now[name] - self._last[name]) / num, 3) for name in now}
        self.finish()
        mark = {
            "structures": done,
            "memory_mb": round(memory(), 1),
            "ms_per_structure": took.pop("seconds"),
            "cpu_ms_per_structure": took.pop("cpu"),
            "of_these_ms": {name: took[name] for name in self._steps if took[name]},
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
        }
        self.marks.append(mark)
        self._done = done
        line = json.dumps(mark)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)
