"""Worker processes with a time limit an item, for work that cannot be stopped from within.

Compiled code such as a conformer search ignores signals and exceptions: only ending its process
ends it. Each worker has a pipe of its own, so the item that stalls or kills it is known.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from adit_plugins.workers import (
    available_cores,
    end_at_interruption,
    interruption_delayed,
    one_thread_a_child,
)

Item = TypeVar("Item")
Part = TypeVar("Part")
Work = Callable[[Item], Iterable[Part]]

TIME_LIMIT = "time limit"
DIED = "worker process died"
FAREWELL_SECONDS = 5.0  # for an idle process to end by itself


@dataclass(frozen=True)
class End:
    """An item is finished.

    Attributes:
        problem: empty, or why there is no last part: `TIME_LIMIT`, `DIED`, or what was raised.
    """

    problem: str = ""


def stream_parts(
    work: Work[Item, Part],
    items: Sequence[Item],
    time_limit: float,
    workers: int | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Part | End]]:
    """Yield the parts of each item's result as they come, then an `End` for the item.

    What an item had yielded before it was stopped is kept. Parts of one item come in order, items
    in the order in which they are finished.

    Args:
        work: importable by name; yields parts (picklable).
        items: what to work on, picklable.
        time_limit: seconds an item may take.
        workers: processes; None for one a core, 0 for none: everything is done in this process,
            where nothing can be stopped. A script that uses processes needs its work under
            `if __name__ == "__main__":`.
        prepare: called once in a new worker (imports), outside of the time limit.

    Raises:
        ValueError: workers or time_limit is out of range.
        RuntimeError: workers die before they get their first item.
    """
    if not time_limit > 0 or (workers is not None and workers < 0):
        raise ValueError(f"{time_limit=} must be above 0 and {workers=} at least 0")
    if workers == 0:
        for index, item in enumerate(items):
            yield from ((index, part) for part in _finish(work, item))
        return
    count = min(available_cores() if workers is None else workers, len(items))
    pool = [Worker(work, prepare) for _ in range(count)]
    try:
        yield from _serve_all(pool, items, time_limit)
    finally:
        for worker in pool:
            worker.dismiss()
        for worker in pool:
            worker.stop()


def _serve_all(
    pool: list[Worker[Item, Part]], items: Sequence[Item], time_limit: float
) -> Iterator[tuple[int, Part | End]]:
    """Hand out items until there are no more and every worker is done."""
    waiting = deque(range(len(items)))
    active = list(pool)
    while active:
        pause = max(0.0, min(worker.deadline for worker in active) - time.monotonic())
        speaking = wait([worker.pipe for worker in active], None if math.isinf(pause) else pause)
        for worker in list(active):
            index, message = worker.index, None
            if worker.pipe in speaking:
                message = worker.receive()
            elif worker.deadline <= time.monotonic():
                message = worker.give_up(TIME_LIMIT)
            if message is not None:
                assert index is not None
                yield index, message
            if worker.index is None and not waiting:
                active.remove(worker)
            elif worker.is_dead:
                worker.start()
            elif worker.ready and worker.index is None:
                index = waiting.popleft()
                worker.take(index, items[index], time_limit)


class Worker(Generic[Item, Part]):
    """One process, the item that it has, and until when."""

    def __init__(self, work: Work[Item, Part], prepare: Callable[[], None] | None) -> None:
        self.work, self.prepare = work, prepare
        self.start()

    def start(self) -> None:
        """Start a process; it says when it is ready."""
        self.index: int | None = None
        self.deadline = math.inf
        self.ready = self.is_dead = False
        context = multiprocessing.get_context("spawn")  # fork breaks threaded torch
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(self.work, self.prepare, theirs), daemon=True
        )
        with one_thread_a_child(), interruption_delayed():
            self.process.start()
        theirs.close()

    def take(self, index: int, item: Item, time_limit: float) -> None:
        """Send an item."""
        self.index, self.deadline = index, time.monotonic() + time_limit
        with suppress(OSError):  # it died while idle: `receive` will find the end of the pipe
            self.pipe.send(item)

    def receive(self) -> Part | End | None:
        """Return the next part; an `End` frees the worker, None is its sign that it is ready."""
        try:
            message: Part | End | None = self.pipe.recv()
        except (EOFError, OSError):
            if not self.ready:
                raise RuntimeError(
                    "Worker processes die at the start. A script that works in processes needs its "
                    'work under `if __name__ == "__main__":`; or use workers=0.'
                ) from None
            return self.give_up(DIED)
        if message is None:
            self.ready = True
        elif isinstance(message, End):
            self.index, self.deadline = None, math.inf
        return message

    def give_up(self, problem: str) -> End:
        """End the process whatever it does."""
        self.stop()
        self.index, self.deadline, self.is_dead = None, math.inf, True
        return End(problem)

    def dismiss(self) -> None:
        """Let an idle process end by itself, which gives back what its libraries hold."""
        if self.index is None and not self.is_dead:
            self.pipe.close()

    def stop(self) -> None:
        """End the process, at once if it is at work."""
        if self.pipe.closed:
            self.process.join(FAREWELL_SECONDS)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(work: Work[Item, Part], prepare: Callable[[], None] | None, pipe: Connection) -> None:
    """In a worker: say when ready, then answer items until the parent is gone."""
    end_at_interruption()
    if prepare is not None:
        prepare()
    try:
        pipe.send(None)
        while True:
            for part in _finish(work, pipe.recv()):
                pipe.send(part)
    except (EOFError, OSError):
        return


def _finish(work: Work[Item, Part], item: Item) -> Iterator[Part | End]:
    try:
        yield from work(item)
    except Exception as error:  # noqa: BLE001 - one bad item must not cost the others
        yield End(f"{type(error).__name__}: {error}")
    else:
        yield End()
