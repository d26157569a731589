"""Chunks on their way through an executor: tried again, cut in halves, and at last given up.

A chunk whose worker dies is tried once more. If that worker dies too, each half goes on alone, and
so on down to one structure, which is the one to blame: it has killed at least two workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass
from typing import Any

from adit_plugins.campaign.executors import WorkerStartError
from adit_plugins.registry import MissingExtraError, UnknownPluginError
from adit_plugins.relax import RelaxerError

# Nothing that another try would change: the campaign ends with the message.
FATAL = (RelaxerError, UnknownPluginError, MissingExtraError)
HOPELESS = 4  # deaths in a row before anything has succeeded


@dataclass
class Job:
    """A chunk of work.

    Attributes:
        name: of the stage.
        function: importable by name; takes the payload and returns a result for each of its items.
        payload: what the worker gets, picklable.
        keys: what the results belong to, for the driver; as many as items.
        deaths: workers that it has cost.
    """

    name: str
    function: Callable[[list[Any]], Sequence[Any]]
    payload: list[Any]
    keys: list[Any]
    deaths: int = 0


@dataclass(frozen=True)
class Killer:
    """The result of a structure that kills its workers.

    Attributes:
        reason: what was last seen.
    """

    reason: str


class Jobs:
    """Jobs at work in an executor."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._running: dict[Future[Any], Job] = {}
        self._answers: deque[tuple[Job, list[Any]]] = deque()
        self._succeeded = False
        self._deaths_in_a_row = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._answers)

    def submit(self, job: Job) -> None:
        """Start a job.

        Raises:
            RelaxerError: the executor takes no work.
        """
        try:
            future = self.executor.submit(job.function, job.payload)
        except (BrokenExecutor, RuntimeError) as error:
            raise RelaxerError(f"The executor takes no work: {error}") from error
        self._running[future] = job

    def finished(self) -> Iterator[tuple[Job, list[Any]]]:
        """Wait until a job is done and yield those that are, each with a result an item.

        Raises:
            RelaxerError: the potential cannot be loaded, or workers die whatever they get.
            UnknownPluginError: a worker does not know the relaxer.
            MissingExtraError: a worker lacks its package.
        """
        if self._running and not self._answers:
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                self._collect(future, self._running.pop(future))
        while self._answers:
            yield self._answers.popleft()

    def _collect(self, future: Future[Any], job: Job) -> None:
        try:
            results = list(future.result())
            if len(results) != len(job.keys):
                raise ValueError(f"{len(results)} results for {len(job.keys)} structures")
        except FATAL:
            raise
        except (WorkerStartError, BrokenExecutor) as error:
            raise RelaxerError(f"No worker can start: {error}") from error
        except (Exception, CancelledError) as error:  # noqa: BLE001 - each executor has its own
            self._try_again(job, " ".join(f"{type(error).__name__}: {error}".split()))
        else:
            self._succeeded = True
            self._answers.append((job, results))

    def _try_again(self, job: Job, reason: str) -> None:
        self._deaths_in_a_row += 1
        if not self._succeeded and self._deaths_in_a_row >= HOPELESS * max(len(job.keys), 2):
            raise RelaxerError(f"Workers die whatever they get: {reason}")
        job.deaths += 1
        if job.deaths < 2:
            self.submit(job)
        elif len(job.keys) == 1:
            self._answers.append((job, [Killer(reason)]))
        else:
            half = len(job.keys) // 2
            for part in (slice(None, half), slice(half, None)):
                # One more death cuts it again; with the chunk's, a single one has killed two.
                self.submit(Job(job.name, job.function, job.payload[part], job.keys[part], 1))
