"""`map` and `stream`: items through worker processes, whatever becomes of each."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from adit_plugins.processes.environment import available_cores
from adit_plugins.processes.executor import ProcessesExecutor
from adit_plugins.processes.messages import At, Each, End, Part, Work, tell
from adit_plugins.processes.retry import Attempt, after_loss
from adit_plugins.processes.worker import LostError, WorkerStartError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAP_SECONDS = 60.0  # an item
START_SECONDS = 120.0  # for a process to import what the work is made of


def map(  # noqa: A001 - processes.map is its name
    function: Callable[[Item], Result],
    items: Iterable[Item],
    on_failure: Callable[[Item, str], Result],
    workers: int | None = None,
    time_limit: float = MAP_SECONDS,
    chunk_size: int = 50,
    seconds: Callable[[Item], float] | None = None,
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, with a bounded number of items at work.

    Args:
        function: importable by name.
        items: taken as they are needed, so a generator of any length stays a generator.
        on_failure: the result of an item that kills its process, takes too long or raises, which
            the text says.
        workers: processes; 0 for none, where nothing can be stopped; None for one a core, and for
            none where there are fewer than two chunks: that is quicker than starting one.
        time_limit: seconds an item.
        chunk_size: items sent at once.
        seconds: that an item may take, in the place of the limit.

    Raises:
        WorkerStartError: no process can start.
    """
    iterator = iter(items)
    head = list(islice(iterator, 2 * chunk_size))
    if workers is None and len(head) < 2 * chunk_size:
        workers = 0
    if workers == 0:
        for item in (*head, *iterator):
            yield function(item)
        return
    count = available_cores() if workers is None else workers
    ahead: dict[int, Item] = {}  # taken, and not yet yielded
    given = 0

    def chunks() -> Iterator[dict[int, Item] | None]:
        taken = 0
        rest = (each for part in (head, iterator) for each in part)
        while chunk := list(islice(rest, chunk_size)):
            while len(ahead) > 3 * count * chunk_size:  # an item that takes long holds the rest up
                yield None
            numbered = dict(enumerate(chunk, start=taken))
            ahead.update(numbered)
            taken += len(chunk)
            yield numbered

    found: dict[int, Result] = {}
    work = Each(_Once(function), seconds)
    with _executor(count, time_limit) as executor:
        for place, value in _Flow(executor, work, chunks()).run():
            if not isinstance(value, End):
                found[place] = value
            elif value.problem:
                found[place] = on_failure(ahead[place], value.problem)
            while given in found:
                yield found.pop(given)
                del ahead[given]
                given += 1


@dataclass(frozen=True)
class _Once:
    """A function as work that yields its one result."""

    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> Iterator[Any]:
        yield self.function(item)


def stream(
    work: Work,
    items: Sequence[Item],
    time_limit: float,
    workers: int | None = None,
    prepare: Callable[[], None] | None = None,
    batches: Iterable[Sequence[int]] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield the parts of each item's result as they come, then an `End` for the item.

    What an item had said before it was stopped is kept; if it is tried again, it says it again.
    Parts of one item come in order, items in the order in which they are finished.

    Args:
        work: importable by name; takes a list of items and yields `At` and `Part`, with an `End`
            as the last part of each item. `Each` makes it of work on one item.
        items: what to work on, picklable.
        time_limit: seconds an item may take.
        workers: processes; None for one a core, 0 for none: everything is done in this process,
            where nothing can be stopped. A script that uses processes needs its work under
            `if __name__ == "__main__":`.
        prepare: called once in a new worker (imports), outside of the time limit.
        batches: places of items that a call of work gets together; None for each alone.

    Raises:
        ValueError: workers or time_limit is out of range.
        WorkerStartError: processes die before they get their first item.
    """
    if not time_limit > 0 or (workers is not None and workers < 0):
        raise ValueError(f"{time_limit=} must be above 0 and {workers=} at least 0")
    groups = [[place] for place in range(len(items))] if batches is None else list(batches)
    tasks = ({place: items[place] for place in group} for group in groups)
    if workers == 0:
        for task in tasks:
            places = list(task)
            for message in work([*task.values()]):
                if isinstance(message, Part):
                    yield places[message.place], message.value
        return
    count = min(available_cores() if workers is None else workers, len(groups))
    with _executor(count, time_limit, prepare) as executor:
        yield from _Flow(executor, work, tasks).run()


@contextmanager
def _executor(
    count: int, time_limit: float, prepare: Callable[[], None] | None = None
) -> Iterator[ProcessesExecutor]:
    """Give processes that are gone at the end, at once if that comes by an exception."""
    executor = ProcessesExecutor(count, time_limit, START_SECONDS, prepare)
    try:
        yield executor
    except BaseException:  # Ctrl-C, or a reader who wants no more
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


@dataclass
class _Task:
    """Items under way together."""

    attempt: Attempt
    items: Mapping[int, Any]
    at: tuple[int, ...] = ()
    finished: set[int] = field(default_factory=set)

    def hears(self, message: At | Part) -> Iterator[tuple[int, Any]]:
        """Translate places in the list into places of items."""
        places = self.attempt.places
        if isinstance(message, At):
            self.at = tuple(places[each] for each in message.places)
            return
        place = places[message.place]
        if isinstance(message.value, End):
            self.finished.add(place)
        yield place, message.value


class _Flow:
    """Tasks through an executor, never more than it needs to be busy."""

    def __init__(
        self,
        executor: ProcessesExecutor,
        work: Work,
        tasks: Iterator[dict[int, Any] | None],
    ) -> None:
        """Begin with nothing.

        Args:
            executor: of worker processes.
            work: as for `stream`.
            tasks: items by their places; None for "not now".
        """
        self.executor, self.work, self.tasks = executor, work, tasks
        self.events: queue.SimpleQueue[tuple[_Task, Any]] = queue.SimpleQueue()
        self.running = 0

    def run(self) -> Iterator[tuple[int, Any]]:
        """Yield places and what was found there, until there is no more."""
        self._fill()
        while self.running:
            task, event = self.events.get()
            if isinstance(event, At | Part):
                yield from task.hears(event)
                continue
            self.running -= 1
            yield from self._end(task, event)
            self._fill()

    def _fill(self) -> None:
        while self.running < 2 * self.executor.num_workers:
            items = next(self.tasks, None)
            if items is None:
                return
            self._start(Attempt(tuple(items)), items)

    def _start(self, attempt: Attempt, items: Mapping[int, Any]) -> None:
        task = _Task(attempt, {place: items[place] for place in attempt.places})
        arguments = (self.work, [*task.items.values()])
        future = self.executor.start(
            _say, arguments, lambda message: self.events.put((task, message))
        )
        self.running += 1

        def ended(future: Future[Any]) -> None:
            if not future.cancelled():  # after Ctrl-C, when nobody listens any more
                self.events.put((task, future.exception()))

        future.add_done_callback(ended)

    def _end(self, task: _Task, error: BaseException | None) -> Iterator[tuple[int, Any]]:
        """Say what became of the items that have no end yet.

        Raises:
            WorkerStartError: no process can start.
        """
        left = [place for place in task.attempt.places if place not in task.finished]
        if isinstance(error, WorkerStartError):
            raise error
        if isinstance(error, LostError):
            again, given_up = after_loss(task.attempt, task.finished, task.at, error.problem)
            for attempt in again:
                self._start(attempt, task.items)
            yield from ((place, End(error.problem)) for place in given_up)
        elif left:
            text = "" if error is None else f"{type(error).__name__}: {error}"
            yield from ((place, End(text)) for place in left)


def _say(work: Work, items: list[Any]) -> None:
    """In a worker: say everything that the work yields."""
    for message in work(items):
        tell(message)
