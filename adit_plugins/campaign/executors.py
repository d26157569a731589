"""Where chunks are worked on: any `concurrent.futures.Executor`, found by name.

The entry-point group `adit.executors` holds factories `(argument, workers, time_limit)`; `argument`
is what stands after the colon in `NAME:ARGUMENT`, or None.
"""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, cast

from adit_plugins import registry
from adit_plugins.timed_workers import End, Worker
from adit_plugins.workers import available_cores

GROUP = "adit.executors"
STARTS = 3  # of a worker that dies before it can say that it is there

Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class WorkerDiedError(RuntimeError):
    """The process that worked on a task is gone, or was ended at the time limit."""


class WorkerStartError(RuntimeError):
    """No worker can start; no task is to blame."""


def make_executor(spec: str, workers: int | None, time_limit: float) -> Executor:
    """Return the executor of a name.

    Args:
        spec: `"serial"`, `"processes"`, `"parsl"`, `"parsl:FILE.py"`, or a plugin's.
        workers: None for one a core; 0 makes processes serial.
        time_limit: seconds a task.

    Raises:
        UnknownPluginError: there is none of that name.
        MissingExtraError: its package is not installed.
        ValueError: the argument is not understood.
    """
    name, _, argument = spec.partition(":")
    if name == "processes" and workers == 0:
        name = "serial"
    factory = registry.load(GROUP, name)
    return cast(Executor, factory(argument or None, workers, time_limit))


def make_serial(argument: str | None, workers: int | None, time_limit: float) -> SerialExecutor:
    """Do everything in this process, where nothing can be stopped."""
    _no_argument("serial", argument)
    return SerialExecutor()


def make_processes(
    argument: str | None, workers: int | None, time_limit: float
) -> ProcessesExecutor:
    """Do everything in processes of this machine."""
    _no_argument("processes", argument)
    return ProcessesExecutor(workers or available_cores(), time_limit)


def _no_argument(name: str, argument: str | None) -> None:
    if argument is not None:
        raise ValueError(f"The executor '{name}' takes no argument; got '{argument}'.")


class SerialExecutor(Executor):
    """A task is finished when `submit` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it belongs to the future, as in any executor
            future.set_exception(error)
        return future


class ProcessesExecutor(Executor):
    """Worker processes of which each may die alone.

    The standard library's pool is lost as a whole with one of its workers, and does not say which
    task was to blame. Here a task whose process dies, or takes too long, gets `WorkerDiedError`,
    the others go on, and the process is replaced.
    """

    def __init__(self, workers: int, time_limit: float) -> None:
        """Start nothing yet; a process starts with its first task.

        Args:
            workers: processes.
            time_limit: seconds a task.
        """
        self.num_workers = workers
        self._time_limit = time_limit
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._ended = False
        self._starting = threading.Lock()  # what children inherit is set for the whole process
        self._workers: set[Worker[Any, Any]] = set()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand a task to the next free worker; `fn` must be importable by name."""
        if self._ended:
            raise RuntimeError("the executor is shut down")
        future: Future[Any] = Future()
        self._tasks.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, after what is queued or, with `cancel_futures`, now."""
        self._ended = True
        for _ in self._threads:
            self._tasks.put(None)
        if cancel_futures:
            with self._starting:
                for worker in self._workers:
                    worker.process.kill()
        if wait:
            for thread in self._threads:
                thread.join()

    def processes(self) -> list[int]:
        """Return the process ids of the workers."""
        return [worker.process.pid for worker in list(self._workers) if worker.process.pid]

    def _serve(self) -> None:
        """In a thread: serve tasks with one process until there are no more."""
        worker: Worker[Any, Any] | None = None
        try:
            while (task := self._tasks.get()) is not None:
                future, fn, args, kwargs = task
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    worker = self._ready(worker)
                    future.set_result(self._answer(worker, (fn, args, kwargs)))
                except BaseException as error:  # noqa: BLE001 - of the task, or of its process
                    future.set_exception(error)
        finally:
            if worker is not None:
                worker.dismiss()
                worker.stop()

    def _ready(self, worker: Worker[Any, Any] | None) -> Worker[Any, Any]:
        """Return a worker that waits for a task.

        Raises:
            WorkerStartError: processes die before they are ready, again and again.
        """
        problem: Exception | None = None
        for _ in range(STARTS):
            if self._ended:
                break
            with self._starting:
                if worker is None:
                    worker = Worker(_call, _prepare)
                    self._workers.add(worker)
                elif worker.is_dead or not worker.process.is_alive():
                    worker.stop()
                    worker.start()
            try:
                while not worker.ready:
                    worker.receive()
                return worker
            except RuntimeError as error:
                worker.is_dead, problem = True, error
        raise WorkerStartError(str(problem or "the executor is shut down"))

    def _answer(self, worker: Worker[Any, Any], item: Any) -> Any:
        worker.take(0, item, self._time_limit)
        answer: tuple[Any, Exception | None] | None = None
        while worker.index is not None:
            if not worker.pipe.poll(self._time_limit):
                worker.give_up("")
                raise WorkerDiedError(f"no answer in {self._time_limit:g} s")
            message = worker.receive()
            if isinstance(message, End) and message.problem:
                raise WorkerDiedError(message.problem)
            if not isinstance(message, End):
                answer = message
        assert answer is not None
        result, error = answer
        if error is not None:
            raise error
        return result


def _call(task: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> Iterator[Any]:
    """In a worker: the result or the exception, which keeps its type."""
    fn, args, kwargs = task
    try:
        yield fn(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001 - raised again by the future
        yield None, error


def _prepare() -> None:
    """In a worker, once: what is wrong with a structure is in its result, not in a warning."""
    warnings.simplefilter("ignore")
