"""Chunks on their way through an executor; what is lost is tried again as `processes` says.

Workers of this package tell how far they had come, so that only what was at work is in question. Of
any other executor only the loss of the chunk is known: it is cut in halves down to the structure
that is to blame.
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
from dataclasses import dataclass, field
from typing import Any

from adit_plugins.processes import (
    At,
    Attempt,
    End,
    LostError,
    Part,
    ProcessesExecutor,
    WorkerStartError,
    after_loss,
)
from adit_plugins.registry import MissingExtraError, UnknownPluginError
from adit_plugins.relax.run import RelaxerError

# Nothing that another try would change: the campaign ends with the message.
FATAL = (RelaxerError, UnknownPluginError, MissingExtraError)
WATCH_SECONDS = 2.0  # at most without a look at what workers say
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
        ended: places of the items that a worker says it has finished.
    """

    name: str
    function: Callable[[list[Any]], Sequence[Any]]
    payload: list[Any]
    keys: list[Any]
    deaths: int = 0
    ended: set[int] = field(default_factory=set)

    def told(self, message: At | Part) -> None:
        """Take what a worker says while it goes on."""
        if isinstance(message, Part) and isinstance(message.value, End):
            self.ended.add(message.place)

    def part(self, places: Sequence[int], deaths: int = 0) -> Job:
        """Return a job of some of the items."""
        payload, keys = ([each[place] for place in places] for each in (self.payload, self.keys))
        return Job(self.name, self.function, payload, keys, deaths)


@dataclass(frozen=True)
class Killer:
    """The result of a structure that kills its workers.

    Attributes:
        reason: what was last seen.
        found: the last that its worker had said of it.
    """

    reason: str
    found: Any = None


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

    def num_ended(self, name: str) -> int:
        """Return how many items of a stage are finished in chunks that are still at work."""
        return sum(len(job.ended) for job in self._running.values() if job.name == name)

    def submit(self, job: Job) -> None:
        """Start a job.

        Raises:
            RelaxerError: the executor takes no work.
        """
        try:
            if isinstance(self.executor, ProcessesExecutor):
                future = self.executor.start(job.function, (job.payload,), job.told)
            else:
                future = self.executor.submit(job.function, job.payload)
        except (BrokenExecutor, RuntimeError) as error:
            raise RelaxerError(f"The executor takes no work: {error}") from error
        self._running[future] = job

    def finished(self) -> Iterator[tuple[Job, list[Any]]]:
        """Wait a moment for a job to be done and yield those that are, each with a result an item.

        Raises:
            RelaxerError: the potential cannot be loaded, or workers die whatever they get.
            UnknownPluginError: a worker does not know the relaxer.
            MissingExtraError: a worker lacks its package.
        """
        if self._running and not self._answers:
            done, _ = wait(self._running, WATCH_SECONDS, FIRST_COMPLETED)
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
            self._try_again(job, error)
        else:
            self._succeeded = True
            self._answers.append((job, results))

    def _try_again(self, job: Job, error: BaseException) -> None:
        found, finished, at_work = _told(error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        problem = error.problem if isinstance(error, LostError) else reason
        if finished:
            self._succeeded = True
            done = sorted(finished)
            self._answers.append((job.part(done), [found[place] for place in done]))
        self._deaths_in_a_row += 1
        if not self._succeeded and self._deaths_in_a_row >= HOPELESS * max(len(job.keys), 2):
            raise RelaxerError(f"Workers die whatever they get: {reason}")
        attempt = Attempt(tuple(range(len(job.keys))), job.deaths)
        again, given_up = after_loss(attempt, finished, at_work, problem)
        for each in again:
            self.submit(job.part(each.places, each.deaths))
        for place in given_up:
            self._answers.append((job.part([place]), [Killer(reason, found.get(place))]))


def _told(error: BaseException) -> tuple[dict[int, Any], set[int], tuple[int, ...]]:
    """Return what a lost worker had found, what it had finished, and where it was."""
    found: dict[int, Any] = {}
    finished: set[int] = set()
    at_work: tuple[int, ...] = ()
    for message in error.told if isinstance(error, LostError) else ():
        if isinstance(message, At):
            at_work = message.places
        elif isinstance(message.value, End):
            finished.add(message.place)
        else:
            found[message.place] = message.value
    return found, finished, at_work
